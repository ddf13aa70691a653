"""What each action of the table does: coroutines that take the chat screen and the slash command's argument."""

from collections.abc import Awaitable, Callable, Mapping
from typing import TypeAlias

from macllm_tui.commands import chats, messages, models, views
from macllm_tui.screens.chat import ChatScreen

Command: TypeAlias = Callable[[ChatScreen, str], Awaitable[None]]

COMMANDS: Mapping[str, Command] = {
    "stop": views.stop,
    "prompt_history": views.prompt_history,
    "editor": views.editor,
    "attach": views.attach,
    "find": views.find,
    "palette": views.palette,
    "thinking": views.thinking,
    "sidebar": views.sidebar,
    "help": views.help_,
    "metrics": views.metrics,
    "tint": views.tint,
    "theme": views.theme,
    "quit": views.quit_,
    "previous_message": views.previous_message,
    "next_message": views.next_message,
    "page_up": views.page_up,
    "page_down": views.page_down,
    "new": chats.new,
    "search": chats.search,
    "rename": chats.rename,
    "delete": chats.delete,
    "import_chats": chats.import_chats,
    "system": chats.system,
    "sampler": chats.sampler,
    "set": chats.set_,
    "model": models.model,
    "adapter": models.adapter,
    "explain": models.explain,
    "bench": models.bench,
    "compare": models.compare,
    "finetune": models.finetune,
    "restart": models.restart,
    "edit": messages.edit,
    "regenerate": messages.regenerate,
    "previous_sibling": messages.previous_sibling,
    "next_sibling": messages.next_sibling,
    "continue": messages.continue_,
    "copy": messages.copy,
    "copy_code": messages.copy_code,
    "fork": messages.fork,
    "export": messages.export,
}

# They ask nobody and wait for nothing, so the key after them finds what they did.
IMMEDIATE = frozenset(
    {
        "stop",
        "thinking",
        "sidebar",
        "metrics",
        "find",
        "previous_message",
        "next_message",
        "page_up",
        "page_down",
        "edit",
        "continue",
    }
)
