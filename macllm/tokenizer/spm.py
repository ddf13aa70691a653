"""SentencePiece models: a ``.model`` file, or one written here from a GGUF's pieces, scores and types."""

import re
from array import array
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from macllm.errors import TokenizerError
from macllm.tokenizer.base import Profile, Tokenizer
from macllm.tokenizer.pieces import TextStart, spm_piece

if TYPE_CHECKING:
    from sentencepiece import SentencePieceProcessor

# Types of a piece, the same numbers in SentencePiece and in GGUF.
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)

# normalizer_spec { add_dummy_prefix: false }: appended to a model it overrides that one field.
_NO_PREFIX = b"\x1a\x02\x18\x00"


class SpmTokenizer(Tokenizer):
    """A SentencePiece model with the tokens added beside it.

    Added tokens are cut out of the text here, since SentencePiece never reads control pieces from a text;
    what lies between them is encoded on its own, with a space before it where ``prefix_after_special``
    says so or where it opens the text.
    """

    def __init__(
        self,
        processor: "SentencePieceProcessor",
        profile: Profile,
        *,
        added: Mapping[str, int],
        before: Sequence[int],
        after: Sequence[int],
        prefix_after_special: bool,
    ) -> None:
        self.processor = processor
        super().__init__(profile, self._text_start())
        self.added = dict(added)
        self._names = {token: text for text, token in self.added.items()}
        self.before, self.after = before, after  # BOS and EOS, where encoding adds them
        self.prefix_after_special = prefix_after_special
        self._size = max(self.processor.get_piece_size(), max(self._names, default=-1) + 1)

    @property
    def vocab_size(self) -> int:
        return self._size

    def opening_bytes(self, token: int) -> tuple[bytes, bool]:
        if 0 <= token < self.processor.get_piece_size() and self.processor.is_byte(token):
            return self.token_bytes(token), False  # only a mark is what encoding put there, not a byte 0x20
        return super().opening_bytes(token)

    def token_to_id(self, text: str) -> int | None:
        if text in self.added:
            return self.added[text]
        return piece_id(self.processor, text)

    def _definition(self) -> bytes:
        beside = (sorted(self.added.items()), list(self.before), list(self.after), self.prefix_after_special)
        return self.processor.serialized_model_proto() + repr(beside).encode()

    def _encode(self, text: str, *, add_special_tokens: bool, parse_special: bool) -> list[int]:
        ids: list[int] = []
        encoder = self.processor
        for part in self._split(text, parse_special=parse_special):
            if isinstance(part, int):
                ids.append(part)
                encoder = self.processor if self.prefix_after_special else self._bare
            else:
                ids.extend(encoder.encode(part))
        return [*self.before, *ids, *self.after] if add_special_tokens else ids

    def _split(self, text: str, *, parse_special: bool) -> list[str | int]:
        """The text's runs and the ids of the added tokens between them; the longest token wins."""
        table = self.added if parse_special else self._plain_added
        parts: list[str | int] = []
        done = 0
        for found in self._candidates.finditer(text):
            start = found.start()
            if start < done:
                continue
            for length in self._lengths:
                token = table.get(text[start : start + length])
                if token is not None and start + length <= len(text):
                    parts.extend([text[done:start]] if start > done else [])
                    parts.append(token)
                    done = start + length
                    break
        if done < len(text):
            parts.append(text[done:])
        return parts

    @cached_property
    def _candidates(self) -> re.Pattern[str]:
        firsts = sorted({re.escape(text[0]) for text in self.added if text})
        return re.compile(f"[{''.join(firsts)}]" if firsts else r"(?!)")

    @cached_property
    def _lengths(self) -> list[int]:
        return sorted({len(text) for text in self.added}, reverse=True)

    @cached_property
    def _plain_added(self) -> dict[str, int]:
        return {text: token for text, token in self.added.items() if token not in self.special_ids}

    @cached_property
    def _bare(self) -> "SentencePieceProcessor":
        """The same model without the space before a text."""
        return open_model(self.processor.serialized_model_proto() + _NO_PREFIX)

    def _text_start(self) -> TextStart:
        """What the model's normalizer adds at the start of a text, asked of the model itself."""
        if self.processor.normalize("a  b ") in ("▁a▁b", "a▁b"):
            return TextStart.DROP_SPACES
        return TextStart.DROP_SPACE if self.processor.normalize("a") == "▁a" else TextStart.KEEP

    def _piece(self, token: int) -> bytes:
        if token in self._names:
            return self._names[token].encode()
        if not 0 <= token < self.processor.get_piece_size():
            return b""
        text: str = self.processor.id_to_piece(token)
        return (
            text.encode()
            if self.processor.is_control(token) or self.processor.is_unknown(token)
            else spm_piece(text)
        )


def open_model(model: bytes) -> "SentencePieceProcessor":
    """The library's processor of a model; TokenizerError when it is damaged."""
    from sentencepiece import SentencePieceProcessor

    processor = SentencePieceProcessor()
    try:
        processor.LoadFromSerializedProto(model)
    except RuntimeError as error:
        raise TokenizerError(
            f"SentencePiece model: the sentencepiece library cannot read it ({error}); download the model again"
        ) from None
    return processor


def piece_id(processor: "SentencePieceProcessor", text: str) -> int | None:
    """The id of a piece by its text; the library answers with the unknown id for any other text."""
    token: int = processor.piece_to_id(text)
    return token if processor.id_to_piece(token) == text else None


def control_pieces(processor: "SentencePieceProcessor") -> dict[str, int]:
    """Text and id of a model's control and unknown pieces."""
    return {
        processor.id_to_piece(token): token
        for token in range(processor.get_piece_size())
        if processor.is_control(token) or processor.is_unknown(token)
    }


def write_model(
    pieces: Sequence[str], scores: Sequence[float], types: Sequence[int], *, add_prefix: bool
) -> bytes:
    """A SentencePiece BPE model as bytes, without normalization and with byte fallback.

    The library then merges by score exactly as the model's authors do; deriving a merge list from the
    scores instead costs seconds and is exact only while no two merges tie. Written in sentencepiece_model.proto's
    wire format: field 1 pieces (1 text, 2 score, 3 type), 2 trainer, 3 normalizer.
    """
    numbers = array("f", scores)
    if array("H", [1]).tobytes() == b"\x00\x01":
        numbers.byteswap()
    packed = numbers.tobytes()
    head = [b"\x0a" + bytes([size + 9]) + b"\x0a" + bytes([size]) for size in range(119)]
    tail = [b"\x18" + bytes([kind]) for kind in range(8)]
    out = []
    for index, (text, kind) in enumerate(zip(pieces, types, strict=True)):
        data = text.encode()
        score = packed[4 * index : 4 * index + 4]
        if len(data) < len(head):  # every length in one byte: nearly always
            out.append(head[len(data)] + data + b"\x15" + score + tail[kind])
        else:
            out.append(_field(1, _field(1, data) + b"\x15" + score + tail[kind]))
    byte_pieces = BYTE in types
    out.append(
        _field(2, b"\x18\x02" + (b"\x98\x02\x01" if byte_pieces else b""))
    )  # model_type BPE, byte_fallback
    out.append(
        _field(3, b"\x0a\x08identity" + (b"\x18\x01" if add_prefix else b"\x18\x00") + b"\x20\x00\x28\x01")
    )
    return b"".join(out)


def _field(number: int, data: bytes) -> bytes:
    """A length-delimited protobuf field."""
    size, length = len(data), bytearray()
    while size > 0x7F:
        length.append(size & 0x7F | 0x80)
        size >>= 7
    length.append(size)
    return bytes([number << 3 | 2]) + bytes(length) + data


def is_model(data: bytes) -> bool:
    """Whether bytes can be a SentencePiece model: its first field is a piece."""
    return data[:1] == b"\x0a"
