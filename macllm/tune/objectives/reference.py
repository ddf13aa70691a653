"""How likely the base finds the answers of a data set: computed once, before anything learns, and kept on disk.

By the content of an example, so that neither order, split nor batches matter to what is looked up.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from macllm import paths
from macllm.nn.decoder import Decoder
from macllm.tune import array_cache
from macllm.tune.batches import Batch, Batches, Batching, Position
from macllm.tune.examples import Example
from macllm.tune.log_probs import answer_log_probs

FORMAT = 1  # to be raised whenever the same examples get other figures
KEPT = 16  # files; the oldest go
_CONTENT = (".safetensors", ".gguf", ".json")


def folder() -> Path:
    """They can be computed again, so they lie where the system may clear them away."""
    return paths.cache_dir() / "reference"


@dataclass
class Reference:
    """The log-probabilities of answers by the base at ``base``, computed in batches as ``batching`` makes them."""

    base: Path
    batching: Batching

    def __post_init__(self) -> None:
        self._known: dict[bytes, float] = {}

    def begin(self, model: Decoder, examples: Sequence[Example]) -> Iterator[tuple[int, int]]:
        """Asks the base about the examples and yields how many it has answered, of all; knows them at the end."""
        missing = {digest_of(example.ids, example.learned): example for example in examples}
        missing = {digest: one for digest, one in missing.items() if digest not in self._known}
        if not missing:
            return
        path = folder() / f"{self._key(model, missing)}.npz"
        found = array_cache.load(path, _read)
        if found is None:
            found = {}
            for answered in self._computed(model, list(missing.values())):
                found |= answered
                yield len(found), len(missing)
            digests = np.array([np.frombuffer(digest, np.uint8) for digest in found])
            values = np.array(list(found.values()), np.float32)
            array_cache.save(path, {"format": np.array(FORMAT), "digests": digests, "values": values}, KEPT)
        self._known |= found

    def of(self, batch: Batch) -> NDArray[np.float32]:
        """Of the rows of a batch (B,), one example each."""
        return np.array([self._known[digest] for digest in digests_of(batch)], np.float32)

    def _computed(self, model: Decoder, examples: Sequence[Example]) -> Iterator[dict[bytes, float]]:
        """One batch after the other."""
        digests = [digest_of(example.ids, example.learned) for example in examples]
        for batch in Batches(examples, self.batching, Position(0)).once():
            values = np.array(answer_log_probs(model, batch, learns=False)[0])
            yield {digests[index]: float(one) for index, one in zip(batch.examples, values, strict=True)}

    def _key(self, model: Decoder, digests: dict[bytes, Example]) -> str:
        dtype = model.embed(mx.array([[0]])).dtype
        digest = hashlib.sha256(f"{FORMAT} {base_digest(self.base)} {dtype} {mx.default_device()}".encode())
        for one in sorted(digests):
            digest.update(one)
        return digest.hexdigest()


def digest_of(ids: NDArray[np.int32], learned: NDArray[np.bool_]) -> bytes:
    """Of an example's content: its ids (T,) and which are learned (T,)."""
    digest = hashlib.blake2b(np.ascontiguousarray(ids).tobytes(), digest_size=16)
    digest.update(np.packbits(learned).tobytes())
    return digest.digest()


def digests_of(batch: Batch) -> list[bytes]:
    """Of a batch's rows, one example each."""
    lengths = np.count_nonzero(batch.segments, axis=1)
    rows = zip(batch.ids, batch.learned, lengths, strict=True)
    return [digest_of(ids[:length], learned[:length]) for ids, learned, length in rows]


def base_digest(base: Path) -> str:
    """Of the content of a base's config and weights: a folder's, or a file's."""
    files = sorted(file for file in base.iterdir() if file.suffix in _CONTENT) if base.is_dir() else [base]
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as content:
            digest.update(f"{file.name} {hashlib.file_digest(content, 'sha256').hexdigest()} ".encode())
    return digest.hexdigest()


def _read(arrays: "np.lib.npyio.NpzFile") -> dict[bytes, float] | None:
    if int(arrays["format"]) != FORMAT:
        return None
    pairs = zip(arrays["digests"], arrays["values"], strict=True)
    return {digest.tobytes(): float(value) for digest, value in pairs}
