"""What settings say to the parts of a run."""

import numpy as np
import pytest
from random_models import random_model

from macllm.errors import OptionError
from macllm.tune.job import batching_of
from macllm.tune.settings import DEFAULTS

SPEC = random_model("llama").spec
LENGTHS = np.random.default_rng(0).integers(20, 200, 400).tolist()


def test_auto_packs_as_many_rows_a_step_as_there_are_without() -> None:
    for size in (4, 16, 64, 1000):  # of one row at a time, the longest decides
        settings = {**DEFAULTS, "batch_size": size}
        apart = batching_of({**settings, "pack": "no"}, SPEC, LENGTHS).per_epoch(LENGTHS)
        packed = batching_of(settings, SPEC, LENGTHS)
        assert packed.pack and packed.max_seq_length <= 2048
        assert packed.per_epoch(LENGTHS) == pytest.approx(apart, rel=0.15, abs=1)
        full = batching_of({**settings, "pack": "yes"}, SPEC, LENGTHS)
        assert (full.batch_size, full.max_seq_length) == (size, 2048)


def test_every_row_that_is_looked_at_has_room() -> None:
    assert batching_of(DEFAULTS, SPEC, [20, 30], [900]).max_seq_length == 900
    assert batching_of(DEFAULTS, SPEC, [20, 30], together=2).pack is False


@pytest.mark.parametrize(
    ("variant", "settings", "options", "why"),
    [
        ("mamba", {}, {}, "state"),
        ("llama", {"objective": "dpo"}, {"together": 2}, "looks at each row by itself"),
        ("llama", {"method": "prompt"}, {}, "before one row alone"),
    ],
)
def test_what_cannot_be_packed_is_not_and_says_so_where_it_is_asked_for(
    variant: str, settings: dict, options: dict, why: str
) -> None:
    spec = random_model(variant).spec
    assert not batching_of({**DEFAULTS, **settings}, spec, LENGTHS, **options).pack
    with pytest.raises(OptionError, match=rf"pack=yes is not possible: .*{why}.*; leave packing off"):
        batching_of({**DEFAULTS, **settings, "pack": "yes"}, spec, LENGTHS, **options)
