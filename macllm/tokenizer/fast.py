"""Tokenizers of the ``tokenizers`` library: ``tokenizer.json``, vocab.json with merges.txt, byte-level GGUF."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

from macllm.errors import TokenizerError
from macllm.tokenizer.base import Profile, Tokenizer
from macllm.tokenizer.pieces import SPACE_MARK, decoder_rules

if TYPE_CHECKING:
    import tokenizers

    from macllm.tokenizer.pretokenizers import PreTokenizer


class FastTokenizer(Tokenizer):
    """A ``tokenizers.Tokenizer`` with its profile."""

    def __init__(self, library: "tokenizers.Tokenizer", profile: Profile) -> None:
        decoder = library.decoder
        self._to_bytes, text_start = decoder_rules(json.loads(decoder.__getstate__()) if decoder else None)
        super().__init__(profile, text_start)
        library.no_truncation()  # some files cut prompts at the length they were trained with
        library.no_padding()
        self._library = library
        self._lock = Lock()  # how special tokens are read is a setting of the library's object, not of a call
        self._added = {token: added.content for token, added in library.get_added_tokens_decoder().items()}
        self._size = max(library.get_vocab_size(), max(self._added, default=-1) + 1)

    @property
    def vocab_size(self) -> int:
        return self._size

    def token_to_id(self, text: str) -> int | None:
        return self._library.token_to_id(text)

    def to_json(self) -> str:
        """The tokenizer.json of this tokenizer."""
        return self._library.to_str(pretty=True)

    def _definition(self) -> bytes:
        return self._library.to_str().encode()

    def _encode(self, text: str, *, add_special_tokens: bool, parse_special: bool) -> list[int]:
        with self._lock:
            self._library.encode_special_tokens = not parse_special  # as text, that is
            ids: list[int] = self._library.encode(text, add_special_tokens=add_special_tokens).ids
        return ids

    def _piece(self, token: int) -> bytes:
        if token in self._added:  # written as it is, whatever the decoder does with other tokens
            return self._added[token].encode()
        text = self._library.id_to_token(token) if 0 <= token < self._size else None
        return self._to_bytes(text) if text is not None else b""


def read_tokenizer_json(path: Path) -> "tokenizers.Tokenizer":
    """The library's tokenizer; TokenizerError when the file cannot be read."""
    from tokenizers import Tokenizer as Library

    try:
        return Library.from_buffer(path.read_bytes())
    except OSError as error:
        raise TokenizerError(
            f"{path}: cannot be read ({error.strerror}); check the file's permissions"
        ) from None
    except Exception as error:  # the library raises bare Exception
        raise TokenizerError(
            f"{path}: not a tokenizer.json that the tokenizers library reads ({_line(error)}); download the model again"
        ) from None


def read_vocab_merges(vocab_path: Path, merges_path: Path, tokenizer_class: str) -> "tokenizers.Tokenizer":
    """A byte-level BPE from GPT-2's two files; the class name tells whose pre-tokenizer it needs."""
    from macllm.tokenizer.pretokenizers import PRE_TOKENIZERS

    try:
        vocab = json.loads(vocab_path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise TokenizerError(
            f"{vocab_path}: not a JSON vocabulary ({error}); download the model again"
        ) from None
    try:
        lines = merges_path.read_text(encoding="utf-8").split("\n")
    except (OSError, ValueError) as error:
        raise TokenizerError(f"{merges_path}: cannot be read ({error}); download the model again") from None
    if not isinstance(vocab, dict) or not all(isinstance(token, int) for token in vocab.values()):
        raise TokenizerError(f"{vocab_path}: not an object of tokens and ids; download the model again")
    merges = [line for line in lines if line and not line.startswith("#version")]
    pre = "qwen2" if tokenizer_class.startswith("Qwen2") else "gpt-2"
    return byte_level_bpe(vocab, merges, PRE_TOKENIZERS[pre], str(merges_path))


def byte_level_bpe(
    vocab: Mapping[str, int], merges: Sequence[str], pre: "PreTokenizer", place: str
) -> "tokenizers.Tokenizer":
    """A byte-level BPE from its vocabulary, its merges ("a b", best first) and its pre-tokenizer."""
    from tokenizers import decoders

    library = _bpe(vocab, merges, place, ignore_merges=pre.ignore_merges)
    pre.install(library)
    library.decoder = decoders.ByteLevel()
    return library


def marked_bpe(
    vocab: Mapping[str, int], merges: Sequence[str], unknown: str | None, place: str
) -> "tokenizers.Tokenizer":
    """A BPE of whole texts with marks for spaces, and a token for each byte of a character that it does not have."""
    from tokenizers import decoders, normalizers

    library = _bpe(vocab, merges, place, unk_token=unknown, fuse_unk=True, byte_fallback=True)
    library.normalizer = normalizers.Replace(" ", SPACE_MARK)
    library.decoder = decoders.Sequence(
        [decoders.Replace(SPACE_MARK, " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    return library


def _bpe(
    vocab: Mapping[str, int], merges: Sequence[str], place: str, **options: Any
) -> "tokenizers.Tokenizer":
    from tokenizers import Tokenizer as Library
    from tokenizers import models

    pairs = [tuple(merge.split(" ")) for merge in merges]
    try:
        model = models.BPE(dict(vocab), pairs, **options)  # type: ignore[arg-type]
    except Exception as error:  # the library raises bare Exception
        raise TokenizerError(
            f"{place}: merges do not fit the vocabulary ({_line(error)}); download the model again"
        ) from None
    return Library(model)


def add_tokens(library: "tokenizers.Tokenizer", tokens: Mapping[int, Mapping[str, Any]]) -> None:
    """Registers added tokens (id -> content, special, lstrip, ...) that the library does not know yet.

    Ids are the library's to give: its vocabulary's, else the next free one. A token for which that is not
    the id in the files would shift all later ones, so it is refused.
    """
    from tokenizers import AddedToken

    known = {added.content for added in library.get_added_tokens_decoder().values()}
    missing = [(token, spec) for token, spec in sorted(tokens.items()) if spec["content"] not in known]
    library.add_tokens(
        [
            AddedToken(
                spec["content"],
                special=bool(spec.get("special", False)),
                normalized=bool(spec.get("normalized", False)),
                lstrip=bool(spec.get("lstrip", False)),
                rstrip=bool(spec.get("rstrip", False)),
                single_word=bool(spec.get("single_word", False)),
            )
            for _, spec in missing
        ]
    )
    for token, spec in missing:
        given = library.token_to_id(spec["content"])
        if token >= 0 and given != token:
            raise TokenizerError(
                f"tokenizer_config.json: added token {spec['content']!r} has id {token} there and {given} in the "
                "vocabulary; the tokenizer files belong to different models, download them again"
            )


def set_bos_eos(library: "tokenizers.Tokenizer", bos: str | None, eos: str | None) -> None:
    """Makes encoding with special tokens put ``bos`` before a text and ``eos`` after it, and nothing else."""
    from tokenizers import processors

    ids = {token: library.token_to_id(token) for token in (bos, eos) if token is not None}
    known = [(token, given) for token, given in ids.items() if given is not None]
    names = [token for token, _ in known]
    single = [*[bos] * (bos in names), "$A", *[eos] * (eos in names)]
    library.post_processor = processors.TemplateProcessing(single=single, special_tokens=known)


def _line(error: Exception) -> str:
    """The first line of the library's message, which may be a list of all it tried."""
    return next(iter(str(error).splitlines()), type(error).__name__)
