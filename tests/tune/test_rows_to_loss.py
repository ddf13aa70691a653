"""From rows to the loss of a pass: a mean over what is learned, whatever the batches look like."""

import json
from itertools import islice
from pathlib import Path

import mlx.core as mx
import pytest
from random_models import random_model
from templated import templated

from macllm.tune.batches import Batches, Batching, Position
from macllm.tune.dataset import prepare
from macllm.tune.examples import ExampleSettings
from macllm.tune.sft import sft_loss


def test_the_loss_of_a_pass_is_that_of_its_tokens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MACLLM_CACHE", str(tmp_path / "cache"))
    pairs = [
        {"prompt": f"{number} times {number}?", "completion": "1" * (number % 9 + 1)} for number in range(23)
    ]
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    tokenizer = templated("chatml")
    examples = prepare(path, tokenizer, ExampleSettings(256, "turns", "2026-01-31")).train
    model = random_model("llama", vocab_size=tokenizer.vocab_size)
    means = []
    for size, pack in ((1, False), (4, False), (30, False), (2, True)):
        batching = Batching(size, 256, pack=pack)
        total, count = 0.0, 0
        lengths = [len(example) for example in examples]
        for batch in islice(Batches(examples, batching, Position(0)), batching.per_epoch(lengths)):
            loss, learned = sft_loss(model, batch.ids, batch.learned, batch.segments)
            mx.eval(loss)
            total, count = total + loss.item(), count + learned
            assert learned == batch.supervised
        means.append(total / count)
    assert max(means) - min(means) < 1e-5 * means[0]
