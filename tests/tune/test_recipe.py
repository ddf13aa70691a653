"""Recipes: the table's names in TOML; what cannot be is named by its line, and mlx-lm's keys by what they are here."""

from pathlib import Path

import pytest

from macllm.errors import InputError
from macllm.tune.recipe import read_recipe
from macllm.tune.recipe_draft import Rows, draft, proposed
from macllm.tune.settings import SETTINGS


def recipe(tmp_path: Path, text: str, name: str = "r.toml") -> Path:
    file = tmp_path / name
    file.write_text(text)
    return file


def test_names_and_values_are_the_tables(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").touch()
    read = read_recipe(
        recipe(
            tmp_path,
            'model = "starter"\ndata = "rows.jsonl"\nrank = 16\nepochs = 2\nlearning_rate = 1.2345678e-5\n'
            'pack = false\ngrad_checkpoint = true\nnum_layers = "all"\nmemory = "12GB"\n',
        )
    )
    assert read.settings == {
        "rank": 16,
        "epochs": 2.0,
        "learning_rate": 1.2345678e-5,
        "pack": "no",
        "grad_checkpoint": True,
        "num_layers": -1,
        "memory": "12GB",
    }
    assert read.places == {"model": "starter", "data": str(tmp_path / "rows.jsonl")}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("rank = 8\n\nscale = -1\n", "r.toml:3: scale='-1' is not possible (expected a number above 0)"),
        ("rank = 8\nrnak = 4\n", "r.toml:2: there is no setting 'rnak' (did you mean rank?)"),
        ("datta = 'x'\n", "r.toml:1: there is no setting 'datta' (did you mean data?)"),
        ("rank = true\n", "r.toml:1: rank='yes' is not possible"),
        ("a = 1\nrank =\n", "this is not valid TOML (Invalid value (at line 2"),
        ("iters = 4\nepochs = 1\n", "r.toml:1: iters and epochs both say how long a run is"),
        ("targets = ['q']\n", "r.toml:1: targets is a list (expected a text)"),
        (
            "\n[lora_parameters]\nrank = 8\n",
            "r.toml:2: there is no setting 'lora_parameters'; here it is rank,",
        ),
        ("fine_tune_type = 'dora'\n", "here it is method"),
        ("model = 3\n", "r.toml:1: model=3 is not possible (expected a text)"),
        ("steps_per_report = 0\n", "r.toml:1: steps_per_report=0 is not possible"),
        ("early_stop = ''\n", "r.toml:1: early_stop is empty"),
    ],
)
def test_what_cannot_be_is_named_by_its_line(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(InputError) as caught:
        read_recipe(recipe(tmp_path, text))
    assert told in str(caught.value)


def test_mlx_lms_yaml_is_refused_by_what_its_keys_are_here(tmp_path: Path) -> None:
    text = (
        'model: "org/name"\nfine_tune_type: lora\nbatch_size: 4\nlora_parameters:\n  rank: 8\ntrain: true\n'
    )
    with pytest.raises(InputError) as caught:
        read_recipe(recipe(tmp_path, text, "lora.yaml"))
    told = str(caught.value)
    assert "a recipe is TOML" in told and "model, batch_size keep their names" in told
    assert "fine_tune_type is method" in told and "lora_parameters is rank, scale and dropout" in told
    assert "train is not needed" in told and "rank is" not in told.replace("lora_parameters is rank", "")


def test_no_recipe(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"there is no such recipe; .* --init"):
        read_recipe(tmp_path / "nothing.toml")


def rows(*lengths: int, schema: str = "messages", context: int = 100_000) -> Rows:
    return Rows(schema, lengths, sum(lengths) // 2, "rows.jsonl:1", context)


def test_proposals_follow_from_the_rows() -> None:
    short, long = proposed(rows(*[100] * 30)), proposed(rows(*[1000] * 9000, 3000))
    assert short["max_seq_length"] == 512 and long["max_seq_length"] == 3072
    assert float(short["epochs"]) > float(long["epochs"])
    assert int(short["batch_size"]) < int(long["batch_size"])  # a pass has some steps also where rows are few
    assert float(short["learning_rate"]) > float(long["learning_rate"])
    assert int(short["steps_per_eval"]) < int(long["steps_per_eval"])
    assert proposed(rows(*[1000] * 500, 90_000))["max_seq_length"] == 2048  # one row is not worth it
    assert proposed(rows(3000, context=1000))["max_seq_length"] == 1000
    assert proposed(rows(10, schema="preference"))["objective"] == "dpo"


def test_a_draft_is_a_recipe_with_every_setting(tmp_path: Path) -> None:
    made = rows(*[100] * 90, 1200)
    text = draft('org/na"me', "rows.jsonl", made)
    read = read_recipe(recipe(tmp_path, text))
    assert read.settings == proposed(made) and read.places["model"] == 'org/na"me'
    for setting in SETTINGS:
        assert text.count(f"\n{setting.name} = ") + text.count(f"\n# {setting.name} = ") == 1, setting.name
    # every default that is commented out may be brought back as it stands
    lines = [
        line[2:] for line in text.splitlines() if line.startswith("# ") and " = " in line and "<" not in line
    ]
    defaults = [line for line in lines if line.split(" = ")[0] in {setting.name for setting in SETTINGS}]
    back = read_recipe(recipe(tmp_path, "\n".join(line for line in defaults if not line.startswith("iters"))))
    wanted = {s.name: s.default for s in SETTINGS if s.default is not None and s.name not in read.settings}
    assert back.settings == wanted
