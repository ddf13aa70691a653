"""The tokenizer inside a GGUF file, from its metadata."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from macllm.errors import TokenizerError
from macllm.tokenizer.base import Profile, Tokenizer
from macllm.tokenizer.fast import FastTokenizer, add_tokens, byte_level_bpe, marked_bpe, set_bos_eos
from macllm.tokenizer.pretokenizers import PRE_TOKENIZERS, PreTokenizer
from macllm.tokenizer.spm import (
    BYTE,
    CONTROL,
    NORMAL,
    UNKNOWN,
    USER_DEFINED,
    SpmTokenizer,
    open_model,
    write_model,
)

if TYPE_CHECKING:
    import tokenizers

# A GGUF keeps one end token; these end a text or turn wherever they are control tokens.
_END_TOKENS = (
    "<|endoftext|>",
    "<|end_of_text|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|im_end|>",
    "<end_of_turn>",
    "<|end_of_turn|>",
    "<|return|>",
    "<|call|>",
)
_TEMPLATE = "tokenizer.chat_template"
_MERGES = "GGUF metadata: tokenizer.ggml.merges"


def from_gguf_metadata(metadata: Mapping[str, Any]) -> Tokenizer:
    """The tokenizer of a GGUF file's metadata (key -> value, arrays as lists or numpy arrays).

    Source: the "Tokenizer" section of GGUF's specification; what files leave out is as llama.cpp has it.
    """
    vocabulary = _Vocabulary(metadata)
    if vocabulary.model == "gpt2":
        return _byte_level(vocabulary)
    if vocabulary.model == "llama":
        return _sentencepiece(vocabulary)
    if vocabulary.model == "gemma4":
        return _marked(vocabulary)
    raise TokenizerError(
        f"GGUF metadata: tokenizer.ggml.model={vocabulary.model!r} is not supported (expected 'gpt2', 'llama' or "
        "'gemma4'); use the model's Hugging Face folder instead"
    )


class _Vocabulary:
    """The checked arrays of a GGUF tokenizer."""

    def __init__(self, metadata: Mapping[str, Any]) -> None:
        self._metadata = metadata
        self.model = self.value("model", str, None)
        if self.model is None:
            raise _damaged("tokenizer.ggml.model is missing")
        self.tokens: list[str] = self._array("tokens", str)
        if not self.tokens:
            raise _damaged("tokenizer.ggml.tokens is missing")
        self.types: list[int] = self._array("token_type", int) or [NORMAL] * len(self.tokens)
        if len(self.types) != len(self.tokens):
            raise _damaged(
                f"tokenizer.ggml.token_type has {len(self.types)} entries for {len(self.tokens)} tokens"
            )

        # nearly all tokens are normal: one pass over the types finds the others
        self._others = [(token, kind) for token, kind in enumerate(self.types) if kind != NORMAL]

    def value(self, key: str, kind: type, default: Any) -> Any:
        """A single value, checked for its type."""
        found = self._metadata.get(f"tokenizer.ggml.{key}")
        if found is None:
            return default
        if not isinstance(found, kind):
            raise _damaged(f"tokenizer.ggml.{key}={found!r} is not of type {kind.__name__}")
        return found

    def ids(self) -> dict[str, int]:
        return dict(zip(self.tokens, range(len(self.tokens)), strict=True))

    def merges(self) -> list[str]:
        merges = self._array("merges", str)
        if not merges:
            raise _damaged("tokenizer.ggml.merges is missing")
        return merges

    def scores(self) -> list[float]:
        scores = self._array("scores", (int, float))
        if len(scores) != len(self.tokens):
            raise _damaged(f"tokenizer.ggml.scores has {len(scores)} entries for {len(self.tokens)} tokens")
        return scores

    def token_id(self, key: str, default: int | None = None) -> int | None:
        """The id under ``tokenizer.ggml.<key>_token_id``, None when it lies outside the vocabulary."""
        found: int | None = self.value(f"{key}_token_id", int, default)
        return found if found is not None and 0 <= found < len(self.tokens) else None

    def of_type(self, *types: int) -> dict[int, str]:
        return {token: self.tokens[token] for token, kind in self._others if kind in types}

    def piece_types(self) -> list[int]:
        """The types as a SentencePiece model may have them."""
        types = list(self.types)
        unknown = self.token_id("unknown", min(self.of_type(UNKNOWN), default=0)) or 0
        for token, kind in self._others:
            # a model has one unknown piece; further ones, and types it does not have, are reachable by no text
            if kind == UNKNOWN or not NORMAL < kind <= BYTE:
                types[token] = CONTROL
        types[unknown] = UNKNOWN
        return types

    def profile(self, bos: int | None, eos: int | None) -> Profile:
        control = self.of_type(CONTROL)
        special = frozenset(self.of_type(CONTROL, UNKNOWN))
        ends = {eos, self.token_id("eot"), self.token_id("eom")}
        ends |= {token for token, text in control.items() if text in _END_TOKENS}
        named = {"bos": bos, "eos": eos, "unk": self.token_id("unknown"), "pad": self.token_id("padding")}
        return Profile(
            bos_id=bos,
            eos_ids=frozenset(token for token in ends if token is not None),
            special_ids=special,
            special_tokens={
                f"{key}_token": self.tokens[token] for key, token in named.items() if token is not None
            },
            templates=self._templates(),
        )

    def _templates(self) -> dict[str, str]:
        """The default template and the named ones (``tokenizer.chat_template.tool_use``)."""
        templates = {}
        for key in self._metadata:
            if key == _TEMPLATE or key.startswith(_TEMPLATE + "."):
                source = self._metadata[key]
                if not isinstance(source, str):
                    raise _damaged(f"{key} is {type(source).__name__}, not text")
                templates[key[len(_TEMPLATE) + 1 :] or "default"] = source
        return templates

    def _array(self, key: str, kind: type | tuple[type, ...]) -> list[Any]:
        """An array as a list (numbers may come as a numpy array), empty where there is none."""
        found = self._metadata.get(f"tokenizer.ggml.{key}")
        if found is None:
            return []
        values = found.tolist() if hasattr(found, "tolist") else found
        if not isinstance(values, list) or not all(isinstance(value, kind) for value in values[:1]):
            raise _damaged(f"tokenizer.ggml.{key} is not the expected array")
        return values


def _damaged(what: str) -> TokenizerError:
    return TokenizerError(
        f"GGUF metadata: {what}; the file is damaged or has no tokenizer, download it again"
    )


def _byte_level(vocabulary: _Vocabulary) -> FastTokenizer:
    pre = _pre_tokenizer(vocabulary.value("pre", str, "default"))
    library = byte_level_bpe(vocabulary.ids(), vocabulary.merges(), pre, _MERGES)
    return _with_special_tokens(library, vocabulary, adds_bos=pre.adds_bos)


def _marked(vocabulary: _Vocabulary) -> FastTokenizer:
    """Gemma 4's: what SentencePiece trained, with merges instead of scores."""
    unknown = vocabulary.token_id("unknown", min(vocabulary.of_type(UNKNOWN), default=-1))
    name = vocabulary.tokens[unknown] if unknown is not None else None
    library = marked_bpe(vocabulary.ids(), vocabulary.merges(), name, _MERGES)
    return _with_special_tokens(library, vocabulary, adds_bos=True)


def _with_special_tokens(
    library: "tokenizers.Tokenizer", vocabulary: _Vocabulary, *, adds_bos: bool
) -> FastTokenizer:
    """The tokenizer with the file's control and added tokens; ``adds_bos`` where the file does not say."""
    tokens = vocabulary.tokens
    special = vocabulary.of_type(CONTROL, UNKNOWN)
    plain = vocabulary.of_type(USER_DEFINED)
    add_tokens(
        library,
        {
            token: {"content": text, "special": token in special}
            for token, text in (special | plain).items()
            if text
        },
    )
    bos, eos = vocabulary.token_id("bos"), vocabulary.token_id("eos")
    adds_bos = vocabulary.value("add_bos_token", bool, adds_bos)
    adds_eos = vocabulary.value("add_eos_token", bool, False)
    set_bos_eos(
        library,
        tokens[bos] if adds_bos and bos is not None else None,
        tokens[eos] if adds_eos and eos is not None else None,
    )
    return FastTokenizer(library, vocabulary.profile(bos, eos))


def _pre_tokenizer(name: str) -> PreTokenizer:
    found = PRE_TOKENIZERS.get(name)
    if found is None:
        raise TokenizerError(
            f"GGUF metadata: tokenizer.ggml.pre={name!r} is not supported (supported: "
            f"{', '.join(sorted(PRE_TOKENIZERS))}); use the model's Hugging Face folder instead"
        )
    return found


def _sentencepiece(vocabulary: _Vocabulary) -> SpmTokenizer:
    types = vocabulary.piece_types()
    add_prefix = vocabulary.value("add_space_prefix", bool, True)
    model = write_model(vocabulary.tokens, vocabulary.scores(), types, add_prefix=add_prefix)
    bos, eos = vocabulary.token_id("bos", 1), vocabulary.token_id("eos", 2)
    special = vocabulary.of_type(CONTROL, UNKNOWN)
    return SpmTokenizer(
        open_model(model),
        vocabulary.profile(bos, eos),
        added={text: token for token, text in special.items() if text},
        before=[bos] if bos is not None and vocabulary.value("add_bos_token", bool, True) else [],
        after=[eos] if eos is not None and vocabulary.value("add_eos_token", bool, False) else [],
        prefix_after_special=add_prefix,
    )
