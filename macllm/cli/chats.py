"""``macllm chats``: lists, searches, exports, imports and deletes what was said."""

import argparse
import sys
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from macllm.cli.options import positive
from macllm.cli.output import print_json, print_table, tell
from macllm.errors import InputError, OptionError

if TYPE_CHECKING:
    from macllm.chats.files import Imported
    from macllm.chats.records import Chat, Hit
    from macllm.chats.store import Store

HELP = (
    "List the chats of this machine, last used first; or search, export, import or delete them. An ID may be"
    " the beginning of one."
)
_NEEDED = {"WORDS": "words to look for", "ID": "an ID, which `macllm chats` shows", "FILE": "a FILE"}
_ACTIONS = {  # each with the words that follow it and its options
    "list": ("", {"json", "limit"}),
    "search": ("WORDS", {"json", "limit"}),
    "export": ("ID", {"format", "output", "all"}),
    "import": ("FILE", set()),
    "rm": ("ID", {"yes"}),
}
_OPTIONS = {
    "json": "--json",
    "limit": "--limit",
    "format": "--format",
    "output": "-o",
    "all": "--all",
    "yes": "--yes",
}
_SHORT_ID = 8  # characters of an id that tell a person's chats apart
_TITLE = 50


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    shown = ", ".join(f"{name} {what}".strip() for name, (what, _) in _ACTIONS.items() if name != "list")
    parser.add_argument("words", metavar="ACTION", nargs="*", help=f"{shown}; without one, the list")
    parser.add_argument("--json", action="store_true", help="list, search: print a JSON list")
    parser.add_argument(
        "--limit", type=positive, metavar="N", help="list, search: the first N only (search: 50)"
    )
    parser.add_argument(
        "--format",
        choices=("md", "jsonl"),
        help="export: Markdown, or JSONL for fine-tuning (default: by FILE, else md)",
    )
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help="export: write this file instead of stdout"
    )
    parser.add_argument("--all", action="store_true", help="export: every chat, as JSONL")
    parser.add_argument("--yes", "-y", action="store_true", help="rm: do not ask")


def run(args: argparse.Namespace) -> int:
    """Opens the store and does what was asked."""
    from macllm.chats.store import Store, damage_sentence

    action, words = (args.words[0], args.words[1:]) if args.words else ("list", [])
    _check(action, words, args)
    store = Store.open()
    if store.set_aside is not None:
        tell(damage_sentence(store))
    try:
        return {"list": _list, "search": _search, "export": _export, "import": _import, "rm": _remove}[
            action
        ](store, words, args)
    finally:
        store.close()


def _check(action: str, words: list[str], args: argparse.Namespace) -> None:
    if action not in _ACTIONS:
        import difflib

        close = difflib.get_close_matches(action, _ACTIONS, n=1)
        hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(_ACTIONS)}"
        raise InputError(f"no action {action} of macllm chats ({hint}); see `macllm chats --help`")
    needed, options = _ACTIONS[action]
    for name, flag in _OPTIONS.items():
        if getattr(args, name) not in (None, False) and name not in options:
            raise OptionError(f"{flag} does not go with `macllm chats {action}`; see `macllm chats --help`")
    wanted = 0 if action == "list" or args.all else 1
    if len(words) < wanted:
        raise InputError(f"`macllm chats {action}` needs {_NEEDED[needed]}")
    if len(words) > wanted and action != "search":
        raise InputError(f"'{words[wanted]}' is one argument too many; see `macllm chats --help`")


def _list(store: "Store", words: list[str], args: argparse.Namespace) -> int:
    chats = store.chats(limit=args.limit or -1)
    if args.json:
        print_json([_fields(chat) for chat in chats])
    elif not chats:
        print("no chats yet; `macllm` begins one")
    else:
        rows = [
            (chat.id[:_SHORT_ID], _cut(chat.title), chat.model, chat.messages, _time(chat.updated))
            for chat in chats
        ]
        print_table(("ID", "TITLE", "MODEL", "MESSAGES", "UPDATED"), rows, right=(3,))
    return 0


def _search(store: "Store", words: list[str], args: argparse.Namespace) -> int:
    hits = store.search(" ".join(words), limit=args.limit or 50)
    if args.json:
        print_json([_found(hit) for hit in hits])
    elif not hits:
        print(f"nothing said here has all of: {' '.join(words)}")
    else:
        rows = [
            (hit.chat.id[:_SHORT_ID], _cut(hit.chat.title), hit.role, _time(hit.created), _text(hit))
            for hit in hits
        ]
        print_table(("ID", "TITLE", "WHO", "WHEN", "TEXT"), rows)
    return 0


def _export(store: "Store", words: list[str], args: argparse.Namespace) -> int:
    from macllm.chats import files

    suffix = args.output.suffix.lower().lstrip(".") if args.output is not None else ""
    format_ = args.format or ("jsonl" if args.all or suffix == "jsonl" else "md")
    if args.all and format_ == "md":
        raise OptionError("--all writes JSONL; leave --format md out, or export one chat by its ID")
    chats = [chat.id for chat in store.chats(limit=-1)] if args.all else [store.find(words[0]).id]
    text = files.to_jsonl(store, chats) if format_ == "jsonl" else files.to_markdown(store, chats[0])
    if args.output is None:
        sys.stdout.write(text)
    else:
        files.write(args.output, text)
        tell(f"written to {args.output}")
    return 0


def _import(store: "Store", words: list[str], args: argparse.Namespace) -> int:
    from macllm.chats import files

    print(imported(files.import_jsonl(store, Path(words[0]))))
    return 0


def imported(done: "Imported") -> str:
    """What an import did, in words."""
    count = len(done.chats)
    skipped = f", {len(done.skipped)} there already" if done.skipped else ""
    return f"{count} chat{'' if count == 1 else 's'} imported{skipped}"


def _remove(store: "Store", words: list[str], args: argparse.Namespace) -> int:
    chat = store.find(words[0])
    name = f"{chat.id[:_SHORT_ID]} “{chat.title}”" if chat.title else chat.id[:_SHORT_ID]
    if not args.yes and sys.stdin.isatty():
        print(f"delete {name}, {chat.messages} messages? [y/N] ", end="", file=sys.stderr, flush=True)
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            tell("nothing was deleted")
            return 1
    store.delete(chat.id)
    print(f"deleted {name}")
    return 0


def _fields(chat: "Chat") -> dict[str, Any]:
    names = ("id", "title", "model", "messages", "created", "updated")
    return {name: asdict(chat)[name] for name in names}


def _found(hit: "Hit") -> dict[str, Any]:
    place = {"chat": hit.chat.id, "title": hit.chat.title, "message": hit.message or None, "role": hit.role}
    return {**place, "created": hit.created, "text": _text(hit)}


def _text(hit: "Hit") -> str:
    return "".join(span.text for span in hit.snippet)


def _cut(title: str) -> str:
    return title if len(title) <= _TITLE else title[: _TITLE - 1] + "…"


def _time(when: str) -> str:
    """A stored time in the local zone, to the minute."""
    return datetime.fromisoformat(when).astimezone().strftime("%Y-%m-%d %H:%M")
