"""The plain chat as a person meets it: typed at in a terminal, interrupted, left, and found again."""

import re

import chatty
import pytest
from talk_terminal import Terminal

from macllm.chats.store import Store

QUESTION = "What is the capital of France?"
ANSWER = "The capital of France is Paris."


@pytest.fixture
def start(tmp_path, macllm_home):
    """Starts a plain chat, with a tiny model where none is given, and waits for its prompt."""

    def started(model=None, *words):
        model = str(model or chatty.folder("endless"))
        terminal = Terminal(model, "--plain", "--temp", "0", *words, home=macllm_home, folder=tmp_path)
        terminal.until(r"> $")
        return terminal

    return started


def test_what_was_said_is_there_on_the_next_start(start, starter_gguf, macllm_home):
    with start(starter_gguf) as first:
        assert first.say(QUESTION).strip() == ANSWER
        first.press("\x04")
        assert first.ended() == 0
    with start(starter_gguf) as second:
        chat = re.search(r"^  ([0-9a-f]{8})  ", second.say("/chats"), re.MULTILINE)[1]
        assert ANSWER in second.say(f"/chats {chat}")
        assert "Rome" in second.say("And of Italy?")
        second.press("/quit\n")
        assert second.ended() == 0
        shown = second.raw
    store = Store.open()
    (kept,) = store.chats()
    assert kept.messages == 4
    store.close()
    spoken = shown[shown.index("/help for commands") :]
    moves = re.sub(r"\x1b\[\?2004[hl]|\x1b\[K", "", spoken)  # readline's own, while a line is typed
    assert "\x1b" not in moves, "no colour and no cursor movement"
    assert not re.search("[\u2500-\u259f]", spoken), "no boxes, which a screen reader would spell out"
    assert (macllm_home / "history").stat().st_mode & 0o777 == 0o600
    assert QUESTION in (macllm_home / "history").read_text()


def test_ctrl_c_stops_a_reply_and_what_came_stays(start):
    with start() as terminal:
        begun = terminal.press("Tell me a very long story about a dragon.\n")
        terminal.until(r"(?s)dragon\.\n.{9}", begun)
        terminal.interrupt()
        terminal.until(r" \[stopped\]\n> $", begun)
        begun = terminal.press("half a line")
        terminal.until("half a line", begun)
        terminal.interrupt_line()  # nothing is being written: the line is given up, the chat goes on
        terminal.until(r"\n> $", begun)
        assert terminal.say("/chats").count("Tell me a very long story") == 1
    store = Store.open()
    (chat,) = store.chats()
    reply = store.branch(chat.id)[-1]
    assert reply.state == "stopped" and reply.text
    store.close()


def test_the_last_message_is_edited_where_it_stands(start):
    with start(None, "--max-tokens", "5") as terminal:
        terminal.say(QUESTION)
        begun = terminal.press("/edit\n")
        terminal.until(f"edit> {re.escape(QUESTION)}$", begun)
        terminal.press("\x15Say hello.\n")  # ctrl-u clears the line
        terminal.until(r"\n> $", begun)
        begun = terminal.press("/edit\n")
        terminal.until(r"edit> Say hello\.$", begun)
        terminal.press("\x15\n")
        terminal.until(r"nothing was changed\n> $", begun)
    store = Store.open()
    (chat,) = store.chats()
    branch = store.branch(chat.id)
    assert branch[0].text == "Say hello." and len(branch) == 2
    assert len(store.siblings(branch[0].id)) == 2
    store.close()


def test_a_chat_killed_while_it_wrote_is_shown_as_stopped(start):
    with start() as terminal:
        begun = terminal.press("Tell me a very long story about a dragon.\n")
        terminal.until(r"(?s)dragon\.\n.{9}", begun)
        terminal.process.kill()
        terminal.process.wait()
    store = Store.open()
    (chat,) = store.chats()
    assert store.branch(chat.id)[-1].state == "stopped"
    store.close()


def test_errors_are_said_and_the_chat_goes_on(start, macllm_home):
    with start(chatty.folder("short")) as terminal:
        assert "macllm: there is no command /nonsense" in terminal.say("/nonsense")
        file = macllm_home / "long.txt"
        file.write_text("word " * 20_000)
        assert "goes with your next message" in terminal.say(f"/attach {file}")
        said = terminal.say("Count the words.")
        assert "tokens" in said and "/new begins a new chat" in said
        assert "new chat" in terminal.say("/new")


def test_without_a_place_to_keep_it_the_chat_goes_on(tmp_path):
    (tmp_path / "file").write_text("")
    words = (str(chatty.folder("endless")), "--plain", "--max-tokens", "5")
    with Terminal(*words, home=tmp_path / "file", folder=tmp_path) as terminal:
        shown = terminal.until(r"> $")
        assert "what is said now is not kept" in shown
        terminal.say(QUESTION)
        assert QUESTION in terminal.say("/chats"), "as long as it runs"
        terminal.press("\x04")
        assert terminal.ended() == 0


def test_a_dumb_terminal_gets_the_plain_chat(tmp_path, macllm_home):
    words = (str(chatty.folder("endless")), "--max-tokens", "5")
    with Terminal(*words, home=macllm_home, folder=tmp_path, TERM="dumb") as terminal:
        terminal.until(r"> $")
        said = terminal.say(QUESTION)
    assert "cut at the token limit" in said
    assert "tok/s" not in said
    assert "\x1b[" not in terminal.raw


def test_where_the_app_could_not_draw_the_chat_is_plain(tmp_path, macllm_home):
    words = (str(chatty.folder("endless")), "--max-tokens", "5")
    with Terminal(*words, home=macllm_home, folder=tmp_path, errors=tmp_path / "err.log") as terminal:
        terminal.until(r"> $")
        terminal.press("\x04")
        assert terminal.ended() == 0
    assert "\x1b" not in (tmp_path / "err.log").read_text()
