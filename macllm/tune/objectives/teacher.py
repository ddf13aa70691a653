"""What a student learns from: a larger model with the same tokens, or what was kept of its distributions on disk."""

import hashlib
from collections.abc import Iterator, Sequence

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from macllm import paths
from macllm.engine.loading import load_model
from macllm.errors import ConfigError, OptionError
from macllm.hub.pull import find
from macllm.nn.decoder import Decoder
from macllm.tokenizer import Tokenizer
from macllm.tune import array_cache
from macllm.tune.batches import Batch, Batches, Batching, Position
from macllm.tune.examples import Example
from macllm.tune.forward import learned_states
from macllm.tune.memory import Base, read_base
from macllm.tune.objectives.divergence import likeliest, log_probs
from macllm.tune.objectives.reference import base_digest, digest_of
from macllm.weights.model_files import open_model

FORMAT = 1  # to be raised whenever the same examples get other figures
KEPT = 4  # files, which are large; the oldest go
_ROWS = 64  # whose logits are there at once

Likeliest = tuple[NDArray[np.int32], NDArray[np.float32]]  # ids (n, k), log p (n, k + 1)


class Teacher:
    """The model of a name or path, loaded when it is asked for first."""

    def __init__(self, name: str, student: Tokenizer) -> None:
        """Raises OptionError where its tokens are not the student's, and as :func:`macllm.hub.pull.find`."""
        self.name = name
        self.path = find(name).path
        self._model: Decoder | None = None
        files = open_model(self.path)
        refuse_other_tokens(name, files.tokenizer(), student)
        self.spec = files.spec

    def size(self) -> Base:
        """What it is as far as memory goes. Raises ConfigError where it cannot be read."""
        return Base(read_base(self.path).weight_bytes, self.spec)

    def model(self) -> Decoder:
        """Raises ConfigError for a model of no family of macllm's own, and as loading does."""
        if self._model is None:
            loaded = load_model(self.path)
            if not isinstance(loaded.model, Decoder):
                raise ConfigError(
                    f"teacher={self.name!r} is run by mlx-lm's own class; choose a model of another family"
                )
            self._model = loaded.model
            self._model.freeze()
            self._model.eval()
        return self._model

    def forget(self) -> None:
        """Gives its memory back."""
        self._model = None


class KeptTeacher:
    """The ``count`` likeliest tokens of a teacher for all learned tokens, computed once and kept on disk."""

    def __init__(
        self, teacher: Teacher, count: int, temperature: float, vocab: int, batching: Batching
    ) -> None:
        self._teacher, self._count = teacher, count
        self._temperature, self._vocab, self._batching = temperature, vocab, batching
        self._known: dict[bytes, Likeliest] = {}

    def begin(self, examples: Sequence[Example]) -> Iterator[tuple[int, int]]:
        """Asks the teacher about the examples and yields how many it has answered, of all; knows them at the end.

        The teacher is loaded only where they are new, and given back.
        """
        unique = {digest_of(example.ids, example.learned): example for example in examples}
        path = paths.cache_dir() / "teacher" / f"{self._key(list(unique))}.npz"
        found = array_cache.load(path, lambda arrays: _read(arrays, unique))
        if found is None:
            found = {}
            for answered in self._computed(list(unique.values())):
                found |= answered
                yield len(found), len(unique)
            self._teacher.forget()
            rows = [found[digest] for digest in sorted(found)]
            arrays = {
                "format": np.array(FORMAT),
                "ids": np.concatenate([ids for ids, _ in rows]),
                "log_probs": np.concatenate([values for _, values in rows]),
            }
            array_cache.save(path, arrays, KEPT)
        self._known = found

    def of(self, batch: Batch) -> Likeliest:
        """Of the learned tokens of a batch's rows, one example each, in order: ids (N, k) and log p (N, k + 1)."""
        lengths = np.count_nonzero(batch.segments, axis=1)
        rows = zip(batch.ids, batch.learned, lengths, strict=True)
        found = [self._known[digest_of(ids[:length], learned[:length])] for ids, learned, length in rows]
        return np.concatenate([ids for ids, _ in found]), np.concatenate([values for _, values in found])

    def _computed(self, examples: Sequence[Example]) -> Iterator[dict[bytes, Likeliest]]:
        """One batch after the other."""
        for batch in Batches(examples, self._batching, Position(0)).once():
            found: dict[bytes, Likeliest] = {}
            states, owners = learned_states(self._teacher.model(), batch)
            ids, values = self._likeliest(states)
            for row, index in enumerate(batch.examples):
                own, mine = examples[index], owners == row
                found[digest_of(own.ids, own.learned)] = ids[mine], values[mine]
            yield found

    def _likeliest(self, states: mx.array) -> Likeliest:
        ids, values = [], []
        for start in range(0, states.shape[0], _ROWS):
            logits = self._teacher.model().logits(states[start : start + _ROWS])[:, : self._vocab]
            one, value = likeliest(log_probs(logits, self._temperature), self._count)
            ids.append(np.array(one))
            values.append(np.array(value))
        return np.concatenate(ids), np.concatenate(values)

    def _key(self, digests: Sequence[bytes]) -> str:
        told = f"{FORMAT} {base_digest(self._teacher.path)} {self._count} {self._temperature} {self._vocab}"
        digest = hashlib.sha256(f"{told} {mx.default_device()}".encode())
        for one in sorted(digests):
            digest.update(one)
        return digest.hexdigest()


def refuse_other_tokens(name: str, teacher: Tokenizer, student: Tokenizer) -> None:
    """Raises OptionError where an id means something else to the teacher: its distribution says nothing then."""
    if teacher.vocab_size != student.vocab_size:
        why = f"it has {teacher.vocab_size} tokens, and the model that learns {student.vocab_size}"
    else:
        ids = range(student.vocab_size)
        other = next((one for one in ids if teacher.token_bytes(one) != student.token_bytes(one)), None)
        if other is None:
            return
        theirs, own = teacher.token_text(other), student.token_text(other)
        why = f"its token {other} is {theirs!r}, and that of the model that learns {own!r}"
    raise OptionError(f"teacher={name!r} has another vocabulary: {why}; choose a teacher of the same family")


def _read(arrays: "np.lib.npyio.NpzFile", examples: dict[bytes, Example]) -> dict[bytes, Likeliest] | None:
    if int(arrays["format"]) != FORMAT:
        return None
    ids, values, at, found = arrays["ids"], arrays["log_probs"], 0, dict[bytes, Likeliest]()
    for digest in sorted(examples):
        end = at + examples[digest].supervised
        found[digest] = ids[at:end], values[at:end]
        at = end
    return found if at == len(ids) == len(values) else None
