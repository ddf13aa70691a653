"""Actions on what is shown: drawers, panels, help, and stopping."""

from dataclasses import replace

from macllm.errors import InputError
from macllm_tui.screens.chat import ChatScreen
from macllm_tui.themes import NAMES
from macllm_tui.widgets.banner import Banner
from macllm_tui.widgets.sidebar import ChatList


async def stop(screen: ChatScreen, argument: str) -> None:
    """Stops the reply; with none under way, leaves an edit, a chosen message or a notice."""
    reply = screen.conversation.reply
    if screen.app.loading is not None and reply is None:
        screen.app.loading.cancel()
    elif reply is not None:
        reply.stop()
    elif screen.transcript.chosen is not None:
        screen.transcript.unchoose()
    elif screen.editing is not None or screen.resuming is not None:
        screen.end_edit()
    else:
        screen.query_one(Banner).hide()
    screen.focus_prompt()


async def prompt_history(screen: ChatScreen, argument: str) -> None:
    """Finds an earlier prompt and puts it into the prompt."""
    from macllm_tui.drawers.history import PromptHistory

    text = await screen.app.ask(PromptHistory(screen.app.store))
    if text is not None:
        screen.prompt.text = text
        screen.prompt.move_cursor(screen.prompt.document.end)


async def editor(screen: ChatScreen, argument: str) -> None:
    """Writes the prompt in the user's editor."""
    await screen.prompt.edit_in_editor()


async def attach(screen: ChatScreen, argument: str) -> None:
    """Puts a text file into the prompt."""
    if not argument:
        raise InputError("name the file: /attach FILE")
    await screen.prompt.insert_file(argument)


async def find(screen: ChatScreen, argument: str) -> None:
    """Opens the search in this chat."""
    screen.open_find(argument)


async def palette(screen: ChatScreen, argument: str) -> None:
    screen.app.action_command_palette()


async def thinking(screen: ChatScreen, argument: str) -> None:
    """Folds or unfolds what was thought, and remembers it."""
    folded = screen.transcript.toggle_thinking()
    screen.app.change_settings(replace(screen.app.settings, thinking=not folded))


async def tint(screen: ChatScreen, argument: str) -> None:
    """Marks what a draft foresaw, or no more, and remembers it."""
    tinted = not screen.app.settings.tint
    screen.app.change_settings(replace(screen.app.settings, tint=tinted))
    screen.tell("what a draft foresaw is marked from here on" if tinted else "nothing more is marked")


async def sidebar(screen: ChatScreen, argument: str) -> None:
    screen.toggle_sidebar()


async def metrics(screen: ChatScreen, argument: str) -> None:
    """Shows or hides the panel, and remembers it."""
    screen.app.change_settings(replace(screen.app.settings, metrics=not screen.app.settings.metrics))
    screen.lay_out()


async def help_(screen: ChatScreen, argument: str) -> None:
    screen.app.action_help()


async def theme(screen: ChatScreen, argument: str) -> None:
    """Changes the colours, and remembers them."""
    if not argument:
        from macllm_tui.drawers.choices import Choose

        chosen = await screen.app.ask(Choose("Colours", {name: name for name in NAMES}))
        if chosen is None:
            return
        argument = chosen
    if argument not in NAMES:
        raise InputError(f"no theme '{argument}' (there are {', '.join(NAMES)})")
    screen.app.theme = argument
    screen.app.change_settings(replace(screen.app.settings, theme=argument))


async def quit_(screen: ChatScreen, argument: str) -> None:
    await screen.app.action_quit()


async def previous_message(screen: ChatScreen, argument: str) -> None:
    _choose(screen, -1)


async def next_message(screen: ChatScreen, argument: str) -> None:
    _choose(screen, 1)


async def page_up(screen: ChatScreen, argument: str) -> None:
    """Reads back, wherever the keys are; only the list of chats pages itself."""
    if (chats := screen.query_one(ChatList)).has_focus:
        await screen.app.run_action("page_up", chats)
    else:
        screen.transcript.scroll_page_up(animate=False)  # a key that is held goes a page each time


async def page_down(screen: ChatScreen, argument: str) -> None:
    """Reads on; at the end what is written is followed again."""
    if (chats := screen.query_one(ChatList)).has_focus:
        await screen.app.run_action("page_down", chats)
    else:
        screen.transcript.scroll_page_down(animate=False)


def _choose(screen: ChatScreen, step: int) -> None:
    """The chosen message takes the keys, until none is chosen."""
    screen.transcript.choose(step)
    if screen.transcript.chosen is not None:
        screen.set_focus(screen.transcript)
    else:
        screen.focus_prompt()
