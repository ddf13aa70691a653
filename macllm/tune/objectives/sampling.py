"""Answers that a model draws itself to the prompts of a batch, and how they become rows to learn from."""

from collections.abc import Sequence, Set
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from macllm.nn.decoder import Decoder
from macllm.tune.rollout import Completion, roll_out


@dataclass(frozen=True)
class Sampling:
    """Answers end by one of ``stop_ids`` or after ``max_completion_length`` tokens; the run's ``seed`` draws them.

    ``context``: tokens that the model has for prompt and answer.
    """

    stop_ids: Set[int]
    max_completion_length: int
    temperature: float
    seed: int
    context: int

    def refuses(self, prompt: int) -> str | None:
        """Why a prompt of so many tokens cannot be answered; None: it can."""
        if prompt < self.context:
            return None
        return f"the prompt has {prompt} tokens, and a context of {self.context} leaves none to answer; shorten the row"

    def draw(
        self, model: Decoder, prompts: Sequence[NDArray[np.int32]], chance: int, copies: int = 1
    ) -> tuple[Completion, ...]:
        """``copies`` answers to each prompt (P,), by ``chance`` alone, and none beyond the model's context."""
        limit = min(self.max_completion_length, self.context - max(map(len, prompts)))
        return roll_out(
            model,
            prompts,
            self.stop_ids,
            limit,
            copies=copies,
            temperature=self.temperature,
            seed=chance,
        )


def laid_out(prompts: Sequence[NDArray[np.int32]], completions: Sequence[Completion]) -> dict[str, Any]:
    """The arrays (B, L) of a batch whose rows are a prompt and its completion, which is learned; padding behind."""
    width = max(len(prompt) + len(one) for prompt, one in zip(prompts, completions, strict=True))
    shape = (len(prompts), width)
    ids, segments, positions = (np.zeros(shape, np.int32) for _ in range(3))
    learned = np.zeros(shape, np.bool_)
    for row, (prompt, one) in enumerate(zip(prompts, completions, strict=True)):
        end = len(prompt) + len(one)
        ids[row, :end] = np.concatenate([prompt, one.ids])
        segments[row, :end], positions[row, :end] = 1, np.arange(end)
        learned[row, len(prompt) : end] = True
    return {"ids": ids, "learned": learned, "segments": segments, "positions": positions}
