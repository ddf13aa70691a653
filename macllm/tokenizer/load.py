"""Picks and reads the tokenizer of a model folder, with all that its configuration files say about it."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from macllm.errors import TokenizerError
from macllm.tokenizer.base import Profile, Tokenizer

if TYPE_CHECKING:
    import tokenizers

Lookup = Callable[[str], int | None]

_MODELS = ("tokenizer.model", "tiktoken.model", "spiece.model", "sentencepiece.bpe.model")
_NAMED = ("bos", "eos", "unk", "pad", "cls", "sep", "mask")


def has_tokenizer(folder: Path) -> bool:
    """Whether any file of a tokenizer is there; whether they are enough, ``load_tokenizer`` says."""
    names = ("tokenizer.json", "tokenizer_config.json", "vocab.json")
    return any((folder / name).exists() for name in names) or any(_model_files(folder))


def load_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer of a model folder: tokenizer.json, else a SentencePiece or tiktoken file, else
    vocab.json with merges.txt; TokenizerError when there is none or it cannot be read."""
    files = FolderFiles.read(folder)
    if (path := folder / "tokenizer.json").is_file():
        return _from_json(path, files)
    for path in _model_files(folder):
        return _from_model(path, files)
    vocab, merges = folder / "vocab.json", folder / "merges.txt"
    if vocab.is_file() and merges.is_file():
        return _from_vocab(vocab, merges, files)
    raise TokenizerError(
        f"{folder}: no tokenizer found (expected tokenizer.json, tokenizer.model, a .tiktoken file, or vocab.json with "
        "merges.txt); download the model again with its tokenizer files"
    )


@dataclass(frozen=True)
class FolderFiles:
    """The small JSON files beside a tokenizer, as far as they concern it; missing ones are empty."""

    folder: Path
    tokenizer_config: Mapping[str, Any]
    special_tokens_map: Mapping[str, Any]
    generation_config: Mapping[str, Any]
    config: Mapping[str, Any]
    added_tokens: Mapping[str, Any]  # of added_tokens.json: text -> id

    @classmethod
    def read(cls, folder: Path) -> "FolderFiles":
        if not folder.is_dir():
            raise TokenizerError(f"{folder}: not a folder; give the folder of a downloaded model")
        names = ("tokenizer_config", "special_tokens_map", "generation_config", "config", "added_tokens")
        return cls(folder, *(_read_object(folder / f"{name}.json") for name in names))

    def named(self, defaults: Mapping[str, str | None] | None = None) -> dict[str, str]:
        """Texts of the named special tokens, keys as templates have them: ``bos_token`` and so on.

        ``defaults`` are the tokenizer's own, for names that no file mentions.
        """
        found = {}
        told = {**(defaults or {}), **self.special_tokens_map, **self.tokenizer_config}
        for name in (f"{name}_token" for name in _NAMED):
            text = _content(told.get(name))
            if text:
                found[name] = text
        return found

    def added(self) -> dict[int, dict[str, Any]]:
        """Added tokens by id, from tokenizer_config.json and added_tokens.json."""
        tokens: dict[int, dict[str, Any]] = {}
        for text, token in self.added_tokens.items():
            tokens[_whole(token, f"{self.folder / 'added_tokens.json'}: {text!r}")] = {"content": text}
        place = f"{self.folder / 'tokenizer_config.json'}: added_tokens_decoder"
        decoder = self.tokenizer_config.get("added_tokens_decoder") or {}
        if not isinstance(decoder, Mapping):
            raise TokenizerError(f"{place} is not an object; download the file again")
        for token, spec in decoder.items():
            if not isinstance(spec, Mapping) or not isinstance(spec.get("content"), str):
                raise TokenizerError(f"{place}[{token!r}] has no content; download the file again")
            tokens[_whole(token, place)] = dict(spec)
        named = set(self.named().values()) | set(self._extra())
        for spec in tokens.values():
            spec["special"] = bool(spec.get("special", False)) or spec["content"] in named
        return tokens

    def profile(
        self, lookup: Lookup, special_ids: Iterable[int], defaults: Mapping[str, str | None] | None = None
    ) -> Profile:
        """The profile of a tokenizer in whose vocabulary ``lookup`` finds the id of a token."""
        named = self.named(defaults)
        ids = {name: lookup(text) for name, text in named.items()}
        bos = ids.get("bos_token")
        if bos is None and "bos_token" not in {**self.tokenizer_config, **self.special_tokens_map}:
            bos = next(iter(_ids(self.config, "bos_token_id")), None)
        ends = {
            ids.get("eos_token"),
            *_ids(self.config, "eos_token_id"),
            *_ids(self.generation_config, "eos_token_id"),
        }
        special = {*special_ids, *ids.values(), *map(lookup, self._extra())}
        return Profile(
            bos_id=bos,
            eos_ids=frozenset(token for token in ends if token is not None),
            special_ids=frozenset(token for token in special if token is not None),
            special_tokens=named,
            templates=self._templates(),
        )

    def _extra(self) -> list[str]:
        """Texts of the special tokens without a name."""
        found: list[str] = []
        for source in (self.tokenizer_config, self.special_tokens_map):
            for key in ("additional_special_tokens", "extra_special_tokens"):
                tokens = source.get(key) or []
                values = tokens.values() if isinstance(tokens, Mapping) else tokens
                found.extend(text for text in map(_content, values) if text)
        return found

    def _templates(self) -> dict[str, str]:
        """Templates by name; files win over tokenizer_config.json."""
        templates: dict[str, str] = {}
        place = self.folder / "tokenizer_config.json"
        listed = self.tokenizer_config.get("chat_template")
        if listed is None:
            place = self.folder / "chat_template.json"
            listed = _read_object(place).get("chat_template")
        if isinstance(listed, str):
            templates["default"] = listed
        elif isinstance(listed, list):
            for entry in listed:
                if not isinstance(entry, Mapping) or not {"name", "template"} <= entry.keys():
                    raise TokenizerError(f"{place}: chat_template has an entry without name and template")
                templates[str(entry["name"])] = str(entry["template"])
        elif listed is not None:
            raise TokenizerError(
                f"{place}: chat_template is {type(listed).__name__} (expected text or a list)"
            )
        files = {
            path.stem: path for path in sorted((self.folder / "additional_chat_templates").glob("*.jinja"))
        }
        if (path := self.folder / "chat_template.jinja").is_file():
            files["default"] = path
        return templates | {name: _read_text(path) for name, path in files.items()}


def _from_json(path: Path, files: FolderFiles) -> Tokenizer:
    from macllm.tokenizer.fast import FastTokenizer, add_tokens, read_tokenizer_json

    library = read_tokenizer_json(path)
    add_tokens(library, files.added())
    return FastTokenizer(library, _library_profile(library, files))


def _from_vocab(vocab: Path, merges: Path, files: FolderFiles) -> Tokenizer:
    from macllm.tokenizer.fast import FastTokenizer, add_tokens, read_vocab_merges, set_bos_eos

    config, named = files.tokenizer_config, files.named()
    kind = str(config.get("tokenizer_class", ""))
    library = read_vocab_merges(vocab, merges, kind)
    added = files.added()
    known = {spec["content"] for spec in added.values()}
    for text in named.values():
        if text not in known and (token := library.token_to_id(text)) is not None:
            added[token] = {"content": text, "special": True}
    add_tokens(library, added)
    # a tokenizer.json says itself what it adds; here only these flags do
    set_bos_eos(
        library,
        named.get("bos_token") if config.get("add_bos_token") else None,
        named.get("eos_token") if config.get("add_eos_token") else None,
    )
    return FastTokenizer(library, _library_profile(library, files))


def _library_profile(library: "tokenizers.Tokenizer", files: FolderFiles) -> Profile:
    special = [token for token, added in library.get_added_tokens_decoder().items() if added.special]
    return files.profile(library.token_to_id, special)


def _model_files(folder: Path) -> Iterator[Path]:
    for name in _MODELS:
        if (folder / name).is_file():
            yield folder / name
    yield from sorted(folder.glob("*.tiktoken"))


def _from_model(path: Path, files: FolderFiles) -> Tokenizer:
    from macllm.tokenizer import spm, tiktoken_file

    try:
        data = path.read_bytes()
    except OSError as error:
        raise TokenizerError(
            f"{path}: cannot be read ({error.strerror}); check the file's permissions"
        ) from None
    if tiktoken_file.is_rank_file(data):
        return _from_ranks(path, files)
    if spm.is_model(data):
        return _from_sentencepiece(path, data, files)
    raise TokenizerError(f"{path}: neither a SentencePiece model nor a tiktoken file; download it again")


def _from_sentencepiece(path: Path, data: bytes, files: FolderFiles) -> Tokenizer:
    from macllm.tokenizer import spm

    try:
        processor = spm.open_model(data)
    except TokenizerError as error:
        raise TokenizerError(f"{path}: {error}") from None
    control = spm.control_pieces(processor)
    specs = files.added()
    added = {**control, **{spec["content"]: token for token, spec in specs.items()}}
    special = [*control.values(), *(token for token, spec in specs.items() if spec["special"])]
    own = {"bos_token": processor.bos_id(), "eos_token": processor.eos_id()}
    profile = files.profile(
        lambda text: added.get(text, spm.piece_id(processor, text)),
        special,
        {name: processor.id_to_piece(token) for name, token in own.items() if token >= 0},
    )
    config, eos = files.tokenizer_config, profile.special_tokens.get("eos_token")
    return spm.SpmTokenizer(
        processor,
        profile,
        added=added,
        before=[profile.bos_id] if profile.bos_id is not None and config.get("add_bos_token", True) else [],
        after=[added[eos]] if eos in added and config.get("add_eos_token", False) else [],
        prefix_after_special=bool(config.get("legacy", True)),
    )


def _from_ranks(path: Path, files: FolderFiles) -> Tokenizer:
    from macllm.tokenizer import tiktoken_file as tiktoken

    ranks = tiktoken.read_ranks(path)
    config = files.tokenizer_config
    if isinstance(pattern := config.get("pat_str"), str):
        family = tiktoken.Family(pattern)
    else:
        kind, model_type = str(config.get("tokenizer_class", "")), str(files.config.get("model_type", ""))
        family = tiktoken.family_of(path, len(ranks), kind, model_type)
    named = {token: spec["content"] for token, spec in files.added().items()}
    encoding = tiktoken.build_encoding(path, ranks, family, named)
    specials = {text: encoding.encode_single_token(text) for text in encoding.special_tokens_set}
    profile = files.profile(
        specials.get, specials.values(), {"bos_token": family.bos, "eos_token": family.eos}
    )
    adds_bos = profile.bos_id is not None and config.get("add_bos_token", family.adds_bos)
    before = [profile.bos_id] if adds_bos and profile.bos_id is not None else []
    return tiktoken.TiktokenTokenizer(encoding, profile, nfc=family.nfc, before=before)


def _read_object(path: Path) -> dict[str, Any]:
    """A JSON object from a file, empty when there is no such file."""
    if not path.is_file():
        return {}
    try:
        value = json.loads(_read_text(path))
    except ValueError as error:
        raise TokenizerError(f"{path}: not JSON ({error}); download the file again") from None
    if not isinstance(value, dict):
        raise TokenizerError(f"{path}: {type(value).__name__} is not a JSON object; download the file again")
    return value


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise TokenizerError(
            f"{path}: cannot be read ({error.strerror}); check the file's permissions"
        ) from None
    except UnicodeDecodeError as error:
        raise TokenizerError(f"{path}: not UTF-8 text ({error.reason}); download the file again") from None


def _content(token: Any) -> str | None:
    """The text of a special token, stored as text or as an object with its content."""
    text = token.get("content") if isinstance(token, Mapping) else token
    return text if isinstance(text, str) else None


def _whole(token: Any, place: str) -> int:
    try:
        return int(token)
    except (TypeError, ValueError):
        raise TokenizerError(f"{place}: {token!r} is not a token id; download the file again") from None


def _ids(config: Mapping[str, Any], key: str) -> list[int]:
    """Ids under a key that holds one, a list or nothing; in a multimodal config, its text part's too."""
    nested = config.get("text_config")
    value = config.get(key, nested.get(key) if isinstance(nested, Mapping) else None)
    values = value if isinstance(value, list) else [value]
    return [token for token in values if isinstance(token, int) and not isinstance(token, bool)]
