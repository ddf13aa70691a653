"""tiktoken rank files: base64 tokens with their ranks, and what their family defines beside them."""

import base64
import binascii
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from macllm.errors import TokenizerError
from macllm.tokenizer.base import Profile, Tokenizer
from macllm.tokenizer.pieces import TextStart
from macllm.tokenizer.pretokenizers import KIMI, LLAMA3, QWEN2

if TYPE_CHECKING:
    import tiktoken

_RANK_LINE = re.compile(rb"[A-Za-z0-9+/]+={0,2} \d+\r?\n")


@dataclass(frozen=True)
class Family:
    """What the rank file does not hold: pattern, special tokens in order after the ranks, BOS and EOS."""

    pattern: str
    specials: tuple[str, ...] = ()
    nfc: bool = False
    bos: str | None = None
    eos: str | None = None
    adds_bos: bool = False


_LLAMA3_SPECIALS = (
    "<|begin_of_text|>",
    "<|end_of_text|>",
    "<|reserved_special_token_0|>",
    "<|reserved_special_token_1|>",
    "<|finetune_right_pad_id|>",
    "<|step_id|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eom_id|>",
    "<|eot_id|>",
    "<|python_tag|>",
    *(f"<|reserved_special_token_{index}|>" for index in range(2, 247)),
)

FAMILIES = {
    "llama3": Family(LLAMA3, _LLAMA3_SPECIALS, bos="<|begin_of_text|>", eos="<|end_of_text|>", adds_bos=True),
    "qwen": Family(
        QWEN2,
        ("<|endoftext|>", "<|im_start|>", "<|im_end|>", *(f"<|extra_{index}|>" for index in range(205))),
        nfc=True,
        eos="<|endoftext|>",
    ),
    "kimi": Family(KIMI, bos="[BOS]", eos="[EOS]"),
}


class TiktokenTokenizer(Tokenizer):
    """A tiktoken encoding with its profile."""

    def __init__(
        self, encoding: "tiktoken.Encoding", profile: Profile, *, nfc: bool, before: Sequence[int]
    ) -> None:
        super().__init__(profile, TextStart.KEEP)
        self._encoding = encoding
        self._nfc = nfc
        self._before = before  # BOS, where encoding adds it

    def _definition(self) -> bytes:
        beside = (self._encoding._pat_str, self._nfc, list(self._before))  # the table of bytes has the ranks
        return super()._definition() + repr(beside).encode()

    @property
    def vocab_size(self) -> int:
        return self._encoding.n_vocab

    def token_to_id(self, text: str) -> int | None:
        try:
            return self._encoding.encode_single_token(text)
        except KeyError:
            return None

    def _encode(self, text: str, *, add_special_tokens: bool, parse_special: bool) -> list[int]:
        if self._nfc:
            text = unicodedata.normalize("NFC", text)
        if parse_special:
            ids = self._encoding.encode(text, allowed_special="all")
        else:
            ids = self._encoding.encode(text, disallowed_special=())
        return [*self._before, *ids] if add_special_tokens else ids

    def _piece(self, token: int) -> bytes:
        try:
            return self._encoding.decode_single_token_bytes(token)
        except (KeyError, OverflowError):
            return b""


def is_rank_file(data: bytes) -> bool:
    """Whether bytes open like a tiktoken rank file."""
    return _RANK_LINE.match(data) is not None


def read_ranks(path: Path) -> dict[bytes, int]:
    """Tokens and ranks of a file; TokenizerError names the first bad line."""
    ranks: dict[bytes, int] = {}
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise TokenizerError(
            f"{path}: cannot be read ({error.strerror}); check the file's permissions"
        ) from None
    for number, line in enumerate(lines, start=1):
        if not line:
            continue
        try:
            token, rank = line.split()
            ranks[base64.b64decode(token, validate=True)] = int(rank)
        except (ValueError, binascii.Error):
            raise TokenizerError(
                f"{path}:{number}: not a base64 token and its rank; download the file again"
            ) from None
    return ranks


def family_of(path: Path, ranks: int, tokenizer_class: str, model_type: str) -> Family:
    """The family whose conventions a rank file follows; TokenizerError when none is known."""
    if tokenizer_class == "TikTokenTokenizer" or model_type.startswith("kimi"):
        return FAMILIES["kimi"]
    if tokenizer_class == "QWenTokenizer" or model_type == "qwen" or path.name == "qwen.tiktoken":
        return FAMILIES["qwen"]
    if ranks == 128000 or model_type == "llama":
        return FAMILIES["llama3"]
    raise TokenizerError(
        f"{path}: the split pattern of this tiktoken file is not known (known families: {', '.join(FAMILIES)}); "
        'add it as "pat_str" to tokenizer_config.json'
    )


def build_encoding(
    path: Path, ranks: dict[bytes, int], family: Family, named: Mapping[int, str]
) -> "tiktoken.Encoding":
    """The encoding; ``named`` are the special tokens that tokenizer_config.json lists by id."""
    import tiktoken

    specials = {token: len(ranks) + index for index, token in enumerate(family.specials)}
    if named:  # Kimi's file reserves 258 ids after its ranks and names some of them
        first, last = len(ranks), max([len(ranks) + 257, *named])
        reserved = range(first, last + 1) if family is FAMILIES["kimi"] else ()
        specials = {f"<|reserved_token_{token}|>": token for token in reserved if token not in named}
        specials |= {text: token for token, text in named.items()}
    try:
        return tiktoken.Encoding(
            path.name, pat_str=family.pattern, mergeable_ranks=ranks, special_tokens=specials
        )
    except ValueError as error:
        raise TokenizerError(
            f"{path}: the tiktoken library cannot use it ({error}); download it again"
        ) from None
