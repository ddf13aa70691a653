"""GRPO with verifiable rewards: each prompt is answered several times, and the better answers are learned."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from macllm.engine.loading import stop_ids
from macllm.errors import OptionError
from macllm.nn.beside import without_adapters
from macllm.nn.decoder import Decoder
from macllm.tokenizer import Tokenizer
from macllm.tune.batches import Batch
from macllm.tune.examples import Example
from macllm.tune.forward import learned_states
from macllm.tune.loss import token_losses
from macllm.tune.objective import Objective
from macllm.tune.objectives.kinds import KINDS
from macllm.tune.objectives.policy import Clip, advantages, kl, policy_losses, token_weights
from macllm.tune.objectives.sampling import Sampling, laid_out
from macllm.tune.rewards.reward import RawRow
from macllm.tune.rewards.weighted import Judged, WeightedRewards, rewards_of
from macllm.tune.rollout import Completion
from macllm.tune.settings import LOSS_TYPES, SCALE_REWARDS, LossType, ScaleRewards, Value
from macllm.tune.trained import number
from macllm.weights.model_files import open_model

_STREAM = 0x6290  # of the seed: what is drawn must not follow from the order of the rows


@dataclass(frozen=True)
class PolicySettings:
    """What becomes of rewards. ``beta`` weighs the KL to the model without its adapters."""

    clip: Clip
    beta: float
    loss_type: LossType
    scale_rewards: ScaleRewards
    mask_truncated: bool


@dataclass(frozen=True, eq=False, kw_only=True)
class RolledOut(Batch):
    """Rows of a prompt and a completion, of which the completion is learned.

    ``old`` (B, L): log p of each learned token where it was drawn; ``reference`` the same of the model without
    adapters. ``advantages`` and ``rewards`` (B,). ``figures``: sums and counts by TRL's names.
    """

    old: NDArray[np.float32]
    reference: NDArray[np.float32] | None
    advantages: NDArray[np.float32]
    rewards: NDArray[np.float64]
    figures: Mapping[str, tuple[float, int]]


class GRPO(Objective):
    """Group relative policy optimization (arXiv 2402.03300), on policy: what is learned from was drawn just before."""

    packs: ClassVar[bool] = False
    watched: ClassVar[bool] = False  # its loss is about zero however well it goes

    def __init__(
        self,
        rewards: WeightedRewards,
        tokenizer: Tokenizer,
        sampling: Sampling,
        num_generations: int,
        policy: PolicySettings,
    ) -> None:
        self._rewards = rewards
        self._tokenizer = tokenizer
        self._sampling = sampling
        self._generations = num_generations
        self._policy = policy

    def refuses(self, example: Example) -> str | None:
        return self._sampling.refuses(len(example)) or self._rewards.missing(json.loads(example.raw))

    def ready(self, model: Decoder, batch: Batch, step: int | None) -> RolledOut:
        """Completions of the batch's prompts, judged. To look at (``step`` None), one for each prompt."""
        sampling = self._sampling
        count = 1 if step is None else self._generations
        prompts = [
            ids[: int(np.count_nonzero(segments))]
            for ids, segments in zip(batch.ids, batch.segments, strict=True)
        ]
        repeated = [prompt for prompt in prompts for _ in range(count)]
        chance = np.random.PCG64([sampling.seed, _STREAM, 0 if step is None else step + 1, *batch.examples])
        completions = sampling.draw(model, prompts, int(chance.random_raw()), count)
        rows = [row for row in batch.raw for _ in range(count)]
        each = self._rewards.each(
            [self._judged(row, one) for row, one in zip(rows, completions, strict=True)]
        )
        total = np.array(self._rewards.total(each), dtype=np.float64)
        made = self._laid_out(batch, repeated, completions, total, count)
        reference = self._reference(model, made) if self._policy.beta and step is not None else None
        figures = figures_of(made, reference, completions, each, count)
        return replace(made, reference=reference, figures=figures)

    def ready_step(self, model: Decoder, batches: Sequence[Batch], step: int) -> Sequence[Batch]:
        """The micro-batches, each :meth:`ready`, with rewards over the deviation of all of them where that is asked."""
        made = [self.ready(model, batch, step) for batch in batches]
        if self._policy.scale_rewards != "batch":
            return made
        rewards = np.concatenate([one.rewards for one in made]).reshape(-1, self._generations)
        whole = advantages(rewards, "batch").reshape(-1)
        ends = np.cumsum([len(one.rewards) for one in made])[:-1]
        return [replace(one, advantages=own) for one, own in zip(made, np.split(whole, ends), strict=True)]

    def loss(
        self, model: Decoder, batch: Batch, *, checkpoint: bool = False, learns: bool = True
    ) -> tuple[mx.array, int]:
        """Of what was rolled out: the loss; to look at, the rewards with their sign changed, so that less is better."""
        assert isinstance(batch, RolledOut)
        if not learns:
            return mx.array(-batch.rewards.sum(), mx.float32), len(batch.rewards)
        policy = self._policy
        mask = batch.learned[:, 1:]
        weights, count = token_weights(
            mask.sum(axis=1), policy.loss_type, self._sampling.max_completion_length
        )
        if not mask.any():
            return mx.array(0.0), count
        log_probs, owners = self._log_probs(model, batch, checkpoint=checkpoint, learns=True)
        losses = policy_losses(
            log_probs,
            mx.array(batch.old[:, 1:][mask]),
            mx.array(batch.advantages[owners]),
            policy.clip,
            None if batch.reference is None else mx.array(batch.reference[:, 1:][mask]),
            policy.beta,
        )
        return (losses * mx.array(weights[owners])).sum(), count

    def told(self, batch: Batch) -> Mapping[str, tuple[float, int]]:
        assert isinstance(batch, RolledOut)
        return batch.figures

    def figures(self, model: Decoder, batch: Batch) -> Mapping[str, tuple[float, int]]:
        return {f"eval_{name}": figure for name, figure in self.told(batch).items()}

    def _judged(self, row: str, completion: Completion) -> Judged:
        told = json.loads(row)
        ids = completion.ids[:-1] if completion.ended else completion.ids
        return Judged(_prompt_text(told), self._tokenizer.decode(ids.tolist()), told)

    def _laid_out(
        self,
        batch: Batch,
        prompts: Sequence[NDArray[np.int32]],
        completions: Sequence[Completion],
        rewards: NDArray[np.float64],
        count: int,
    ) -> RolledOut:
        """``count`` completions for each prompt of a batch as rows of their own."""
        arrays = laid_out(prompts, completions)
        old = np.zeros(arrays["ids"].shape, np.float32)
        for row, (prompt, one) in enumerate(zip(prompts, completions, strict=True)):
            old[row, len(prompt) : len(prompt) + len(one)] = one.log_probs
        if self._policy.mask_truncated:
            arrays["learned"][[not one.ended for one in completions]] = False
        return RolledOut(
            **arrays,
            examples=tuple(index for index in batch.examples for _ in range(count)),
            after=batch.after,
            old=old,
            reference=None,
            advantages=advantages(rewards.reshape(-1, count), self._policy.scale_rewards).reshape(-1),
            rewards=rewards,
            figures={},
        )

    def _log_probs(
        self, model: Decoder, batch: Batch, *, checkpoint: bool, learns: bool
    ) -> tuple[mx.array, NDArray[np.int64]]:
        """log p (N,) of the learned tokens, in the order of rows, and which row each is of (N,)."""
        states, owners = learned_states(model, batch, checkpoint=checkpoint)
        ids = mx.array(batch.ids[:, 1:][batch.learned[:, 1:]])
        return -token_losses(
            model, states, ids, learns=learns, temperature=self._sampling.temperature
        ), owners

    def _reference(self, model: Decoder, batch: Batch) -> NDArray[np.float32]:
        found = np.zeros(batch.ids.shape, np.float32)
        if batch.learned.any():
            with without_adapters(model):
                log_probs, _ = self._log_probs(model, batch, checkpoint=False, learns=False)
            found[batch.learned] = np.array(log_probs)
        return found


def figures_of(
    batch: RolledOut,
    reference: NDArray[np.float32] | None,
    completions: Sequence[Completion],
    each: Mapping[str, Sequence[float]],
    count: int,
) -> dict[str, tuple[float, int]]:
    """Sums and counts under TRL's names, of ``count`` completions for each prompt."""
    rows, groups = len(completions), batch.rewards.reshape(-1, count)
    found = {
        "reward": (float(batch.rewards.sum()), rows),
        "completions/mean_length": (float(sum(map(len, completions))), rows),
        "completions/clipped_ratio": (float(sum(not one.ended for one in completions)), rows),
    }
    found |= {f"rewards/{name}/mean": (float(sum(values)), rows) for name, values in each.items()}
    if count > 1:
        found["reward_std"] = float(groups.std(axis=1, ddof=1).sum()), len(groups)
        found["frac_reward_zero_std"] = float((np.ptp(groups, axis=1) == 0).sum()), len(groups)
    if reference is not None:
        mask = batch.learned
        apart = kl(mx.array(batch.old[mask]), mx.array(reference[mask]))
        found["kl"] = number(apart.sum()), int(mask.sum())
    return found


def _prompt_text(row: RawRow) -> str:
    """The row's prompt as text: of messages, what the last one says."""
    prompt = row.get("prompt")
    if isinstance(prompt, list) and prompt:
        prompt = prompt[-1].get("content")
    return prompt if isinstance(prompt, str) else ""


def grpo_of(settings: Mapping[str, Value], base: Path) -> GRPO:
    """As settings say, for the model at ``base``. Raises OptionError for a reward that there is none of."""
    beta = float(settings.get("beta", KINDS["grpo"].beta))
    if beta and settings["method"] == "full":
        raise OptionError(
            f"beta={beta:g} holds what learns against the model without its adapters, which method=full has not;"
            " leave it out, or take a method that adds an adapter (lora)"
        )
    rewards = rewards_of(str(settings.get("reward", "")))
    epsilon = float(settings["epsilon"])
    files = open_model(base)
    tokenizer = files.tokenizer()
    return GRPO(
        rewards,
        tokenizer,
        Sampling(
            stop_ids(files, tokenizer),
            int(settings["max_completion_length"]),
            float(settings["temperature"]),
            int(settings["seed"]),
            files.spec.max_context,
        ),
        int(settings["num_generations"]),
        PolicySettings(
            Clip(epsilon, float(settings.get("epsilon_high", epsilon))),
            beta,
            next(one for one in LOSS_TYPES if one == settings["loss_type"]),
            next(one for one in SCALE_REWARDS if one == settings["scale_rewards"]),
            bool(settings["mask_truncated_completions"]),
        ),
    )
