"""A recording played in the app: what was said, edited, branched, compared and trained is there again."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from conversations import CRASH, comparison, conversation, crash
from simulated import NOON, shown, texts
from telling import CONTEXT, GEMMA, QWEN, Telling, assistant
from training_player import RECORDING as TRAINING

from macllm.engine.events import Done, Failed, Loading
from macllm.engine.metrics import Metrics
from macllm.engine.protocol import Generate, Load
from macllm.engine.recording import Exchange, Recording, ReplayEngine, read_recording
from macllm.engine.request import Limits
from macllm.errors import InputError
from macllm.tokenizer.messages import Message
from macllm_tui import replay as replaying
from macllm_tui.app import MacllmApp
from macllm_tui.home import RecordedHome
from macllm_tui.pictures import steady
from macllm_tui.player import Player, Watched
from macllm_tui.prompting import SUMMARISE, SUMMARY
from macllm_tui.replay import playable, replay
from macllm_tui.settings import Settings
from macllm_tui.widgets.banner import Banner


@asynccontextmanager
async def played(
    chats: Path, telling: Telling | Recording, size: tuple[int, int] = (120, 50)
) -> AsyncIterator[tuple[MacllmApp, Watched]]:
    """The app after the recording."""
    told = telling.recording() if isinstance(telling, Telling) else telling
    recording, model = playable(told, chats)
    engine = Watched(ReplayEngine(recording, pace="instant"))
    app = MacllmApp(engine, Settings(), chats=chats, home=RecordedHome(model), clock=lambda: NOON)
    async with app.run_test(size=size) as pilot, asyncio.timeout(60):
        player = Player(app, pilot, engine, [one.request for one in recording.exchanges])
        await player.play()
        await steady(app, pilot, player.busy)
        assert player.done == len(recording.exchanges)
        yield app, engine
        assert app._store is not None
        await app._store.close()


@pytest.fixture
def chats(tmp_path: Path) -> Path:
    return tmp_path / "chats.db"


def user(text: str) -> Message:
    return Message.of("user", text)


async def test_what_was_said_is_said_again_with_its_figures(chats: Path) -> None:
    telling = conversation()
    async with played(chats, telling) as (app, engine):
        assert texts(app) == [message.text for message in telling.talks["c1"]]
        reply = app.conversation.branch[1]
        end = telling.exchanges[1].batches[-1][1][0]
        assert isinstance(end, Done)
        assert (reply.metrics, reply.thought) == (end.metrics, telling.talks["c1"][1].reasoning)
        assert (reply.seed, reply.model, reply.model_hash) == (7, "qwen3-8b", "3f9a")
        assert (engine.asked["Load"], engine.asked["Generate"]) == (1, 2)
        assert "71.3 tok/s" in shown(app)


async def test_an_edit_becomes_a_branch_and_a_regeneration_a_sibling(chats: Path) -> None:
    telling = Telling().load().say("One", "First.").say("Two", "Second.")
    start = telling.talks["c1"][:2]
    telling.generate([*start, user("Two, edited")], "Another second.")
    telling.generate([*start, user("Two, edited")], "A third second.")  # regenerated
    telling.generate([*start, user("Two")], "The old one again.")  # on the branch before, after ‹ and r
    async with played(chats, telling) as (app, _):
        assert texts(app) == ["One", "First.", "Two", "The old one again."]
        assert [(entry.position, entry.siblings) for entry in app.conversation.entries] == [
            (1, 1),
            (1, 1),
            (1, 2),
            (2, 2),
        ]
        await app.conversation.step_sibling(app.conversation.branch[2].id, 1)
        assert texts(app)[2:] == ["Two, edited", "A third second."]
        assert app.conversation.entries[-1].siblings == 2
        assert len(await app.store.chats()) == 1


async def test_the_conversation_goes_on_from_a_branch_shown_again(chats: Path) -> None:
    telling = Telling().load().say("One", "First.")
    telling.generate([user("One")], "Other first.")
    telling.generate([user("One"), assistant("First."), user("Go on")], "From the first.")
    async with played(chats, telling) as (app, _):
        assert texts(app) == ["One", "First.", "Go on", "From the first."]


async def test_a_reply_is_edited_and_continued(chats: Path) -> None:
    telling = Telling().load().say("Count", "One, two, three.", thought="Easy.")
    telling.generate([user("Count"), assistant("One, two", "Easy.")], ", drei.", continue_final=True)
    telling.generate([user("Count"), assistant("One, two, drei.", "Easy."), user("More")], "Vier.")
    async with played(chats, telling) as (app, _):
        assert texts(app) == ["Count", "One, two, drei.", "More", "Vier."]
        assert app.conversation.entries[1].siblings == 2
        assert app.conversation.branch[1].thought == "Easy."


async def test_several_chats_at_once_stay_apart(chats: Path) -> None:
    telling = Telling().load().say("Alpha", "A1.", session="a").say("Beta", "B1.", session="b")
    telling.say("Alpha two", "A2.", session="a").say("Alpha", "Another A1.", session="c")
    async with played(chats, telling) as (app, _):
        assert texts(app) == ["Alpha", "Another A1."]
        found = {
            tuple(message.text for message in await app.store.branch(chat.id))
            for chat in await app.store.chats()
        }
        assert found == {("Alpha", "A1.", "Alpha two", "A2."), ("Beta", "B1."), ("Alpha", "Another A1.")}


async def test_a_stored_chat_that_was_opened_is_filled_in(chats: Path) -> None:
    before = [Message.of("system", "Be short."), user("Before"), assistant("Yes.", "Hm."), user("And now?")]
    async with played(chats, Telling().load().generate(before, "Now.", session="old")) as (app, _):
        assert texts(app) == ["Before", "Yes.", "And now?", "Now."]
        assert app.conversation.branch[1].thought == "Hm."
        assert app.conversation.system == "Be short."


async def test_a_reply_of_a_stored_chat_that_was_continued_is_filled_in(chats: Path) -> None:
    before = [user("Before"), assistant("Yes, and")]
    telling = Telling().load().generate(before, " no.", session="old", continue_final=True)
    async with played(chats, telling) as (app, _):
        assert texts(app) == ["Before", "Yes, and no."]


async def test_the_system_prompt_changes_with_what_was_asked(chats: Path) -> None:
    telling = Telling().load().say("One", "First.")
    talk = [Message.of("system", "Be terse."), *telling.talks["c1"], user("Two")]
    async with played(chats, telling.generate(talk, "Second.")) as (app, _):
        assert texts(app) == ["One", "First.", "Two", "Second."]
        assert app.conversation.system == "Be terse."


async def test_settings_and_model_are_those_of_the_request(chats: Path) -> None:
    telling = Telling().load().say("One", "First.").load(GEMMA)
    talk = [*telling.talks["c1"], user("Two")]
    telling.generate(talk, "Second.", settings={"temperature": 0.1, "seed": 3}, limits=Limits(max_tokens=9))
    async with played(chats, telling) as (app, engine):
        last = app.conversation.branch[-1]
        assert (last.model, last.seed) == ("gemma3-4b", 3)
        assert dict(last.sampling) == {"temperature": 0.1, "seed": 3, "max_tokens": 9}
        assert engine.asked["Load"] == 2
        assert "gemma3-4b" in shown(app).splitlines()[0]


async def test_a_cancelled_reply_is_stopped_where_it_was(chats: Path) -> None:
    telling = Telling().load().say("Go", "So far and", ends=Done("cancelled", "", Metrics(decode_tokens=3)))
    async with played(chats, telling) as (app, _):
        assert texts(app) == ["Go", "So far and"]
        assert app.conversation.branch[-1].state == "stopped"
        assert not app.query_one(Banner).display


async def test_a_recording_that_ends_in_a_reply_shows_what_is_there(chats: Path) -> None:
    telling = Telling().load().say("Go", "As far as it came", complete=False)
    async with played(chats, telling) as (app, _):
        assert texts(app) == ["Go", "As far as it came"]
        assert "the recording ends in the middle of this" in shown(app)


async def test_a_crash_shows_its_notice(chats: Path) -> None:
    async with played(chats, crash()) as (app, _):
        assert CRASH.split(",")[0] in shown(app)
        assert "f8 starts it again" in shown(app)
        assert app.conversation.branch[-1].state == "failed"


async def test_after_a_crash_the_engine_is_started_and_the_chat_goes_on(chats: Path) -> None:
    telling = crash().load()
    failed = telling.talks["c1"]
    telling.generate([*failed, user("Once more")], "Here again.")
    async with played(chats, telling) as (app, engine):
        assert texts(app)[-2:] == ["Once more", "Here again."]
        assert engine.alive and not app.query_one(Banner).display


async def test_a_reply_that_failed_at_once_is_one_turn_with_the_next(chats: Path) -> None:
    failed = Failed("there is no such option", 2, "OptionError")
    telling = Telling().load().generate([user("One")], "", ends=failed)
    telling.generate([user("One\n\nTwo")], "Both.")
    async with played(chats, telling) as (app, _):
        assert texts(app) == ["One", "", "Two", "Both."]


async def test_a_load_that_failed_is_said(chats: Path) -> None:
    telling = Telling().load(fails="qwen3-8b: needs 4.6 GB and 3.1 GB are free")
    async with played(chats, telling) as (app, _):
        assert "needs 4.6 GB" in shown(app)


async def test_a_load_that_was_stopped_is_nothing_to_speak_of(chats: Path) -> None:
    stopped = Exchange(
        Load(QWEN), ((0.1, (Loading("qwen3-8b", 1, 4),)), (0.2, (Done("cancelled", "", Metrics()),)))
    )
    async with played(chats, Recording(None, (stopped,))) as (app, _):
        assert not app.query_one(Banner).display


def too_long(telling: Telling) -> Telling:
    """Three turns, then one that does not fit."""
    for number in range(3):
        telling.say(f"Question {number}", f"Answer {number}.")
    asked = [*telling.talks["c1"], user("Too much")]
    return telling.generate(
        asked, "", ends=Failed("the prompt has 1200 tokens, the context 1000", 2, "ContextError")
    )


async def test_what_was_chosen_when_the_context_was_full_is_chosen_again(chats: Path) -> None:
    telling = too_long(Telling().load())
    asked = [*telling.talks["c1"], user("Too much")]
    telling.generate(asked, "It fits.", overflow="drop")
    async with played(chats, telling) as (app, engine):
        assert texts(app)[-2:] == ["Too much", "It fits."]
        assert app.conversation.chat is not None and app.conversation.chat.overflow == "drop"
        assert engine.asked["Generate"] == 5


async def test_a_summary_is_made_again(chats: Path) -> None:
    telling = too_long(Telling().load())
    talk = telling.talks["c1"]
    telling.generate([*talk[:4], user(SUMMARISE)], "Short.", session="")
    given = [Message.of("system", f"{SUMMARY}Short."), *talk[4:], user("Too much")]
    telling.generate(given, "It fits.")
    telling.generate([*given, assistant("It fits."), user("Good")], "Thanks.")
    async with played(chats, telling) as (app, engine):
        assert texts(app)[-4:] == ["Too much", "It fits.", "Good", "Thanks."]
        assert len(texts(app)) == 10
        assert app.conversation.chat is not None and app.conversation.chat.summary == "Short."
        assert engine.asked["Generate"] == 7


async def test_a_question_that_nobody_answered_stays_on_the_screen(chats: Path) -> None:
    async with played(chats, too_long(Telling().load())) as (app, _):
        assert type(app.screen).__name__ == "ContextChoice"
        assert "1200 tokens" in shown(app)


async def test_a_reply_cut_off_by_the_context_asks_and_is_left_when_the_recording_goes_on(
    chats: Path,
) -> None:
    full = Metrics(decode_tokens=4, context_tokens=CONTEXT, max_context=CONTEXT)
    telling = Telling().load().say("Ready?", "Yes.").say("Go", "Cut off", ends=Done("length", "", full))
    async with played(chats.with_name("a.db"), telling) as (app, _):
        assert type(app.screen).__name__ == "ContextChoice"
    telling.say("Other chat", "Fine.", session="other")
    async with played(chats.with_name("b.db"), telling) as (app, _):
        assert type(app.screen).__name__ == "ChatScreen"
        assert texts(app) == ["Other chat", "Fine."]


async def test_a_comparison_is_shown_side_by_side(chats: Path) -> None:
    async with played(chats, comparison()) as (app, engine):
        screen = shown(app)
        assert type(app.screen).__name__ == "CompareScreen"
        assert "compressed list" in screen and "smaller space" in screen
        assert "better" in screen and "Seed 7" in screen
        assert (engine.asked["Load"], engine.asked["Generate"]) == (3, 2)


async def test_the_side_that_was_kept_is_in_the_chat(chats: Path) -> None:
    telling = comparison()
    prompt, right = telling.exchanges[2].request, telling.exchanges[4].batches
    assert isinstance(prompt, Generate)
    said = "".join(getattr(event, "text", "") for _, batch in right for event in batch)
    telling.generate([*prompt.messages, assistant(said), user("Why?")], "Because.", model=GEMMA)
    async with played(chats, telling) as (app, _):
        assert type(app.screen).__name__ == "ChatScreen"
        assert texts(app) == [prompt.messages[0].text, said, "Why?", "Because."]
        kept = app.conversation.branch[1]
        assert kept.model == "gemma3-4b" and kept.metrics is not None


async def test_a_comparison_of_which_one_side_was_asked_does_not_shift_what_follows(chats: Path) -> None:
    telling = Telling().load().load(GEMMA).generate([user("Both?")], "Only one.", session="")
    telling.say("Hello", "The chat's own.")
    async with played(chats, telling) as (app, _):
        assert texts(app) == ["Hello", "The chat's own."]


async def test_a_training_run_ends_with_its_curves(chats: Path) -> None:
    async with played(chats, read_recording(TRAINING)) as (app, _):
        assert type(app.screen).__name__ == "FineTuneScreen"
        assert "step 60 of 60" in shown(app)


async def test_counts_are_not_needed_and_do_no_harm(chats: Path) -> None:
    telling = Telling().load().count("H", 1).count("Hello", 3).say("Hello", "Yes.").count("x", 1)
    async with played(chats, telling) as (app, _):
        assert texts(app) == ["Hello", "Yes."]


# -- the function that the command calls


def test_the_same_recording_gives_the_same_screen_and_picture(tmp_path: Path) -> None:
    source = conversation().write(tmp_path / "talk.jsonl")
    assert replay(source, (100, 30), None) == replay(source, (100, 30), None)
    first, second = (replay(source, (100, 30), tmp_path / "out.svg", "paper") for _ in range(2))
    assert first == second == (tmp_path / "out.svg").read_text()
    assert "font-face" not in first and "url(http" not in first and "latent" in first


def test_a_recording_that_begins_in_the_middle_gets_a_model(tmp_path: Path) -> None:
    told = Telling().say("Hello", "Yes.")
    screen = replay(told.write(tmp_path / "talk.jsonl"), (80, 24), None)
    assert "Yes." in screen and "Error" not in screen and "qwen3-8b" in screen


def test_nothing_recorded_is_said(tmp_path: Path) -> None:
    source = Telling().count("x", 1).write(tmp_path / "none.jsonl")
    with pytest.raises(InputError, match=r"none\.jsonl: nothing was asked in it"):
        replay(source, (80, 24), None)


def test_a_replay_that_is_stuck_ends_with_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replaying, "STUCK_AFTER_S", 0.3)

    async def never(self: Player) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(Player, "_rest", never)
    with pytest.raises(InputError, match=r"talk\.jsonl: the app came to no rest after 0 of its 3 requests"):
        replay(conversation().write(tmp_path / "talk.jsonl"), (80, 24), None)


async def test_work_that_goes_on_is_not_stuck(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replaying, "STUCK_AFTER_S", 0.05)
    steps = 0

    async def work() -> None:
        nonlocal steps
        for _ in range(20):
            await asyncio.sleep(0.01)
            steps += 1

    await replaying.unless_stuck(work(), lambda: steps, lambda: AssertionError("it was not stuck"))
    assert steps == 20


def test_an_error_in_the_app_is_not_silence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*given: object) -> None:
        raise RuntimeError("a fault of the app")

    monkeypatch.setattr("macllm_tui.widgets.sidebar.ChatList.show", broken)
    with pytest.raises(Exception, match=r"a fault of the app|ended before the recording"):
        replay(conversation().write(tmp_path / "talk.jsonl"), (80, 24), None)
