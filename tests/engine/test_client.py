"""The client against the real child: streams, cancelling, deaths and restarts."""

import asyncio
import contextlib
import gc
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import chatty
import pytest

from macllm.engine.client import EngineClient
from macllm.engine.death import EngineDied, cause_of_death
from macllm.engine.events import Counted, Event, Loading, Prefill, Ready, Token
from macllm.engine.generate import Options, generate
from macllm.engine.loading import load_model
from macllm.engine.protocol import Count, Load, ModelRef
from macllm.engine.session import Session
from macllm.paths import child_environment

PATIENCE_S = 60


def python(code: str) -> tuple[str, ...]:
    return (sys.executable, "-P", "-c", code)


def state(pid: int) -> str:
    """What ``ps`` says a process is: Z waits to be buried, an empty one is gone."""
    done = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return done.stdout.strip()[:1]


async def until_true(condition: Callable[[], bool]) -> None:
    limit = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < limit
        await asyncio.sleep(0.01)


async def test_a_stream_says_what_the_engine_says_in_process() -> None:
    loaded = load_model(chatty.folder("endless"), dtype="float32")
    request = chatty.ask("Tell me more", tokens=80)
    assert request.sampling is not None
    prompt = loaded.require_tokenizer().encode_chat(request.messages)
    options = Options(request.sampling, request.limits)
    alone = list(generate(loaded, Session(loaded.model), prompt, options))
    async with chatty.engine() as engine:
        piped = await chatty.read(engine.submit(request))
    assert chatty.ids(piped) == chatty.ids(alone)
    assert chatty.text_of(piped) == chatty.text_of(alone)
    assert chatty.done(piped).reason == "length"


async def test_it_says_what_it_runs_on_before_it_has_started() -> None:
    client = EngineClient()
    assert (client.alive, client.machine, client.pid) == (False, None, None)
    try:
        await asyncio.gather(client.start(), client.start())
        assert client.alive
        assert client.machine is not None and client.machine.memory_limit_bytes > 0
        pid = client.pid
        await client.start()
        assert client.pid == pid
    finally:
        await client.close()
    assert (client.alive, client.pid) == (False, None)


async def test_several_requests_at_once_say_what_each_says_alone() -> None:
    requests = [chatty.ask(f"Question {number}", tokens=30, session=f"{number}") for number in range(4)]
    async with chatty.engine() as engine:
        together = await asyncio.gather(*(chatty.read(engine.submit(request)) for request in requests))
        for request, events in zip(requests, together, strict=True):
            alone = await chatty.read(engine.submit(replace(request, session="")))
            assert chatty.ids(events) == chatty.ids(alone)
            assert len(chatty.ids(events)) == 30


async def test_counts_are_answered_while_a_reply_is_written() -> None:
    async with chatty.engine() as engine:
        reply = engine.submit(chatty.ask(tokens=None))
        await chatty.until(reply, Token)
        for draft in ("a", "ab"):
            counted = await chatty.read(engine.submit(Count(chatty.ref(), (), draft)))
            assert [type(event) for event in counted] == [Counted]
        reply.cancel()
        assert chatty.done(await chatty.read(reply)).reason == "cancelled"


@pytest.mark.parametrize(
    ("text", "at"), [("Hello", Token), ("x" * 30_000, Prefill)], ids=["decoding", "prefill"]
)
async def test_a_cancelled_reply_ends_and_its_conversation_goes_on(text: str, at: type[Event]) -> None:
    async with chatty.engine() as engine:
        await chatty.read(engine.submit(Load(chatty.ref())))
        reply = engine.submit(chatty.ask(text, tokens=None, session="a"))
        events = await chatty.until(reply, at)
        while at is Prefill and not any(isinstance(event, Prefill) and event.done for event in events):
            events += await chatty.until(reply, Prefill)
        reply.cancel()
        reply.cancel()
        events += await chatty.read(reply)
        assert chatty.done(events).reason == "cancelled"
        assert bool(chatty.ids(events)) == (at is Token)
        again = chatty.ask(text[:50], session="a")
        went_on = await chatty.read(engine.submit(again))
        alone = await chatty.read(engine.submit(replace(again, session="")))
        assert chatty.ids(went_on) == chatty.ids(alone)
        assert chatty.done(went_on).metrics.reused_tokens > 0


async def test_a_cancelled_load_ends_and_the_next_one_is_whole() -> None:
    async with chatty.engine() as engine:
        load = engine.submit(Load(chatty.ref("deep")))
        await chatty.until(load, Loading)
        load.cancel()
        assert chatty.done(await chatty.read(load)).reason == "cancelled"
        events = await chatty.read(engine.submit(chatty.ask(model="deep", tokens=2)))
        assert any(isinstance(event, Ready) for event in events)
        assert chatty.done(events).reason == "length"


async def test_a_model_switch_frees_the_old_one() -> None:
    async def memory(engine: EngineClient, name: str) -> int:
        ready = (await chatty.read(engine.submit(Load(chatty.ref(name)))))[-1]
        assert isinstance(ready, Ready)
        return ready.memory_bytes

    async with chatty.engine() as fresh:
        alone = await memory(fresh, "short")
    async with chatty.engine() as engine:
        assert await memory(engine, "big") > 50 * alone
        await chatty.read(engine.submit(chatty.ask("Hello", model="big", session="a")))
        after = await memory(engine, "short")
        assert after < alone + 100_000
        done = chatty.done(await chatty.read(engine.submit(chatty.ask("Hello", model="short"))))
        assert done.metrics.peak_memory_bytes < await memory(engine, "big")


async def test_a_reader_that_dawdles_holds_up_nobody_and_misses_nothing() -> None:
    async with chatty.engine() as engine:
        slow = engine.submit(chatty.ask("Hello", tokens=300))
        quick = await chatty.read(engine.submit(chatty.ask("Bye", tokens=5)))
        assert len(chatty.ids(quick)) == 5
        await chatty.read(engine.submit(chatty.ask("Bye", tokens=300)))
        batches = [batch async for batch in slow]
        assert len(chatty.ids([event for batch in batches for event in batch])) == 300
        assert len(batches) < 30  # what gathered came as one


async def test_a_stream_that_is_left_is_cancelled() -> None:
    async with chatty.engine() as engine:

        async def all_quiet() -> None:
            """Another model gets its turn, so no generation is open."""
            await asyncio.wait_for(chatty.read(engine.submit(Load(chatty.ref("short")))), PATIENCE_S)

        stream = engine.submit(chatty.ask(tokens=None))
        await chatty.until(stream, Token)
        await stream.aclose()
        assert await chatty.read(stream) == []
        await all_quiet()

        stream = engine.submit(chatty.ask(tokens=None))
        await chatty.until(stream, Token)
        del stream
        gc.collect()
        await all_quiet()

        stream = engine.submit(chatty.ask(tokens=None))
        reader = asyncio.create_task(chatty.read(stream))
        await asyncio.sleep(0)
        reader.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await reader
        await all_quiet()
        assert chatty.done(await chatty.read(stream)).reason == "cancelled"  # its end can still be read


async def test_a_killed_engine_says_why_and_starts_again() -> None:
    async with chatty.engine() as engine:
        streams = [engine.submit(chatty.ask(tokens=None, session=name)) for name in "ab"]
        before = [await chatty.until(stream, Token) for stream in streams]
        assert engine.pid is not None
        os.kill(engine.pid, signal.SIGKILL)  # as the kernel does when memory runs out
        for stream, events in zip(streams, before, strict=True):
            failure = chatty.failure(events + await chatty.read(stream))
            assert (failure.kind, failure.exit_code) == ("EngineDied", 1)
            assert "killed by the system, most likely because memory ran out" in failure.message
        assert not engine.alive
        assert engine.problem == failure.message
        assert chatty.failure(await chatty.read(engine.submit(chatty.ask()))) == failure
        await engine.start()
        assert engine.problem == ""
        assert len(chatty.ids(await chatty.read(engine.submit(chatty.ask(tokens=5))))) == 5


@pytest.mark.skipif(
    sys.platform != "linux", reason="needs Linux: only there a process's memory can be limited"
)
async def test_an_engine_without_memory_fails_in_words_and_the_app_goes_on() -> None:
    limited = python(
        "import resource\n"
        "from macllm.engine import worker\n"
        "from macllm.engine.resident import Resident\n"
        "lease = Resident.lease\n"
        "def tight(self, name):\n"
        "    if name == 'tight':\n"
        "        used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "        resource.setrlimit(resource.RLIMIT_AS, (used + 4_000_000, resource.RLIM_INFINITY))\n"
        "    return lease(self, name)\n"
        "Resident.lease = tight\n"
        "worker.main()"
    )
    async with chatty.engine(*limited) as engine:
        assert len(chatty.ids(await chatty.read(engine.submit(chatty.ask(tokens=5))))) == 5
        failure = chatty.failure(
            await chatty.read(engine.submit(chatty.ask("x" * 9_000, tokens=10, session="tight")))
        )
        assert failure.kind in ("EngineDied", "MemoryLimitError")
        assert failure.message.startswith(("the engine ", "memory ran out "))
        await engine.start()
        assert len(chatty.ids(await chatty.read(engine.submit(chatty.ask(tokens=5))))) == 5


DEATHS = [
    ("import sys; sys.exit('no such device')", "exited with code 1: no such device"),
    ("raise ImportError('libmlx is missing')", "exited with code 1: ImportError: libmlx is missing"),
    ("pass", "exited with code 0"),
    ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "crashed with signal SIGSEGV"),
    ("import os, signal; os.kill(os.getpid(), signal.SIGTERM)", "ended from outside by signal SIGTERM"),
    (
        "import os; os.write(2, b'x' * 10**6 + b'\\nlast \\xff\\n\\n'); os._exit(3)",
        "exited with code 3: last \ufffd",
    ),
    ("import time; print('not JSON', flush=True); time.sleep(60)", "does not understand"),
    ("import time; time.sleep(60)", "did not answer within 1 seconds"),
    (
        "import os, time; os.write(2, b'waiting for the disk\\n'); time.sleep(60)",
        "did not answer within 1 seconds; the last it said: waiting for the disk",
    ),
]


@pytest.mark.parametrize(("code", "said"), DEATHS)
async def test_an_engine_that_does_not_start_says_why(code: str, said: str) -> None:
    client = EngineClient(python(code), start_within_s=1 if "answer" in said else PATIENCE_S)
    with pytest.raises(EngineDied, match="the engine"):
        await client.start()
    assert said in client.problem
    assert "\n" not in client.problem
    assert not client.alive
    assert chatty.failure(await chatty.read(client.submit(chatty.ask()))).message == client.problem
    await client.close()


async def test_a_command_that_is_not_there_is_named() -> None:
    client = EngineClient(("/nowhere/python",))
    with pytest.raises(EngineDied, match="/nowhere/python"):
        await client.start()
    await client.close()


async def test_an_engine_that_dies_by_itself_in_the_middle() -> None:
    dying = python(
        "import os, threading\n"
        "from macllm.engine import worker, outbox\n"
        "put = outbox.Outbox.put\n"
        "def count(self, number, event, seen=[]):\n"
        "    put(self, number, event)\n"
        "    seen.append(event)\n"
        "    if len(seen) > 40:\n"
        "        os.write(2, b'a library gave up\\n')\n"
        "        os._exit(9)\n"
        "outbox.Outbox.put = count\n"
        "worker.main()"
    )
    async with chatty.engine(*dying) as engine:
        failure = chatty.failure(await chatty.read(engine.submit(chatty.ask(tokens=None))))
        assert failure.message == "the engine exited with code 9: a library gave up"


async def test_a_request_before_the_start_and_after_the_end_fails() -> None:
    client = EngineClient()
    failure = chatty.failure(await chatty.read(client.submit(Load(chatty.ref()))))
    assert failure.kind == "EngineDied"
    assert "start it first" in failure.message
    await client.start()
    open_stream = client.submit(chatty.ask(tokens=None))
    pid = client.pid
    await client.close()
    assert chatty.failure(await chatty.read(open_stream)).message == "the engine was closed"
    assert pid is not None and state(pid) == ""
    await client.close()


async def test_a_closed_engine_can_be_started_again() -> None:
    client = EngineClient()
    for _ in range(2):
        await client.start()
        assert isinstance((await chatty.read(client.submit(Load(chatty.ref()))))[-1], Ready)
        await client.close()


async def test_an_engine_that_does_not_listen_is_made_to_end() -> None:
    deaf = python(
        'import time; print(\'{"events": [[0, {"type": "Machine", "backend": "cpu", "device": "", '
        '"memory_bytes": 1, "memory_limit_bytes": 1, "dtype": "float32"}]], "ended": []}\', flush=True)\n'
        "time.sleep(600)"
    )
    client = EngineClient(deaf)
    await client.start()
    pid = client.pid
    await client.close()
    assert pid is not None and state(pid) == ""


async def test_a_missing_model_fails_and_nothing_else(tmp_path: Path) -> None:
    async with chatty.engine() as engine:
        missing = Load(ModelRef("gone", str(tmp_path / "gone")))
        failure = chatty.failure(await chatty.read(engine.submit(missing)))
        assert failure.exit_code == 2
        assert "gone" in failure.message
        assert isinstance((await chatty.read(engine.submit(Load(chatty.ref()))))[-1], Ready)


ORPHAN = """
import asyncio, os, sys
sys.path[:0] = {paths!r}
import chatty
from macllm.engine.client import EngineClient
from macllm.engine.protocol import Generate, ModelRef
from macllm.engine.request import Limits
async def main():
    engine = EngineClient()
    await engine.start()
    model = ModelRef("endless", {folder!r}, "float32")
    request = Generate(model, chatty.talk("Hello"), limits=Limits(ignore_eos=True))
    async for batch in engine.submit(request):
        if any(type(event).__name__ == "Token" for event in batch):
            print(engine.pid, flush=True)
            await asyncio.sleep(600)
asyncio.run(main())
"""


async def test_the_engine_does_not_outlive_the_app() -> None:
    paths = [path for path in sys.path if "tests" in Path(path).parts]
    code = ORPHAN.format(paths=paths, folder=str(chatty.folder("endless")))
    parent = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, env=child_environment(os.environ)
    )
    try:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert state(pid) not in ("", "Z")
    finally:
        parent.kill()
        parent.communicate()
    await until_true(lambda: state(pid) in ("", "Z"))


async def test_ctrl_c_in_the_terminal_does_not_reach_the_engine() -> None:
    async with chatty.engine() as engine:
        assert engine.pid is not None
        assert os.getpgid(engine.pid) != os.getpgid(0)
        assert os.getsid(engine.pid) != os.getsid(0)


async def test_a_file_in_the_users_folder_is_not_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit('the wrong json')")
    (tmp_path / "macllm").mkdir()
    monkeypatch.chdir(tmp_path)
    async with chatty.engine() as engine:
        assert engine.alive


def test_the_child_imports_this_macllm_first_and_an_installed_one_as_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import macllm

    home = str(Path(macllm.__file__).parent.parent)
    assert child_environment({"A": "b"}) == {"A": "b", "PYTHONPATH": home}
    assert child_environment({"PYTHONPATH": "/x"})["PYTHONPATH"] == f"{home}{os.pathsep}/x"
    monkeypatch.setattr("site.getsitepackages", lambda: [home])
    assert child_environment({"A": "b"}) == {"A": "b"}


def test_the_client_never_imports_mlx(run_python: Callable[..., str]) -> None:
    code = (
        "import asyncio, sys\n"
        "from macllm.engine.client import EngineClient\n"
        "from macllm.engine.recording import Recorder, ReplayEngine\n"
        "from macllm.engine.protocol import Load, ModelRef\n"
        "async def main():\n"
        "    engine = EngineClient()\n"
        "    await engine.start()\n"
        "    async for batch in engine.submit(Load(ModelRef('m', '/nowhere'))): print(batch[-1].kind)\n"
        "    await engine.close()\n"
        "asyncio.run(main())\n"
        "print(sorted(name for name in sys.modules if name.split('.')[0] in ('mlx', 'numpy', 'jinja2')))"
    )
    assert run_python(code).splitlines() == ["SourceError", "[]"]


def test_a_signal_without_a_name_is_a_number() -> None:
    assert cause_of_death(-40, "x").startswith("the engine crashed with signal ")
    assert cause_of_death(-11, "") == "the engine crashed with signal SIGSEGV"
