"""A trained reward model in use: conversations in, one number each out, as the objective has learned it."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from macllm.adapters import files, full
from macllm.adapters.folder import read_config
from macllm.engine.loading import load_model
from macllm.errors import InputError, MacllmError
from macllm.nn.decoder import Decoder
from macllm.nn.scalar_head import NAME
from macllm.tokenizer import Tokenizer
from macllm.tokenizer.messages import Message, to_messages
from macllm.tune.batches import Batch, Position, collate
from macllm.tune.examples import Example, ExampleSettings, examples_of
from macllm.tune.objectives.reward import read_head, rewards
from macllm.tune.schema import Row, teaches
from macllm.tune.settings import DEFAULTS

Conversation: TypeAlias = Sequence[Message | Mapping[str, Any]]


class RewardModel:
    """Scores what an assistant says last."""

    def __init__(self, model: Decoder, tokenizer: Tokenizer, max_seq_length: int) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._settings = ExampleSettings(max_seq_length, "last", datetime.now().isoformat(timespec="seconds"))

    @classmethod
    def load(cls, base: Path, folder: Path, *, dtype: str | None = None) -> "RewardModel":
        """The base with what a run with objective reward has left in ``folder``.

        Raises ConfigError and CheckpointError where they do not go together, else as
        :func:`macllm.engine.loading.load_model`.
        """
        loaded = load_model(base, dtype=dtype)
        if not isinstance(loaded.model, Decoder):
            raise MacllmError(f"{base}: only models of macllm's own families can have learned rewards")
        model, config = loaded.model, read_config(folder)
        head = read_head(folder, model.spec.dim)
        if config.get("fine_tune_type") == "full":
            full.apply_full(model, folder)
        else:
            files.apply(model, files.read(folder, model.spec))
        model[NAME] = head
        model.eval()
        longest = int(config.get("max_seq_length", DEFAULTS["max_seq_length"]))
        return cls(model, loaded.require_tokenizer(), longest)

    def score(self, conversations: Sequence[Conversation]) -> list[float]:
        """A number for each, by its last message, which is the assistant's.

        Only differences between answers to one prompt mean something. Raises InputError for a conversation that
        ends otherwise, or that is too long to be seen whole.
        """
        return [self._one(self._example(index, one)) for index, one in enumerate(conversations)]

    def _one(self, example: Example) -> float:
        return float(np.array(rewards(self._model, _alone(example)), np.float64)[0])

    def _example(self, index: int, conversation: Conversation) -> Example:
        """As the rows of a data set were read, so that the number is of the same ids."""
        messages = to_messages(conversation)
        if not messages or not teaches(messages[-1]):
            raise InputError(f"conversations[{index}]: it does not end with an answer of the assistant")
        row = Row("labelled", tuple(messages[:-1]), (messages[-1],), label=True)
        (example,) = examples_of(row, f"conversations[{index}]", self._tokenizer, self._settings)
        if example.truncated:
            raise InputError(
                f"conversations[{index}]: it is longer than the {self._settings.max_seq_length} tokens that this"
                " model has learned to judge; shorten it"
            )
        return example


def _alone(example: Example) -> Batch:
    return collate([example], [(0,)], lambda length: length, Position(0))
