"""The slash commands of the plain chat. Names and sentences are the app's; here is what they do without a screen."""

import argparse
import difflib
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeAlias

from macllm.chats import files
from macllm.chats.records import Chat, Hit
from macllm.cli.talk import Talk, Voice
from macllm.cli.talk_input import ask
from macllm.engine.request import Sampling
from macllm.errors import InputError
from macllm_tui.actions import NO_ADAPTER, slash_commands

_LISTED = 20  # chats
_LAST = 600  # characters of a reply that opening a chat shows
_ID = re.compile(r"[0-9a-f]{4,16}")

Run: TypeAlias = Callable[[Talk, str, Voice], None]


class EndOfTalk(Exception):
    """The user is done."""


def run_command(talk: Talk, line: str, voice: Voice) -> None:
    """Runs one slash command and prints what it has to say. Raises InputError for an unknown one."""
    name, _, rest = line[1:].partition(" ")
    if name in COMMANDS:
        COMMANDS[name](talk, rest.strip(), voice)
        return
    if name in slash_commands():
        raise InputError(f"/{name} needs the app: leave with /quit and run `macllm` without --plain")
    close = difflib.get_close_matches(name, COMMANDS, n=1)
    hint = f"did you mean /{close[0]}? " if close else ""
    raise InputError(f"there is no command /{name}; {hint}/help shows them")


def _help(talk: Talk, rest: str, voice: Voice) -> None:
    shown = [action for name, action in slash_commands().items() if name in COMMANDS]
    width = max(len(action.slash) for action in shown)
    for action in shown:
        print(f"  {action.slash:{width}}  {action.help}")


def _new(talk: Talk, rest: str, voice: Voice) -> None:
    talk.restart(talk.system)
    print("new chat")


def _system(talk: Talk, rest: str, voice: Voice) -> None:
    if not rest:
        print(talk.system or "there is no system prompt")
        return
    talk.restart(rest)
    print("new chat with this system prompt")


def _set(talk: Talk, rest: str, voice: Voice) -> None:
    from macllm.engine.settings_text import SETTINGS, parse, text_of

    if rest:
        field, value = parse(rest)
        talk.change(field, value)
    sampling, limits = talk.options
    for setting in SETTINGS:
        if not rest or setting.field == field:
            value = getattr(sampling if setting.of is Sampling else limits, setting.field)
            print(f"  {setting.name} = {text_of(setting, value)}")


def _model(talk: Talk, rest: str, voice: Voice) -> None:
    from macllm.hub import store

    if rest:
        talk.use(rest)
        print(f"{talk.llm.name} answers from here on")
        return
    print(f"{talk.llm.name} answers; /model NAME changes it. Installed:")
    for model in store.installed():
        print(f"  {model.name}")


def _adapter(talk: Talk, rest: str, voice: Voice) -> None:
    from macllm.adapters.kept import kept

    if rest:
        talk.llm.use_adapter(None if rest == NO_ADAPTER else rest)
    used = f"with {talk.llm.adapter.name}" if talk.llm.adapter is not None else "without an adapter"
    if rest:
        print(f"{talk.llm.name} answers {used} from here on")
        return
    print(
        f"{talk.llm.name} answers {used}; /adapter NAME changes it, /adapter {NO_ADAPTER} goes without. Kept here:"
    )
    print("\n".join(f"  {name}" for name in kept()) or "  none yet")


def _attach(talk: Talk, rest: str, voice: Voice) -> None:
    from macllm_tui.attachments import attach, path_from

    if not rest:
        raise InputError("name the file: /attach FILE")
    path = path_from(rest)
    talk.attached.append(attach(path))
    print(f"{path.name} goes with your next message")


def _regenerate(talk: Talk, rest: str, voice: Voice) -> None:
    asked = _last_asked(talk)
    voice.hear(talk, lambda output: talk.answer(talk.branch[asked].id, output))


def _edit(talk: Talk, rest: str, voice: Voice) -> None:
    asked = talk.branch[_last_asked(talk)]
    text = rest or ask("edit> ", asked.text)
    if not text:
        print("nothing was changed")
        return
    voice.hear(talk, lambda output: talk.say(text, output, parent=asked.parent, branch=True))


def _last_asked(talk: Talk) -> int:
    """The place of the user's last message in the branch."""
    places = [place for place, message in enumerate(talk.branch) if message.role == "user"]
    if not places:
        raise InputError("nothing was said yet; write a message first")
    return places[-1]


def _previous(talk: Talk, rest: str, voice: Voice) -> None:
    _step(talk, -1)


def _next(talk: Talk, rest: str, voice: Voice) -> None:
    _step(talk, 1)


def _step(talk: Talk, step: int) -> None:
    """Goes on with another version of the last message that has several."""
    chat = _chat(talk)
    versions = [(message.id, talk.store.siblings(message.id)) for message in reversed(talk.branch)]
    found = next((each for each in versions if len(each[1]) > 1), None)
    if found is None:
        raise InputError("there is one version of every message here; /edit and /regenerate make another")
    message, siblings = found
    place = min(max(siblings.index(message) + step, 0), len(siblings) - 1)
    talk.store.select(siblings[place])
    talk.open(chat.id)
    print(f"version {place + 1} of {len(siblings)}")
    _show_last(talk)


def _fork(talk: Talk, rest: str, voice: Voice) -> None:
    _chat(talk)
    talk.open(talk.store.fork(talk.branch[-1].id).id)
    print("this is a new chat; the other one is as it was")


def _find(talk: Talk, rest: str, voice: Voice) -> None:
    if not rest:
        raise InputError("name what to look for: /find WORDS")
    _chat(talk)
    lines = [line for message in talk.branch for line in message.text.splitlines()]
    found = [line.strip() for line in lines if rest.casefold() in line.casefold()]
    print("\n".join(f"  {line}" for line in found) or f"nothing in this chat has: {rest}")


def _history(talk: Talk, rest: str, voice: Voice) -> None:
    prompts = talk.store.prompts(limit=_LISTED)
    print("\n".join(f"  {' '.join(prompt.split())}" for prompt in prompts) or "nothing was asked yet")


def _chats(talk: Talk, rest: str, voice: Voice) -> None:
    if not rest:
        chats = talk.store.chats(limit=_LISTED)
        for chat in chats:
            print(f"  {_named(chat)}, {chat.messages} messages")
        print(
            "/chats ID opens one, /chats WORDS looks for words" if chats else "no chats yet; write a message"
        )
    elif (found := _by_id(talk, rest)) is not None:
        _open(talk, found)
    else:
        hits = talk.store.search(rest, limit=_LISTED)
        for hit in hits:
            print(f"  {_named(hit.chat)}: {_text(hit)}")
        print("/chats ID opens one" if hits else f"nothing said here has all of: {rest}")


def _by_id(talk: Talk, text: str) -> Chat | None:
    """The chat that an id, or the beginning of one, means; a word that is none is looked for."""
    if _ID.fullmatch(text) is None:
        return None
    try:
        return talk.store.find(text)
    except InputError as error:
        if "several" in str(error):
            raise
        return None


def _open(talk: Talk, chat: Chat) -> None:
    talk.open(chat.id)
    print(f"{chat.title}, {chat.messages} messages; it goes on from here")
    _show_last(talk)


def _show_last(talk: Talk) -> None:
    for message in talk.branch[-2:]:
        text = message.text if len(message.text) <= _LAST else "…" + message.text[-_LAST:]
        print(f"{'you' if message.role == 'user' else 'answer'}:\n{text}")


def _rename(talk: Talk, rest: str, voice: Voice) -> None:
    if not rest:
        raise InputError("give the title: /rename TITLE")
    talk.chat = talk.store.update(_chat(talk).id, title=rest)
    print(f"this chat is now “{talk.chat.title}”")


def _delete(talk: Talk, rest: str, voice: Voice) -> None:
    chat = _chat(talk)
    if ask(f"delete “{chat.title}”? [y/N] ", "").lower() not in ("y", "yes"):
        print("nothing was deleted")
        return
    talk.restart(talk.system)
    talk.store.delete(chat.id)
    print("deleted; this is a new chat")


def _export(talk: Talk, rest: str, voice: Voice) -> None:
    chat = _chat(talk)
    path = Path(rest).expanduser() if rest else Path(f"chat-{chat.id}.md")
    files.export(talk.store, chat.id, path)
    print(f"written to {path.resolve()}")


def _import(talk: Talk, rest: str, voice: Voice) -> None:
    from macllm.cli.chats import imported

    if not rest:
        raise InputError("name the file: /import FILE")
    print(imported(files.import_jsonl(talk.store, Path(rest).expanduser())))


def _bench(talk: Talk, rest: str, voice: Voice) -> None:
    from macllm.engine.benchmark import Benchmark, measure, summarize

    benchmark = Benchmark(prompt_tokens=128, decode_tokens=32, repeats=1)
    summary = summarize(list(measure(talk.llm.loaded, benchmark)))
    print(
        f"{talk.llm.name} reads {summary.prefill_tps:.0f} tok/s and writes {summary.decode_tps:.1f} tok/s;"
        f" `macllm bench {talk.llm.name}` measures longer"
    )


def _explain(talk: Talk, rest: str, voice: Voice) -> None:
    from macllm.cli.explain import configure, run

    parser = argparse.ArgumentParser()
    configure(parser)
    packed = [f"--kv-bits={talk.kv_bits}"] if talk.kv_bits is not None else []
    run(parser.parse_args([*packed, "--", rest or str(talk.llm.loaded.path)]))


def _quit(talk: Talk, rest: str, voice: Voice) -> None:
    raise EndOfTalk


def _chat(talk: Talk) -> Chat:
    if talk.chat is None:
        raise InputError("nothing was said yet; write a message first")
    return talk.store.chat(talk.chat.id)


def _named(chat: Chat) -> str:
    return f"{chat.id[:8]}  {chat.title or 'empty chat'}"


def _text(hit: Hit) -> str:
    return "".join(span.text for span in hit.snippet)


COMMANDS: Mapping[str, Run] = {
    "attach": _attach,
    "new": _new,
    "chats": _chats,
    "model": _model,
    "adapter": _adapter,
    "set": _set,
    "system": _system,
    "help": _help,
    "explain": _explain,
    "bench": _bench,
    "rename": _rename,
    "delete": _delete,
    "import": _import,
    "quit": _quit,
    "edit": _edit,
    "regenerate": _regenerate,
    "previous": _previous,
    "next": _next,
    "fork": _fork,
    "find": _find,
    "history": _history,
    "export": _export,
}
