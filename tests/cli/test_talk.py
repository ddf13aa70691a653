"""The plain chat: what it keeps, its slash commands, how it shows thoughts, errors and the end of a reply."""

import io
import shutil
import sys

import chatty
import pytest

import macllm
from macllm.chats.store import Store
from macllm.cli.talk import Output, Talk, Voice, talk_through_pipe
from macllm.cli.talk_commands import COMMANDS, EndOfTalk, run_command
from macllm.engine.events import Done, Token
from macllm.engine.metrics import Metrics
from macllm.engine.request import Limits
from macllm.errors import ContextError, InputError, MacllmError
from macllm_tui.actions import slash_commands

QUESTION = "What is the capital of France?"
ANSWER = "The capital of France is Paris."


@pytest.fixture(scope="module")
def starter(starter_gguf):
    return macllm.load(starter_gguf)


@pytest.fixture(scope="module")
def llm():
    """A tiny model with random weights: it says anything, at once."""
    return macllm.load(chatty.folder("endless"))


@pytest.fixture
def talk(llm):
    store = Store.open()
    yield Talk(llm, None, macllm.Sampling(), Limits(max_tokens=9, ignore_eos=True), store=store)
    store.close()


def silent(piece):
    """Output that nobody reads."""


OUT = Output(silent)


def command(talk, line, capsys):
    """Runs a slash command; what it printed."""
    run_command(talk, line, Voice("", "", with_figures=False))
    return capsys.readouterr().out


def roles(talk):
    return [(message.role, message.text) for message in talk.branch]


def test_a_conversation_is_kept_with_what_made_it(starter):
    talk = Talk(starter, None, macllm.Sampling(), Limits(max_tokens=9), store=Store.open())
    pieces = []
    reply = talk.say(QUESTION, Output(pieces.append))
    assert "".join(pieces) == reply.text == ANSWER
    assert (reply.state, reply.model) == ("complete", starter.name)
    assert reply.seed is not None and reply.metrics.decode_tokens > 0
    second = talk.say("And of Italy?", OUT)
    assert "Rome" in second.text, "it remembers what was said"
    assert second.metrics.reused_tokens > 0, "and computes only what is new"
    talk.store.close()
    again = Store.open()
    (chat,) = again.chats()
    assert (chat.title, chat.messages, chat.model) == (QUESTION, 4, starter.name)
    assert again.branch(chat.id) == talk.branch and talk.branch[1] == reply
    again.close()


def test_a_reply_cut_by_the_limit_says_so(talk, capsys):
    reply = talk.say("Tell me a long story.", OUT)
    assert reply.state == "length" and reply.metrics.decode_tokens == 9
    Voice("", "", with_figures=True).hear(talk, lambda output: reply)
    first, second = capsys.readouterr().out.splitlines()[:2]
    assert first == " [cut at the token limit]" and "9 tok" in second


def test_an_interrupted_reply_keeps_what_came(talk, capsys):
    talk.limits = Limits(ignore_eos=True)
    reply = talk.say("Tell me a long story.", Output(lambda piece: talk.cancel.set()))
    assert reply.state == "stopped" and reply.text
    assert talk.store.message(reply.id) == reply
    Voice("", "", with_figures=False).hear(talk, lambda output: reply)
    assert capsys.readouterr().out == " [stopped]\n"


def test_thoughts_are_marked_and_kept(talk, capsys):
    chat = talk.store.create()
    message = talk.store.add(chat.id, "assistant", "", parent=None, state="partial")
    events = [
        Token(1, "", thought="let me "),
        Token(2, "", thought="see"),
        Token(3, "So: "),
        Done("stop", "42", Metrics()),
    ]
    voice = Voice("", "", with_figures=False)
    voice.hear(talk, lambda output: talk._written(message, iter(events), output))
    assert capsys.readouterr().out == "thinking:\nlet me see\nanswer:\nSo: 42\n"
    kept = talk.store.message(message.id)
    assert (kept.thought, kept.text, kept.state) == ("let me see", "So: 42", "complete")
    assert kept.thought_s > 0


def test_a_full_context_leaves_the_conversation_as_it_was(capsys):
    short = macllm.load(chatty.folder("short"))  # 140 tokens, one a byte
    talk = Talk(short, None, macllm.Sampling(), Limits(max_tokens=9, ignore_eos=True))
    talk.say("Hello", OUT)
    before = roles(talk)
    with pytest.raises(ContextError, match="tokens"):
        talk.say("word " * 100, OUT)
    assert roles(talk) == before
    failed = talk.store.branch(talk.chat.id)[-1]
    assert failed.state == "failed" and "tokens" in failed.error
    talk.limits = Limits(ignore_eos=True)
    reply = talk.say("Again", OUT)
    assert reply.state == "length" and len(talk.branch) == 4
    Voice("", "", with_figures=False).hear(talk, lambda output: reply)
    assert capsys.readouterr().out == " [cut: the context is full; /new begins a new chat]\n"


def test_help_is_the_apps_own(talk, capsys):
    lines = command(talk, "/help", capsys).splitlines()
    actions = slash_commands()
    assert set(COMMANDS) <= set(actions), "no command that the app does not have"
    assert len(lines) == len(COMMANDS)
    for name in COMMANDS:
        (line,) = [line for line in lines if line.split()[0] == f"/{name}"]
        assert line.split(None, line.count(actions[name].slash))[0] and line.endswith(actions[name].help)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("/frobnicate", "there is no command /frobnicate; /help shows them"),
        ("/chat", "did you mean /chats?"),
        ("/compare", "/compare needs the app"),
        ("/regenerate", "nothing was said yet"),
        ("/previous", "nothing was said yet"),
        ("/fork", "nothing was said yet"),
        ("/find", "/find WORDS"),
        ("/edit", "nothing was said yet"),
        ("/export", "nothing was said yet"),
        ("/rename x", "nothing was said yet"),
        ("/delete", "nothing was said yet"),
        ("/rename", "/rename TITLE"),
        ("/attach", "/attach FILE"),
        ("/attach /nowhere/x.txt", "/nowhere/x.txt"),
        ("/import", "/import FILE"),
        ("/import /nowhere/x.jsonl", "/nowhere/x.jsonl"),
        ("/set zz=1", "zz"),
        ("/set temp=hot", "'hot'"),
        ("/set temp=-1", "-1"),
        ("/model no-such-model", "no-such-model"),
        ("/explain no-such-model", "no-such-model"),
    ],
)
def test_a_wrong_command_is_one_sentence(talk, capsys, line, reason):
    with pytest.raises(InputError) as caught:
        command(talk, line, capsys)
    assert reason in str(caught.value) and "\n" not in str(caught.value)


def test_set_changes_the_reply_and_is_kept(talk, capsys):
    assert "temp = 0\n" in command(talk, "/set", capsys)
    assert command(talk, "/set max-tokens=2", capsys) == "  max-tokens = 2\n"
    assert talk.say(QUESTION, OUT).metrics.decode_tokens == 2
    assert command(talk, "/set seed=5", capsys) == "  seed = 5\n"
    assert command(talk, "/set temp 1.5", capsys) == "  temp = 1.5\n"
    first = talk.say("Hello", OUT)
    assert first.seed == 5 and first.sampling == {"max_tokens": 2, "seed": 5, "temperature": 1.5}
    assert talk.store.chat(talk.chat.id).sampling == first.sampling
    assert command(talk, "/set max-tokens=none", capsys) == "  max-tokens = none\n"
    assert talk.options[1].max_tokens is None


def test_settings_of_the_command_line_stay_with_the_chat(llm):
    sampling = macllm.Sampling(temperature=0.5, logit_bias={7: -100.0}, dry_breakers=("\n",))
    talk = Talk(llm, None, sampling, Limits(max_tokens=1))
    talk.say("Hello", OUT)
    chat = talk.chat.id
    talk.restart("")
    talk.settings = {}
    talk.open(chat)
    assert talk.options == (sampling, Limits(max_tokens=1))
    talk.store.update(chat, sampling={"warp": 9})
    talk.open(chat)
    with pytest.raises(MacllmError, match="'warp'"):
        _ = talk.options


def test_system_begins_a_chat_with_it(talk, capsys):
    assert "no system prompt" in command(talk, "/system", capsys)
    plain = talk.say("Hello", OUT).text
    command(talk, "/system You are a pirate and speak like one.", capsys)
    assert talk.branch == []
    assert talk.say("Hello", OUT).text != plain
    assert "pirate" in command(talk, "/system", capsys)
    assert talk.store.chats()[0].system.startswith("You are a pirate")
    command(talk, "/new", capsys)
    assert talk.branch == [] and talk.system.startswith("You are a pirate")


def test_regenerate_and_edit_stand_beside_what_was_there(talk, capsys):
    first = talk.say(QUESTION, OUT)
    assert command(talk, "/regenerate", capsys) == f"{first.text} [cut at the token limit]\n"
    second = talk.branch[-1]
    assert talk.store.siblings(first.id) == [first.id, second.id]
    command(talk, "/edit What is the capital of Italy?", capsys)
    assert talk.branch[0].text == "What is the capital of Italy?" and len(talk.branch) == 2
    assert talk.branch[0].parent is None
    assert len(talk.store.siblings(talk.branch[0].id)) == 2


def test_versions_are_stepped_through_and_a_fork_is_a_chat_of_its_own(talk, capsys):
    talk.say(QUESTION, OUT)
    with pytest.raises(InputError, match="one version of every message"):
        command(talk, "/previous", capsys)
    command(talk, "/edit What is the capital of Italy?", capsys)
    assert command(talk, "/previous", capsys).startswith(f"version 1 of 2\nyou:\n{QUESTION}\n")
    assert talk.branch[0].text == QUESTION
    assert command(talk, "/previous", capsys).startswith("version 1 of 2"), "there is none before"
    assert command(talk, "/next", capsys).startswith("version 2 of 2")
    first = talk.chat.id
    command(talk, "/fork", capsys)
    assert talk.chat.id != first and [one.text for one in talk.branch] == [
        one.text for one in talk.store.branch(first)
    ]
    assert len(talk.store.chats()) == 2


def test_words_are_found_in_the_chat_and_earlier_prompts_are_listed(talk, capsys):
    assert command(talk, "/history", capsys) == "nothing was asked yet\n"
    talk.say(QUESTION, OUT)
    assert command(talk, "/find CAPITAL", capsys).startswith(f"  {QUESTION}\n")
    assert command(talk, "/find zebra", capsys) == "nothing in this chat has: zebra\n"
    assert command(talk, "/history", capsys) == f"  {QUESTION}\n"


def test_chats_are_listed_found_and_gone_on_with(talk, capsys):
    assert "no chats yet" in command(talk, "/chats", capsys)
    answer = talk.say(QUESTION, OUT).text
    chat = talk.chat.id
    command(talk, "/new", capsys)
    assert command(talk, "/chats", capsys).startswith(f"  {chat[:8]}  {QUESTION}, 2 messages\n")
    assert f"  {chat[:8]}  {QUESTION}: {QUESTION}\n" in command(talk, "/chats capital", capsys)
    assert "nothing said here has all of: dog" in command(talk, "/chats dog", capsys)
    shown = command(talk, f"/chats {chat[:12]}", capsys)
    assert shown == f"{QUESTION}, 2 messages; it goes on from here\nyou:\n{QUESTION}\nanswer:\n{answer}\n"
    assert talk.say("And of Italy?", OUT).metrics.reused_tokens > 0
    assert talk.chat.id == chat and talk.store.chat(chat).messages == 4
    assert command(talk, "/chats facade", capsys).startswith("nothing said"), "a word that could be an id"


def test_rename_and_delete(talk, capsys, monkeypatch):
    talk.say(QUESTION, OUT)
    assert command(talk, "/rename Geography", capsys) == "this chat is now “Geography”\n"
    monkeypatch.setattr(sys, "stdin", io.StringIO("n\n"))
    assert "nothing was deleted" in command(talk, "/delete", capsys)
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    assert "deleted" in command(talk, "/delete", capsys)
    assert talk.store.chats() == [] and talk.branch == []
    talk.say("Hello", OUT)


def test_export_and_import(talk, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    talk.say(QUESTION, OUT)
    assert command(talk, "/export", capsys) == f"written to {tmp_path}/chat-{talk.chat.id}.md\n"
    assert QUESTION in (tmp_path / f"chat-{talk.chat.id}.md").read_text()
    command(talk, "/export all.jsonl", capsys)
    with pytest.raises(InputError, match="there already"):
        command(talk, "/export all.jsonl", capsys)
    assert command(talk, "/import all.jsonl", capsys) == "0 chats imported, 1 there already\n"


def test_an_attached_file_goes_with_the_next_message(talk, capsys, tmp_path):
    file = tmp_path / "notes.txt"
    file.write_text("The password is swordfish.\n")
    assert "notes.txt goes with your next message" in command(talk, f"/attach {file}", capsys)
    talk.say("What is the password?", OUT)
    assert "swordfish" in talk.branch[0].text and talk.branch[0].text.endswith("What is the password?")
    talk.say("Hello", OUT)
    assert talk.branch[-2].text == "Hello"


def test_bench_and_explain(talk, capsys):
    assert "tok/s and writes" in command(talk, "/bench", capsys)
    assert "llama" in command(talk, "/explain", capsys)


def test_quit():
    with pytest.raises(EndOfTalk):
        run_command(None, "/quit", None)


def test_another_model_goes_on_with_the_chat(tmp_path, capsys):
    talk = Talk(macllm.load(chatty.folder("endless")), None, macllm.Sampling(), Limits(max_tokens=3))
    talk.say(QUESTION, OUT)
    other = shutil.copytree(chatty.folder("short"), tmp_path / "other")
    damaged = shutil.copytree(other, tmp_path / "damaged")
    (damaged / "model.safetensors").write_bytes(b"cut")
    silent_one = shutil.copytree(other, tmp_path / "silent")
    (silent_one / "tokenizer.json").unlink()
    assert command(talk, f"/model {other}", capsys) == "other answers from here on\n"
    assert talk.store.chat(talk.chat.id).model == "other"
    assert talk.say("And of Italy?", OUT).model == "other"
    for wrong, reason in ((damaged, "model.safetensors"), (silent_one, "tokenizer")):
        with pytest.raises(MacllmError, match=reason):
            command(talk, f"/model {wrong}", capsys)
        assert talk.llm.name == "other" and talk.say("x", OUT).model == "other", "the one before is back"
        command(talk, "/new", capsys)
    assert "other answers" in command(talk, "/model", capsys)


def test_a_pipe_keeps_nothing(llm, monkeypatch, capsys, macllm_home):
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{QUESTION}\n\nAnd of Italy?\n"))
    talk = Talk(llm, None, macllm.Sampling(), Limits(max_tokens=5, ignore_eos=True))
    assert talk_through_pipe(talk) == 0
    out, err = capsys.readouterr()
    assert out == "".join(f"{one.text}\n" for one in talk.branch if one.role == "assistant")
    assert "cut at 5 tokens; --max-tokens N allows more" in err
    assert not (macllm_home / "chats.db").exists()
