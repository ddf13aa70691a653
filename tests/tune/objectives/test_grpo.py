"""GRPO: each piece is its formula, nothing moves where a group is alike, and what is rewarded comes more often."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from mlx import optimizers
from random_models import random_model
from templated import templated

from macllm.adapters.method import Method
from macllm.errors import OptionError
from macllm.nn.adapted import adapters
from macllm.nn.decoder import Decoder
from macllm.tune.batches import Batch, Position, collate
from macllm.tune.dataset import prepare
from macllm.tune.examples import Example, ExampleSettings
from macllm.tune.methods import attach
from macllm.tune.objective import Objective
from macllm.tune.objectives.balanced import Balanced
from macllm.tune.objectives.grpo import GRPO, PolicySettings, RolledOut, grpo_of
from macllm.tune.objectives.kinds import refuse_rows
from macllm.tune.objectives.policy import Clip, advantages, kl, policy_losses, token_weights
from macllm.tune.objectives.sampling import Sampling
from macllm.tune.rewards.reward import RawRow, Reward
from macllm.tune.rewards.weighted import WeightedRewards
from macllm.tune.settings import checked
from macllm.tune.step import summed_gradients
from macllm.tune.trained import flat, put

RNG = np.random.default_rng(0)
POLICY = PolicySettings(Clip(0.2, 0.2), 0.0, "dapo", "group", False)
TOKENIZER = templated("chatml")


class Share(Reward):
    """The share of characters that are in ``row["wanted"]``."""

    def missing(self, row: RawRow) -> str | None:
        return None if "wanted" in row else "'wanted' is missing"

    def __call__(self, prompt: str, completion: str, row: RawRow) -> float:
        return sum(one in row["wanted"] for one in completion) / max(1, len(completion))


class Alike(Share):
    def __call__(self, prompt: str, completion: str, row: RawRow) -> float:
        return 0.3


def objective(
    reward: Reward | None = None,
    generations: int = 4,
    most: int = 10,
    seed: int = 0,
    context: int = 512,
    **policy: Any,
) -> GRPO:
    rewards = WeightedRewards({"share": (reward or Share(), 1.0)})
    sampling = Sampling(TOKENIZER.stop_ids, most, 1.0, seed, context)
    return GRPO(rewards, TOKENIZER, sampling, generations, replace(POLICY, **policy))


def model_of(variant: str = "qwen3", targets: str = "all") -> Decoder:
    model = random_model(variant, vocab_size=TOKENIZER.vocab_size)
    attach(model, model.spec, Method(rank=3, scale=4.0, targets=(targets,)), seed=1)
    model.eval()
    return model


def batch_of(*prompts: str, wanted: str = "aeiou", wider: int = 0) -> Batch:
    examples = []
    for prompt in prompts:
        ids = np.array(TOKENIZER.encode_chat(prompt), np.int32)
        raw = json.dumps({"prompt": prompt, "wanted": wanted})
        examples.append(Example(ids, np.zeros(len(ids), bool), "a.jsonl:1", raw=raw))
    return collate(examples, [(index,) for index in range(len(examples))], lambda n: n + wider, Position(0))


def moved(model: Decoder, size: float = 0.05) -> None:
    """Away from what was drawn from."""
    keys = mx.random.split(mx.random.key(3), len(flat(model)))
    put(
        model,
        {
            path: one + size * mx.random.normal(one.shape, key=key)
            for key, (path, one) in zip(keys, flat(model).items(), strict=True)
        },
    )


def gradients(
    model: Decoder, made: Objective, batch: Batch, **options: bool
) -> tuple[float, dict[str, mx.array]]:
    total, count, found = summed_gradients(model, [batch], lambda one: made.loss(model, one, **options))
    return total / count, {path: one / count for path, one in found.items()}


# -- formulas ----------------------------------------------------------------------------------------------


def test_advantages_are_the_papers_and_dr_grpos() -> None:
    rewards = RNG.normal(size=(5, 4))
    rewards[2] = 0.1 + 0.2
    mean = rewards.mean(1, keepdims=True)
    own = rewards.std(1, ddof=1, keepdims=True)
    np.testing.assert_allclose(advantages(rewards, "group"), (rewards - mean) / (own + 1e-4), atol=1e-6)
    whole = rewards.std(ddof=1)
    np.testing.assert_allclose(advantages(rewards, "batch"), (rewards - mean) / (whole + 1e-4), atol=1e-6)
    np.testing.assert_allclose(advantages(rewards, "none"), rewards - mean, atol=1e-6)
    assert all(not advantages(rewards, scale)[2].any() for scale in ("group", "batch", "none"))


@pytest.mark.parametrize(("low", "high", "beta"), [(0.2, 0.2, 0.0), (0.1, 0.3, 0.0), (0.2, 0.28, 0.04)])
def test_the_loss_is_numpys_formula(low: float, high: float, beta: float) -> None:
    now, old, base = (RNG.uniform(-3, 0, 200) for _ in range(3))
    advantage = RNG.normal(size=200)
    ratio = np.exp(now - old)
    expected = -np.minimum(ratio * advantage, np.clip(ratio, 1 - low, 1 + high) * advantage)
    expected = expected + beta * (np.exp(base - now) - (base - now) - 1)
    given = [mx.array(one.astype(np.float32)) for one in (now, old, advantage)]
    reference = mx.array(base.astype(np.float32)) if beta else None
    np.testing.assert_allclose(
        policy_losses(*given, Clip(low, high), reference, beta), expected, rtol=2e-5, atol=1e-6
    )
    assert kl(given[0], given[1]).min().item() >= 0 and kl(given[0], given[0]).max().item() == 0


def test_what_tokens_weigh() -> None:
    lengths = np.array([2, 8, 0])
    for loss_type, expected, count in (
        ("dapo", [1, 1, 1], 10),
        ("grpo", [1 / 2, 1 / 8, 1], 3),
        ("dr_grpo", [1 / 16] * 3, 3),
    ):
        weights, divisor = token_weights(lengths, loss_type, 16)
        np.testing.assert_allclose(weights, expected)
        assert divisor == count
    assert token_weights(np.array([0]), "dapo", 16)[1] == 1


# -- the objective -----------------------------------------------------------------------------------------


def test_what_is_drawn_is_laid_out_and_judged() -> None:
    model, made = model_of(), objective()
    prompts = ("Hi", "What is it?")
    ready = made.ready(model, batch_of(*prompts), 0)
    assert ready.ids.shape[0] == 8 and not ready.labels
    for row in range(8):
        prompt = TOKENIZER.encode_chat(prompts[row // 4])
        length = int(ready.segments[row].sum())
        assert ready.ids[row, : len(prompt)].tolist() == prompt
        assert np.array_equal(np.flatnonzero(ready.learned[row]), np.arange(len(prompt), length))
        ids = [one for one in ready.ids[row, len(prompt) : length].tolist() if one not in TOKENIZER.stop_ids]
        assert ready.rewards[row] == Share()("", TOKENIZER.decode(ids), {"wanted": "aeiou"})
        assert (ready.old[row] < 0).sum() == length - len(prompt)
    groups = ready.rewards.reshape(2, 4)
    np.testing.assert_allclose(ready.advantages, advantages(groups, "group").reshape(-1))
    figures = {name: total / count for name, (total, count) in made.told(ready).items()}
    assert figures["reward"] == pytest.approx(ready.rewards.mean()) == figures["rewards/share/mean"]
    assert figures["reward_std"] == pytest.approx(groups.std(1, ddof=1).mean())
    assert figures["completions/mean_length"] == pytest.approx(ready.learned.sum(1).mean())
    assert figures["frac_reward_zero_std"] == 0 and 0 <= figures["completions/clipped_ratio"] <= 1


def test_answers_stay_within_the_context() -> None:
    batch = batch_of("Hi")
    prompt = int(batch.segments.sum())
    ready = objective(context=prompt + 2).ready(model_of(), batch, 0)
    assert ready.ids.shape[1] <= prompt + 2 and ready.learned.sum(1).max() <= 2
    example = Example(batch.ids[0, :prompt], np.zeros(prompt, bool), "a.jsonl:1", raw='{"wanted": "a"}')
    assert objective(context=prompt + 2).refuses(example) is None
    assert f"has {prompt} tokens, and a context of {prompt} leaves none" in str(
        objective(context=prompt).refuses(example)
    )


def test_chance_is_of_the_seed_the_step_and_the_prompts_alone() -> None:
    model, batch = model_of(), batch_of("Hi", "Ho")
    first = objective().ready(model, batch, 3)
    mx.random.seed(9)
    again, other, later = (
        made.ready(model, batch, step)
        for made, step in ((objective(), 3), (objective(seed=1), 3), (objective(), 4))
    )
    assert np.array_equal(first.ids, again.ids) and np.array_equal(first.old, again.old)
    assert not np.array_equal(first.old, other.old) and not np.array_equal(first.old, later.old)


@pytest.mark.parametrize("scale", ["group", "batch", "none"])
def test_rewards_are_over_the_deviation_of_a_whole_step_however_it_is_split(scale: Any) -> None:
    model, made = model_of(), objective(scale_rewards=scale)
    found = made.ready_step(model, [batch_of("Hi", "Ho"), batch_of("Well?")], 3)
    rewards = np.concatenate([one.rewards for one in found]).reshape(-1, 4)
    assert rewards.std() > 0
    expected = advantages(rewards, scale).reshape(-1)
    assert np.array_equal(np.concatenate([one.advantages for one in found]), expected)
    assert [len(one.advantages) for one in found] == [8, 4]


@pytest.mark.parametrize("loss_type", ["dapo", "grpo", "dr_grpo"])
@pytest.mark.parametrize("beta", [0.0, 0.1])
def test_its_loss_is_the_formula_over_the_whole_rows(loss_type: Any, beta: float) -> None:
    model, made = model_of(), objective(loss_type=loss_type, beta=beta, clip=Clip(0.01, 0.02))
    moved(model, 0.02)
    ready = made.ready(model, batch_of("Hi", "What is it?"), 0)
    moved(model)

    def likely() -> np.ndarray:
        logits = np.array(model(mx.array(ready.ids)), np.float64)[:, :-1]
        found = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
        return np.take_along_axis(found, ready.ids[:, 1:, None], -1)[..., 0]

    learned, ratio = ready.learned[:, 1:], np.exp(likely() - ready.old[:, 1:])
    advantage = ready.advantages[:, None]
    losses = -np.minimum(ratio * advantage, np.clip(ratio, 0.99, 1.02) * advantage)
    if beta:
        kept = flat(model)
        put(model, {path: mx.zeros(one.shape) for path, one in kept.items()})
        further = -likely()
        put(model, kept)
        further = -further - likely()
        losses = losses + beta * (np.exp(further) - further - 1)
    rows = (losses * learned).sum(1)
    lengths = learned.sum(1)
    expected = {
        "dapo": rows.sum() / lengths.sum(),
        "grpo": (rows / lengths).mean(),
        "dr_grpo": (rows / 10).mean(),
    }
    value, _ = gradients(model, made, ready)
    assert value == pytest.approx(expected[loss_type], rel=2e-4, abs=1e-6)


def test_every_factor_learns() -> None:
    model, made = model_of(), objective()
    for step in range(2):
        found = gradients(model, made, made.ready(model, batch_of("Hi", "What is it?"), step))[1]
        put(model, {path: one - 0.1 * found[path] for path, one in flat(model).items()})
        idle = [path for path, one in found.items() if not mx.any(one).item()]
        assert all(path.endswith("lora_a") for path in idle) if step == 0 else not idle
        assert all(mx.all(mx.isfinite(one)).item() for one in found.values())
    assert len(found) == 2 * len(list(adapters(model)))


def test_groups_that_are_alike_move_nothing() -> None:
    model, made = model_of(), objective(Alike())
    moved(model)
    ready = made.ready(model, batch_of("Hi", "What is it?"), 0)
    value, found = gradients(model, made, ready)
    assert value == 0 and not any(mx.any(one).item() for one in found.values())
    assert made.told(ready)["frac_reward_zero_std"] == (2.0, 2)


def test_padding_and_checkpoints_change_nothing() -> None:
    model, made = model_of(), objective(beta=0.1)
    moved(model)
    ready = made.ready(model, batch_of("Hi", "What is it?"), 0)
    assert np.array_equal(made.ready(model, batch_of("Hi", "What is it?", wider=9), 0).ids, ready.ids)
    moved(model)
    names = ("ids", "learned", "segments", "positions", "old", "reference")
    wide = replace(ready, **{name: np.pad(getattr(ready, name), ((0, 0), (0, 11))) for name in names})
    value, expected = gradients(model, made, ready)
    for other in (gradients(model, made, wide), gradients(model, made, ready, checkpoint=True)):
        assert other[0] == pytest.approx(value, rel=1e-5)
        assert all(mx.abs(other[1][path] - one).max().item() < 1e-5 for path, one in expected.items())


def test_a_ratio_beyond_the_clip_has_no_gradient() -> None:
    model, made = model_of(), objective()
    ready = made.ready(model, batch_of("Hi", "What is it?"), 0)
    far = replace(
        ready, old=ready.old - np.sign(ready.advantages)[:, None]
    )  # e times as likely where it was better
    assert not any(mx.any(one).item() for one in gradients(model, made, far)[1].values())
    wide = objective(clip=Clip(0.9, 2.0))
    assert any(mx.any(one).item() for one in gradients(model, wide, far)[1].values())


def test_answers_that_were_cut_may_be_left_out() -> None:
    model = model_of()
    cut = objective(most=3, mask_truncated=True).ready(model, batch_of("Hi"), 0)
    whole = objective(most=3).ready(model, batch_of("Hi"), 0)
    ended = [
        bool(set(ids) & set(TOKENIZER.stop_ids))
        for ids in (row[learned] for row, learned in zip(whole.ids, whole.learned, strict=True))
    ]
    assert not all(ended) and cut.learned.any(1).tolist() == ended and whole.learned.any(1).all()
    nothing = replace(cut, learned=np.zeros_like(cut.learned))
    assert objective().loss(model, nothing)[0].item() == 0


def test_to_look_at_one_answer_is_judged_and_less_is_better() -> None:
    model, made = model_of(), objective(beta=0.1)
    ready = made.ready(model, batch_of("Hi", "What is it?"), None)
    assert isinstance(ready, RolledOut) and len(ready.ids) == 2 and ready.reference is None
    loss, count = made.loss(model, ready, learns=False)
    assert loss.item() == pytest.approx(-ready.rewards.sum()) and count == 2
    assert "reward_std" not in made.figures(model, ready)


def learned(seed: int, steps: int) -> list[float]:
    """The mean rewards of a few steps, in which the head learns."""
    model, made, found = (
        model_of("llama", "head"),
        objective(generations=24, most=4, seed=seed),
        list[float](),
    )
    optimizer = optimizers.Adam(0.03)
    for step in range(steps):
        ready = made.ready(model, batch_of("Hi", wanted="abcdefghijklm"), step)
        found.append(float(ready.rewards.mean()))
        slopes = gradients(model, made, ready)[1]
        put(model, optimizer.apply_gradients(slopes, flat(model)))
    return found


def test_what_is_rewarded_comes_more_often() -> None:
    rewards = learned(0, 7)
    assert rewards[-1] > rewards[0] + 0.5
    assert learned(0, 2) == rewards[:2] != learned(1, 2)


# -- settings and rows -------------------------------------------------------------------------------------


def test_settings_reach_it(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="reward is not set"):
        grpo_of(checked({"objective": "grpo"}), tmp_path)
    with pytest.raises(OptionError, match=r"beta=0.1 holds .* method=full has not"):
        grpo_of(checked({"objective": "grpo", "reward": "numeric", "beta": 0.1, "method": "full"}), tmp_path)


def test_rows_are_prompts_with_what_judges_them(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    rows = [{"prompt": f"{n}+1?", "answer": n + 1, "note": {"a": ["ü"]}} for n in range(9)]
    path.write_text("".join(json.dumps(row, ensure_ascii=n % 2 == 0) + "\n" for n, row in enumerate(rows)))
    first, again = (prepare(path, TOKENIZER, ExampleSettings(64, "turns", "2026-01-31")) for _ in range(2))
    assert first.schema == again.schema == "prompt"
    for data in (first, again):
        found = {one.place: one for one in (*data.train, *data.valid)}
        for line, row in enumerate(rows, start=1):
            one = found[f"a.jsonl:{line}"]
            assert json.loads(one.raw) == row and not one.learned.any() and one.prompt == len(one)
            assert one.ids.tolist() == TOKENIZER.encode_chat(row["prompt"])
    refuse_rows("grpo", "prompt")
    made = objective()
    assert made.refuses(first.train[0]) == "'wanted' is missing" and "grpo" not in str(
        made.refuses(first.train[0])
    )
    short = prepare(path, TOKENIZER, ExampleSettings(8, "turns", "2026-01-31"))
    assert "more than max_seq_length=8; raise it" in str(short.problems[0])


def test_beside_it_experts_are_kept_busy() -> None:
    """The balance is of the pass over what was drawn; to look at, there is none."""
    model = random_model("qwen3-moe", vocab_size=TOKENIZER.vocab_size)
    attach(model, model.spec, Method(rank=3, scale=4.0))
    model.eval()
    made = Balanced(objective(Alike()), 0.5)
    ready = made.ready(model, batch_of("Hi"), 0)
    assert gradients(model, made, ready)[0] > 0 == gradients(model, objective(Alike()), ready)[0]
    assert made.told(ready)["reward"][1] == 4 and not made.watched
    looked = made.ready(model, batch_of("Hi"), None)
    assert made.figures(model, looked) == {f"eval_{name}": one for name, one in made.told(looked).items()}


def test_processes_share_the_rows_that_were_drawn() -> None:
    model, made = model_of(), objective()
    ready = made.ready(model, batch_of("Hi", "What is it?"), 0)
    parts = [ready.rows(np.arange(len(ready.ids))[rank::3]) for rank in range(3)]
    whole, count = made.loss(model, ready)
    shares = [made.loss(model, part) for part in parts]
    assert sum(found.item() for found, _ in shares) == pytest.approx(whole.item(), abs=1e-5)
    assert sum(many for _, many in shares) == count
