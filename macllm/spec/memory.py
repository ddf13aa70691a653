"""What a block remembers between steps, as data: from it caches are built and their bytes are known."""

from dataclasses import dataclass
from typing import TypeAlias

STATE_BYTES = 4  # of a recurrent state's value: sums over thousands of steps want float32
ID_BYTES = 4  # of a token's id
REWIND_TOKENS = 64  # that a recurrent state can always go back
KV_BITS = (8, 4)  # that keys and values may be packed in
KV_GROUP = 64  # numbers of a key or value that share a scale and a bias
KV_WIDTHS = (64, 128, 192, 256)  # of heads that are packed
NO_KV_BITS = "mlx-lm's classes run this architecture, with caches of their own; leave kv_bits (--kv-bits) out"


@dataclass(frozen=True)
class KeyValues:
    """Keys and values of every token, or of those that a window or a chunk leaves in reach."""

    heads: int
    key_dim: int
    value_dim: int
    window: int | None = None  # tokens seen, the query's own included
    chunk: int | None = None  # tokens of one's own block of so many are seen
    packable: bool = (
        False  # whether they may be held in KV_BITS: heads of KV_WIDTHS, used as they were stored
    )

    @property
    def reach(self) -> int | None:
        """The most tokens that a query sees; None: all."""
        return self.window if self.window is not None else self.chunk

    @property
    def values_per_token(self) -> int:
        return self.heads * (self.key_dim + self.value_dim)

    def nbytes_per_token(self, value_bytes: int, kv_bits: int | None = None) -> int:
        """Bytes of a token: plain, or packed in ``kv_bits`` where that may be."""
        values = self.values_per_token
        if kv_bits is None or not self.packable:
            return values * value_bytes
        return values * kv_bits // 8 + values // KV_GROUP * 2 * value_bytes

    def values(self, tokens: int) -> int:
        """Values in view at ``tokens`` tokens."""
        return self.values_per_token * min(tokens, self.reach or tokens)

    def nbytes(self, tokens: int, value_bytes: int, kv_bits: int | None = None) -> int:
        """Bytes in view at ``tokens`` tokens."""
        return self.nbytes_per_token(value_bytes, kv_bits) * min(tokens, self.reach or tokens)


@dataclass(frozen=True)
class State:
    """A state of fixed size: ``recent`` values of the last tokens in the compute type, ``sums`` in float32.

    ``logged`` are the values that a token leaves so that the state can go back (see ``macllm.nn.state_cache``).
    """

    recent: int
    sums: int
    logged: int

    def nbytes(self, value_bytes: int) -> int:
        return self.recent * value_bytes + self.sums * STATE_BYTES


@dataclass(frozen=True)
class Tokens:
    """The ids of the ``first`` tokens of a sequence: what was computed of them changes once it grows beyond."""

    first: int

    def nbytes(self, tokens: int) -> int:
        return min(tokens, self.first) * ID_BYTES


CacheSpec: TypeAlias = KeyValues | State | Tokens
