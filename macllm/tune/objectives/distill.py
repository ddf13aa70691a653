"""Knowledge distillation: a student learns a teacher's distribution over every token, of given answers or its own.

On its own answers a student learns where it goes wrong itself (GKD, arXiv 2306.13649).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import mlx.core as mx
import numpy as np

from macllm.engine.loading import stop_ids
from macllm.errors import OptionError
from macllm.nn.decoder import Decoder
from macllm.spec import ModelSpec
from macllm.tune.batches import Batch, Batching
from macllm.tune.examples import Example
from macllm.tune.forward import learned_states
from macllm.tune.loss import RowLoss, row_losses
from macllm.tune.memory import Beside
from macllm.tune.objective import Objective
from macllm.tune.objectives.divergence import FromLikeliest, FromTeacher, Measure
from macllm.tune.objectives.sampling import Sampling, laid_out
from macllm.tune.objectives.teacher import KeptTeacher, Teacher
from macllm.tune.settings import DIVERGENCES, Value
from macllm.weights.model_files import open_model

_STREAM = 0xD157  # of the seed: what is drawn must not follow from the order of the rows


class Distill(Objective):
    """The mean divergence from a teacher over the tokens of answers."""

    packs: ClassVar[bool] = False

    def __init__(
        self,
        measure: Measure,
        teacher: Teacher,
        vocab: int,
        *,
        on_policy: float = 0.0,
        sampling: Sampling | None = None,
        kept: KeptTeacher | None = None,
    ) -> None:
        """``vocab``: tokens that both have. ``on_policy``: the share of batches whose answers the student draws, by
        ``sampling``. ``kept`` stands for the teacher where there is no such batch."""
        self._measure, self._teacher, self._vocab = measure, teacher, vocab
        self._on_policy, self._sampling, self._kept = on_policy, sampling, kept

    def refuses(self, example: Example) -> str | None:
        if not example.learned.any() and self._on_policy < 1:
            return "there is no answer to learn the teacher's distribution on; add one, or set on_policy=1"
        return self._sampling.refuses(example.prompt) if self._sampling is not None else None

    def beside(self) -> Beside:
        return Beside(self._teacher.size(), stays=self._kept is None)

    def begin(self, model: Decoder, examples: Sequence[Example]) -> Iterator[tuple[int, int]]:
        """As :meth:`Objective.begin`: what is kept of the teacher, or the teacher itself."""
        if self._kept is not None:
            yield from self._kept.begin(examples)
        else:
            self._teacher.model()

    def ready(self, model: Decoder, batch: Batch, step: int | None) -> Batch:
        """The batch, or its prompts with answers of the student's own; to look at, only where it has none."""
        if self._sampling is None:
            return batch
        chance = np.random.PCG64(
            [self._sampling.seed, _STREAM, 0 if step is None else step + 1, *batch.examples]
        )
        answered = bool(batch.learned.any(axis=1).all())
        own = not answered if step is None else chance.random_raw() / 2**64 < self._on_policy
        if not own:
            return batch
        prompts = [
            ids[: int(learned.argmax()) if learned.any() else int(np.count_nonzero(segments))]
            for ids, learned, segments in zip(batch.ids, batch.learned, batch.segments, strict=True)
        ]
        completions = self._sampling.draw(model, prompts, int(chance.random_raw()))
        return replace(batch, **laid_out(prompts, completions))

    def loss(
        self, model: Decoder, batch: Batch, *, checkpoint: bool = False, learns: bool = True
    ) -> tuple[mx.array, int]:
        states, _ = learned_states(model, batch, checkpoint=checkpoint)
        if not states.shape[0]:
            return mx.array(0.0), 0
        rule: RowLoss
        if self._kept is not None:
            ids, values = self._kept.of(batch)
            told: tuple[mx.array, ...] = (mx.array(ids), mx.array(values))
            rule = FromLikeliest(self._measure, self._vocab)
        else:
            teacher = self._teacher.model()
            told = (mx.stop_gradient(learned_states(teacher, batch)[0]),)
            rule = FromTeacher(self._measure, teacher, self._vocab)
        losses = row_losses(model, states, told, rule, learns=learns)
        return losses.sum(), losses.size


def distill_of(settings: Mapping[str, Value], spec: ModelSpec, base: Path) -> Distill:
    """As settings say, for the student at ``base``. Raises OptionError for settings that do not go together."""
    name = settings.get("teacher")
    if name is None:
        raise OptionError("teacher is not set (expected the name or path of the model to learn from)")
    on_policy, count = float(settings["on_policy"]), settings.get("teacher_top_k")
    if on_policy and count is not None:
        raise OptionError(
            f"teacher_top_k={count} keeps what the teacher says of the rows' answers, and with on_policy={on_policy:g}"
            " there are always others; leave one of them out"
        )
    files = open_model(base)
    tokenizer = files.tokenizer()
    temperature = float(settings["temperature"])
    kind = next(one for one in DIVERGENCES if one == settings["divergence"])
    measure = Measure(kind, temperature, float(settings["mixing"]))
    teacher = Teacher(str(name), tokenizer)
    vocab = min(spec.vocab, teacher.spec.vocab)
    sampling, kept = None, None
    if on_policy:
        most = int(settings["max_completion_length"])
        sampling = Sampling(
            stop_ids(files, tokenizer), most, temperature, int(settings["seed"]), spec.max_context
        )
    if count is not None:
        if int(count) >= vocab:
            raise OptionError(
                f"teacher_top_k={count} is not below the {vocab} tokens there are; leave it out"
            )
        batching = Batching(int(settings["batch_size"]), int(settings["max_seq_length"]))
        kept = KeptTeacher(teacher, int(count), temperature, vocab, batching)
    return Distill(measure, teacher, vocab, on_policy=on_policy, sampling=sampling, kept=kept)
