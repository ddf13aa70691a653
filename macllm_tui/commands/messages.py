"""Actions on one message: the chosen one, else the last that the action makes sense for."""

from pathlib import Path

from macllm.chats import files
from macllm.chats.records import StoredMessage
from macllm.errors import InputError
from macllm_tui.prompting import effective
from macllm_tui.screens.chat import ChatScreen


def _target(screen: ChatScreen, role: str | None = None) -> StoredMessage:
    """The chosen message, else the last one (of ``role``). Raises InputError."""
    chosen = screen.transcript.chosen
    if chosen is not None and role in (None, chosen.message.role):
        return chosen.message
    branch = screen.conversation.branch
    if chosen is not None:  # the message of that role beside the one chosen
        place = [one.id for one in branch].index(chosen.message.id)
        branch = branch[: place + 1] if role == "user" else branch[place:]
    found = [one for one in branch if role in (None, one.role)]
    if not found:
        raise InputError("there is no such message in this chat yet")
    return found[0] if chosen is not None and role == "assistant" else found[-1]


async def edit(screen: ChatScreen, argument: str) -> None:
    """Puts a user's message into the prompt; sent, it becomes a branch beside the old one."""
    screen.require_rest()
    message = _target(screen, "user")
    screen.transcript.unchoose()
    screen.begin_edit(message.text, editing=message.id)


async def continue_(screen: ChatScreen, argument: str) -> None:
    """Puts a reply into the prompt; sent, the model goes on from there."""
    screen.require_rest()
    message = _target(screen, "assistant")
    screen.transcript.unchoose()
    screen.begin_edit(message.text, resuming=message.id)


async def regenerate(screen: ChatScreen, argument: str) -> None:
    """Another reply beside the chosen one."""
    screen.require_rest()
    message = _target(screen)
    screen.transcript.unchoose()
    screen.focus_prompt()
    asked = message.id if message.role == "user" else message.parent
    if _comes_out_the_same(screen, message):
        screen.tell("the temperature is 0, so the reply comes out the same; /set temp=0.7 lets it differ")
    await screen.start(await screen.conversation.answer(asked))


def _comes_out_the_same(screen: ChatScreen, message: StoredMessage) -> bool:
    """Whether nothing is drawn by chance now, nor was in the reply that is there, by the same model."""
    ready = screen.conversation.ready
    if ready is None or message.state != "complete" or message.model != ready.model:
        return False
    both = (screen.conversation.settings, message.sampling)
    return all(effective(ready.sampling, settings).temperature == 0 for settings in both)


async def previous_sibling(screen: ChatScreen, argument: str) -> None:
    await _step(screen, -1)


async def next_sibling(screen: ChatScreen, argument: str) -> None:
    await _step(screen, 1)


async def _step(screen: ChatScreen, step: int) -> None:
    screen.require_rest()
    branched = [entry for entry in screen.conversation.entries if entry.siblings > 1]
    chosen = screen.transcript.chosen
    if (chosen is None and not branched) or (chosen is not None and chosen.siblings == 1):
        raise InputError("there is one version of this message; /edit and /regenerate make another")
    entry = chosen or branched[-1]
    place = [one.message.id for one in screen.conversation.entries].index(entry.message.id)
    await screen.conversation.step_sibling(entry.message.id, step)
    await screen.show_chat()
    if chosen is not None:
        screen.transcript.choose(place - len(screen.conversation.entries))


async def copy(screen: ChatScreen, argument: str) -> None:
    """Copies the message's text."""
    message = _target(screen)
    screen.app.copy_to_clipboard(message.text)
    screen.tell(f"copied {len(message.text):,} characters")


async def copy_code(screen: ChatScreen, argument: str) -> None:
    """Copies the code blocks of a reply."""
    from macllm_tui.widgets.fences import code_of

    blocks = code_of(_target(screen, "assistant").text)
    if not blocks:
        raise InputError("there is no code in this message")
    screen.app.copy_to_clipboard("\n".join(blocks).rstrip("\n"))
    screen.tell("copied the code" if len(blocks) == 1 else f"copied {len(blocks)} pieces of code")


async def fork(screen: ChatScreen, argument: str) -> None:
    """A new chat with everything up to the message."""
    screen.require_rest()
    message = _target(screen)
    await screen.conversation.fork(message.id)
    await screen.show_chat()
    screen.focus_prompt()
    screen.tell("this is a new chat; the other one is as it was")


async def export(screen: ChatScreen, argument: str) -> None:
    """Writes the chat as Markdown, or as the JSONL that fine-tuning reads."""
    chat = screen.conversation.chat
    if chat is None:
        raise InputError("there is nothing to export yet; say something first")
    if not argument:
        from macllm_tui.drawers.choices import Choose

        options = {"md": "Markdown, to read and share", "jsonl": "JSONL, for fine-tuning and other tools"}
        kind = await screen.app.ask(Choose("Export this chat as", options))
        if kind is None:
            return
        argument = str(Path.cwd() / f"chat-{chat.id}.{kind}")
    path = Path(argument).expanduser()
    await screen.app.store.call(files.export, chat.id, path)
    screen.tell(f"written to {path}")
