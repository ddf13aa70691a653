"""The settings file: read strictly, written in one move, set aside when damaged."""

import json
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from macllm.errors import MacllmError
from macllm_tui.settings import RECENT, Settings, load, save, settings_path


def written(text: str) -> Path:
    path = settings_path()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


CHOSEN = Settings("paper", False, False, True, True, ("qwen", "starter"), {"new": "f9"})


def test_no_file_gives_the_defaults_and_no_problem() -> None:
    assert load().settings == Settings() and load().problems == ()
    assert not settings_path().exists()


def test_what_is_saved_is_what_is_loaded() -> None:
    save(CHOSEN)
    assert load().settings == CHOSEN and load().problems == ()


def test_only_the_user_can_read_the_file_and_nothing_is_left_beside_it(macllm_home: Path) -> None:
    save(CHOSEN)
    save(Settings())
    assert stat.S_IMODE(settings_path().stat().st_mode) == 0o600
    assert [path.name for path in macllm_home.iterdir()] == ["settings.json"]


def test_settings_of_a_newer_version_survive() -> None:
    written('{"theme": "mist", "voice": {"speed": 2}}')
    save(replace(load().settings, theme="ember"))
    assert json.loads(settings_path().read_text())["voice"] == {"speed": 2}
    assert load().settings.theme == "ember"


@pytest.mark.parametrize("text", ["{", "[]", '"paper"', "\x00", ""])
def test_a_damaged_file_is_kept_aside_and_said(text: str) -> None:
    path = written(text)
    loaded = load()
    assert loaded.settings == Settings()
    assert not path.exists()
    aside = path.with_name("settings.damaged-1.json")
    assert aside.read_text() == text
    assert len(loaded.problems) == 1 and aside.name in loaded.problems[0]
    written(text)
    assert "settings.damaged-2.json" in load().problems[0]


def test_bytes_that_are_no_text_are_damage_too() -> None:
    path = written("")
    path.write_bytes(b"\xff\xfe{}")
    assert "damaged" in load().problems[0]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("theme", "pink"),
        ("theme", 3),
        ("sidebar", "yes"),
        ("metrics", 1),
        ("thinking", None),
        ("tint", []),
        ("recent", "starter"),
        ("recent", [1]),
        ("keys", ["f9"]),
        ("keys", {"new": 1}),
    ],
)
def test_a_value_of_another_kind_is_named_and_the_rest_used(name: str, value: object) -> None:
    written(json.dumps({"theme": "ember", "tint": True, name: value}))
    loaded = load()
    assert len(loaded.problems) == 1
    problem = loaded.problems[0]
    assert f"{name}={json.dumps(value)}" in problem and "settings.json" in problem and "must be" in problem
    assert getattr(loaded.settings, name) == getattr(Settings(), name)
    assert (loaded.settings.theme, loaded.settings.tint) == (
        Settings().theme if name == "theme" else "ember",
        name != "tint",
    )


def test_a_place_that_cannot_be_written_is_named(macllm_home: Path) -> None:
    macllm_home.write_text("a file where the folder should be")
    with pytest.raises(MacllmError, match=r"settings\.json cannot be written"):
        save(Settings())


def test_recent_models_are_the_newest_first_each_once() -> None:
    settings = Settings()
    for name in ("a", "b", "a", *(f"m{number}" for number in range(RECENT - 1))):
        settings = settings.used(name)
    assert settings.recent == (*(f"m{number}" for number in reversed(range(RECENT - 1))), "a")
