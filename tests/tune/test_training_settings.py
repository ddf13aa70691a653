"""Settings of a run: mlx-lm's names, what is written is what is read, and what fits is known before it starts."""

import ast
from importlib.util import find_spec
from pathlib import Path

import pytest

from macllm.adapters import kept as adapters
from macllm.adapters.method import ALL_LAYERS
from macllm.errors import InputError, OptionError
from macllm.tune.settings import BY_NAME, DEFAULTS, SETTINGS, checked, epochs, steps

CONFIGS = Path(__file__).parent.parent / "configs"
LIGHT = {**DEFAULTS, "batch_size": 1, "grad_checkpoint": True}


def test_names_and_defaults_are_mlx_lms_where_it_has_them() -> None:
    found = find_spec("mlx_lm")  # read, not imported: that takes seconds
    assert found is not None and found.submodule_search_locations
    source = (Path(found.submodule_search_locations[0]) / "lora.py").read_text()
    assigned = next(
        node.value
        for node in ast.parse(source).body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "CONFIG_DEFAULTS"
    )
    defaults = ast.literal_eval(assigned)
    theirs = {**defaults, **defaults["lora_parameters"]}
    own = (
        "num_layers",
        "optimizer",
        "learning_rate",
    )  # all layers, decay as its paper says, what adapters want
    ours = {name: value for name, value in DEFAULTS.items() if name in theirs and name not in own}
    assert len(ours) >= 10
    assert ours == {name: theirs[name] for name in ours}
    assert DEFAULTS["num_layers"] == ALL_LAYERS and "num_layers" in theirs


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name)
def test_a_default_is_read_as_it_is_written(setting) -> None:
    assert setting.parse(setting.write(setting.default)) == setting.default
    assert setting.help and setting.help[-1] != "."


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("rank", " 16 ", 16),
        ("iters", "1_000", 1000),
        ("learning_rate", "2e-4", 2e-4),
        ("learning_rate", "0,001", 0.001),
        ("num_layers", "ALL", ALL_LAYERS),
        ("num_layers", "-1", ALL_LAYERS),
        ("num_layers", "4", 4),
        ("grad_checkpoint", "on", True),
        ("learn", "Last", "last"),
        ("iters", "", None),
        ("epochs", "1.5", 1.5),
    ],
)
def test_what_people_write_is_understood(name: str, text: str, value: object) -> None:
    assert BY_NAME[name].parse(text) == value


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("rank", "0"),
        ("rank", "8.5"),
        ("rank", ""),
        ("scale", "0"),
        ("dropout", "1"),
        ("dropout", "nan"),
        ("learning_rate", "inf"),
        ("num_layers", "0"),
        ("grad_checkpoint", "maybe"),
        ("learn", "first"),
        ("seed", "-1"),
        ("max_seq_length", "4"),
    ],
)
def test_what_cannot_be_is_refused_with_what_could(name: str, text: str) -> None:
    with pytest.raises(OptionError, match=rf"{name}='{text}' is not possible \(expected "):
        BY_NAME[name].parse(text)


def test_steps_count_the_last_partial_batch() -> None:
    settings = {**DEFAULTS, "epochs": 1.0, "grad_accumulation_steps": 2}
    assert [steps(settings, batches) for batches in (1, 2, 3, 4, 5)] == [1, 1, 2, 2, 3]
    assert steps({**settings, "epochs": 0.5}, 8) == 2 and epochs(settings, 8) == 1.0
    assert steps({**settings, "iters": 7}, 8) == 7 and epochs({**settings, "iters": 8}, 8) == 2.0


def test_what_is_given_goes_over_the_defaults_and_a_wrong_name_is_refused() -> None:
    assert checked({"iters": 5, "learn": "last"}) == {**DEFAULTS, "iters": 5, "learn": "last"}
    with pytest.raises(
        OptionError, match=r"there is no setting 'learn_rate' \(did you mean learning_rate\?\)"
    ):
        checked({"learn_rate": 1})
    with pytest.raises(OptionError, match="rank='0' is not possible"):
        checked({"rank": 0})


@pytest.mark.parametrize("name", ["", " ", "a/b", "..", ".hidden", "a b", "x" * 65, "ä", "end."])
def test_a_name_that_cannot_be_a_folder_is_refused(name: str) -> None:
    with pytest.raises(InputError):
        adapters.checked_name(name)


def test_what_is_there_is_known_and_whether_it_can_go_on(macllm_home: Path) -> None:
    assert adapters.existing("mine") is None
    (adapters.folder() / "mine").mkdir(parents=True)
    assert adapters.existing("mine") == adapters.Existing(macllm_home / "adapters" / "mine", False)
    (adapters.folder() / "mine" / adapters.STATE).mkdir()
    found = adapters.existing("mine")
    assert found is not None and found.resumable
