"""A GGUF file's statements about its model, read strictly: a key that nobody understood is refused by name."""

import math
from collections.abc import Mapping
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from macllm.errors import ConfigError

Config: TypeAlias = dict[str, Any]

# Keys below "<arch>." that say nothing about the maths, or repeat what tensors say.
_HARMLESS = {"vocab_size", "rope.scaling.finetuned", "tensor_data_layout", "pooling_type"}


class Tensor(Protocol):
    """What has to be known of a stored tensor: its row-major shape, and for some small ones the values."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def type_name(self) -> str: ...

    def data(self) -> npt.NDArray[np.uint8]: ...


class Header:
    """The keys of one architecture and the tensors. Remembers what was read, so that the rest can be refused."""

    def __init__(
        self, metadata: Mapping[str, Any], tensors: Mapping[str, Tensor], architecture: str, where: str
    ) -> None:
        self.tensors = tensors
        self.architecture = architecture
        self._metadata = metadata
        self._prefix = f"{architecture}."
        self._read: set[str] = set()
        self._where = where

    def get(self, key: str) -> Any:
        """The value, or None. A list with one entry a layer counts as its value where all are the same."""
        self._read.add(key)
        value = self._metadata.get(self._prefix + key)
        if isinstance(value, np.ndarray) and value.size and (value == value[0]).all():
            value = value[0].item()
        return value

    def integer(self, key: str, default: int | None = None, *, low: int = 1) -> int:
        value = self.get(key)
        value = default if value is None else value
        if value is None:
            raise self._missing(key)
        if isinstance(value, bool) or not isinstance(value, int) or value < low:
            raise self.wrong(key, value, f"a whole number of at least {low}, the same for all layers")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        value = self.get(key)
        if value is None:
            if default is None:
                raise self._missing(key)
            return default
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
            raise self.wrong(key, value, "a number above 0")
        return shortest(value)

    def flag(self, key: str, default: bool) -> bool:
        value = self.get(key)
        value = default if value is None else value
        if not isinstance(value, bool):
            raise self.wrong(key, value, "true or false")
        return value

    def only(self, key: str, *expected: Any) -> None:
        """A key that may be missing but not have another value."""
        value = self.get(key)
        value = shortest(value) if isinstance(value, float) else value
        if value is not None and value not in expected:
            raise self.wrong(key, value, " or ".join(map(repr, expected)))

    def layers(self, key: str, count: int, *, low: int = 0) -> list[int] | None:
        """Whole numbers, one a layer; a single one counts for all. None where the key is missing.

        What is there for layers that predict further tokens is left out.
        """
        value = self.get(key)
        if value is None:
            return None
        values = value.tolist()[:count] if isinstance(value, np.ndarray) else [value] * count
        if len(values) != count or not all(isinstance(each, int) and each >= low for each in values):
            raise self.wrong(key, value, f"{count} whole numbers of at least {low}, one a layer")
        return values

    def flags(self, key: str, count: int) -> list[bool] | None:
        """True or false, one a layer; a single one counts for all. None where the key is missing."""
        value = self.get(key)
        if value is None:
            return None
        values = value.tolist()[:count] if isinstance(value, np.ndarray) else [value] * count
        if len(values) != count or not all(isinstance(each, bool) for each in values):
            raise self.wrong(key, value, f"{count} times true or false, one a layer")
        return values

    def optional(self, key: str, name: str) -> Config:
        """A number under its name in the config, nothing where it is missing or 0, which switches nothing on."""
        return {name: self.number(key)} if self.get(key) else {}

    def wrong(self, key: str, value: Any, expected: str) -> ConfigError:
        value = value.tolist() if isinstance(value, np.ndarray) else value
        return ConfigError(
            f"{self._where}: {self._prefix}{key}={value!r} is not supported (expected {expected}); "
            "use the model's MLX or safetensors version"
        )

    def refuse_unread(self) -> None:
        """Raises ConfigError for a key of this architecture that nobody read and that is not 0 or false."""
        for name, value in self._metadata.items():
            key = name.removeprefix(self._prefix)
            if name == key or key in self._read or key in _HARMLESS:
                continue
            if bool(np.any(value)) if isinstance(value, np.ndarray) else value:
                raise self.wrong(key, value, "no such key")

    def factors(self, name: str, count: int) -> list[float] | None:
        """The values of a small tensor of factors above 0; None where it is missing."""
        table = self.tensors.get(name)
        if table is None:
            return None
        if table.type_name != "F32" or table.shape != (count,):
            raise self.damaged(f"tensor {name!r} is {table.type_name} {table.shape}, not F32 ({count},)")
        values = table.data().view("<f4").reshape(-1)
        if not (np.isfinite(values) & (values > 0)).all():
            raise self.damaged(f"tensor {name!r} holds factors that are not above 0")
        return [shortest(value) for value in values]

    def damaged(self, what: str) -> ConfigError:
        return ConfigError(f"{self._where}: {what}; download a current conversion of the model")

    def _missing(self, key: str) -> ConfigError:
        return self.damaged(f"{self._prefix}{key} is missing")


def shortest(value: float) -> float:
    """A float32 as the decimal that was meant: 9.99999974e-06 is 1e-05."""
    return float(str(np.float32(value)))
