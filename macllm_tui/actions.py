"""Everything a person can do in the chat, in one table: keys, slash commands, palette, footer and help come from it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

Place: TypeAlias = Literal["chat", "prompt", "message"]
NO_ADAPTER = "none"  # in place of an adapter's name


@dataclass(frozen=True)
class Action:
    """One thing to do.

    ``id`` is the name for remapping and of the method ``action_<id>`` that does it. ``place`` says where its
    key works: anywhere on the chat screen, in the prompt, or on the message that alt+up has chosen.
    ``slash`` is its slash command, with its argument if it takes one: ``/set NAME=VALUE``.
    """

    id: str
    key: str  # Textual's names, several separated by commas; empty: slash command and palette only
    title: str  # of the footer, two words at most
    help: str  # one sentence without a full stop, lower case
    place: Place = "chat"
    slash: str = ""
    footer: bool = False


ACTIONS: tuple[Action, ...] = (
    Action("send", "enter", "send", "send the message", "prompt", footer=True),
    Action("newline", "ctrl+j,shift+enter,alt+enter", "line", "begin a new line", "prompt", footer=True),
    Action(
        "stop", "escape", "stop", "stop reading or writing and keep what came", slash="/stop", footer=True
    ),
    Action("edit_last", "up", "edit last", "in an empty prompt: edit your last message", "prompt"),
    Action("prompt_history", "ctrl+r", "history", "find an earlier prompt", "prompt", "/history"),
    Action("editor", "ctrl+g", "editor", "write the prompt in $EDITOR", "prompt", "/editor"),
    Action("attach", "", "attach", "put a text file into the prompt", "prompt", "/attach FILE"),
    Action("new", "ctrl+n", "new chat", "start a new chat", slash="/new", footer=True),
    Action("search", "ctrl+o", "chats", "search all chats", slash="/chats [WORDS]", footer=True),
    Action("find", "ctrl+f", "find", "find in this chat", slash="/find [WORDS]"),
    Action("palette", "ctrl+p", "palette", "all commands by name", slash="/palette", footer=True),
    Action(
        "model", "ctrl+l", "model", "choose, download or delete a model", slash="/model [NAME]", footer=True
    ),
    Action(
        "adapter",
        "",
        "adapter",
        f"answer with an adapter; {NO_ADAPTER} goes without",
        slash="/adapter [NAME]",
    ),
    Action(
        "sampler",
        "ctrl+s",
        "sampler",
        "temperature and the other sampling settings of this chat",
        slash="/sampler",
    ),
    Action("set", "", "set", "change one sampling setting of this chat", slash="/set NAME=VALUE"),
    Action("system", "f2", "system", "the system prompt, and presets of it", slash="/system [TEXT]"),
    Action("thinking", "ctrl+t", "thinking", "fold or unfold what the model thought", slash="/thinking"),
    Action("sidebar", "ctrl+b", "sidebar", "show or hide the list of chats", slash="/sidebar"),
    Action("help", "f1", "help", "this help", slash="/help", footer=True),
    Action("finetune", "f3", "fine-tune", "teach a model from a JSONL file", slash="/finetune"),
    Action("metrics", "f4", "metrics", "show or hide the metrics", slash="/metrics"),
    Action("compare", "f5", "compare", "one prompt, two models or settings", slash="/compare"),
    Action("explain", "", "explain", "what the model is and on which Mac it fits", slash="/explain [NAME]"),
    Action("bench", "", "bench", "measure the model on this machine", slash="/bench"),
    Action("tint", "", "tint", "mark what a draft foresaw, or leave it unmarked", slash="/tint"),
    Action("theme", "", "theme", "change the colours", slash="/theme [NAME]"),
    Action("rename", "", "rename", "give this chat a title", slash="/rename TITLE"),
    Action("delete", "", "delete", "delete this chat", slash="/delete"),
    Action("import_chats", "", "import", "read chats from an exported JSONL file", slash="/import FILE"),
    Action("restart", "f8", "restart", "start the engine again after a crash", slash="/restart"),
    Action("quit", "ctrl+q", "quit", "leave; what was said is kept", slash="/quit"),
    Action("previous_message", "alt+up", "previous", "choose the message before", slash=""),
    Action("next_message", "alt+down", "next", "choose the message after"),
    Action("page_up", "pageup", "page up", "read back by a page, also from the prompt"),
    Action("page_down", "pagedown", "page down", "read on by a page; at the end it is followed again"),
    Action("edit", "e", "edit", "edit into a new branch", "message", "/edit"),
    Action("regenerate", "r", "again", "another reply beside this one", "message", "/regenerate"),
    Action("previous_sibling", "left_square_bracket", "‹", "the branch before", "message", "/previous"),
    Action("next_sibling", "right_square_bracket", "›", "the branch after", "message", "/next"),
    Action(
        "continue", "i", "continue", "edit the reply and let the model continue it", "message", "/continue"
    ),
    Action("copy", "c", "copy", "copy the message", "message", "/copy"),
    Action("copy_code", "y", "copy code", "copy the code of the message", "message", "/code"),
    Action("fork", "f", "fork", "a new chat that starts with everything up to here", "message", "/fork"),
    Action(
        "export",
        "x",
        "export",
        "write the chat to a file: .md, or .jsonl for fine-tuning",
        "message",
        "/export [FILE]",
    ),
)

BY_ID: Mapping[str, Action] = {action.id: action for action in ACTIONS}


def slash_commands() -> Mapping[str, Action]:
    """The actions by the name of their slash command, without the slash."""
    return {action.slash[1:].partition(" ")[0]: action for action in ACTIONS if action.slash}
