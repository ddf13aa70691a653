"""Actions on the whole chat: another one, its name, its system prompt, its settings."""

from pathlib import Path

from macllm.chats import files
from macllm.engine import settings_text
from macllm.engine.request import Sampling
from macllm.errors import InputError
from macllm_tui.prompting import effective
from macllm_tui.screens.chat import ChatScreen


async def new(screen: ChatScreen, argument: str) -> None:
    """An empty chat with the same model and settings."""
    await screen.new_chat()


async def search(screen: ChatScreen, argument: str) -> None:
    """Finds a chat by what was said in it."""
    from macllm_tui.drawers.search import ChatSearch

    found = await screen.app.ask(ChatSearch(screen.app.store, words=argument, now=screen.app.clock))
    if found is not None:
        chat, message = found
        await screen.open_chat(chat, message)
    else:
        await screen.leave_deleted()


async def rename(screen: ChatScreen, argument: str) -> None:
    """Gives the chat a title."""
    if not argument:
        from macllm_tui.drawers.choices import TextInput

        chat = screen.conversation.chat
        argument = await screen.app.ask(TextInput("Title of this chat", chat.title if chat else "")) or ""
    if argument:
        await screen.conversation.change(title=argument)
        await screen.refresh_chats()


async def delete(screen: ChatScreen, argument: str) -> None:
    """Deletes the chat, after asking."""
    from macllm_tui.drawers.choices import Confirm

    chat = screen.conversation.chat
    if chat is None:
        raise InputError("this chat is empty; there is nothing to delete")
    if await screen.app.ask(Confirm(f"Delete “{chat.title}”? It cannot be had back.", "delete")):
        if screen.conversation.reply is not None:
            screen.conversation.reply.stop()
        await screen.new_chat()
        await screen.app.store.delete(chat.id)
        await screen.refresh_chats()


async def import_chats(screen: ChatScreen, argument: str) -> None:
    """Reads chats from a JSONL file."""
    if not argument:
        raise InputError("name the file: /import FILE.jsonl")
    imported = await screen.app.store.call(files.import_jsonl, Path(argument).expanduser())
    count = len(imported.chats)
    there = f", {len(imported.skipped)} there already" if imported.skipped else ""
    screen.tell(f"{count} chat{'' if count == 1 else 's'} imported{there}")
    await screen.refresh_chats()


async def system(screen: ChatScreen, argument: str) -> None:
    """Changes the system prompt: given, or chosen in the drawer."""
    text: str | None = argument
    if not argument:
        from macllm_tui.drawers.system import SystemDrawer

        text = await screen.app.ask(SystemDrawer(screen.conversation.system, screen.app.store))
    if text is not None:
        await screen.conversation.change(system=text)
        await screen.refresh_system()
        screen.count_soon()


async def sampler(screen: ChatScreen, argument: str) -> None:
    """Opens the sampling settings of this chat."""
    from macllm_tui.drawers.sampler import SamplerDrawer

    overrides = await screen.app.ask(SamplerDrawer(_defaults(screen), screen.conversation.settings))
    if overrides is not None:
        await screen.conversation.change(sampling=dict(overrides))


async def set_(screen: ChatScreen, argument: str) -> None:
    """Changes one setting, or shows those that differ."""
    changed = dict(screen.conversation.settings)
    if not argument:
        shown = ", ".join(f"{name} = {value}" for name, value in changed.items())
        screen.tell(shown or "all settings are the model's own; /set temp=0.7 changes one")
        return
    name, value = settings_text.parse(argument)
    changed[name] = value
    effective(_defaults(screen), changed)  # raises what the pair may not be
    await screen.conversation.change(sampling=changed)
    screen.tell(f"{name} = {value}")


def _defaults(screen: ChatScreen) -> Sampling:
    ready, model = screen.conversation.ready, screen.conversation.model
    known = ready is not None and model is not None and ready.model == model.name
    return ready.sampling if known and ready is not None else Sampling()
