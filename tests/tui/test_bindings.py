"""Keys: made from the table, moved by the person's own, refused with a sentence where they cannot be."""

import re
from itertools import combinations

import pytest
from textual.app import App, ComposeResult
from textual.widgets import TextArea

from macllm_tui.actions import ACTIONS, BY_ID
from macllm_tui.bindings import bindings, key_name, key_names, keymap, short_key_name


class Pressed(App[None]):
    """Notes the actions that keys reach, with a text area in front of them as in the chat."""

    ENABLE_COMMAND_PALETTE = False
    BINDINGS = bindings("chat", "message")

    def __init__(self, keys: dict[str, str]) -> None:
        super().__init__()
        self.done: list[str] = []
        self.set_keymap(keymap(keys).overrides)

    def compose(self) -> ComposeResult:
        yield TextArea()

    async def run_action(self, action, default_namespace=None, namespaces=None) -> bool:
        if isinstance(action, str) and action in BY_ID:
            self.done.append(action)
            return True
        return await super().run_action(action, default_namespace, namespaces)


async def pressed(keys: dict[str, str], *presses: str) -> list[str]:
    app = Pressed(keys)
    async with app.run_test() as pilot:
        await pilot.press(*presses)
    return app.done


def test_the_tables_keys_have_no_clash_and_no_problem() -> None:
    table = keymap({action.id: action.key for action in ACTIONS})
    assert table.problems == () and table.overrides == {}
    assert table.keys == keymap({}).keys == {action.id: action.key for action in ACTIONS}
    for one, other in combinations(ACTIONS, 2):
        if one.place == other.place or "chat" in (one.place, other.place):
            assert not set(one.key.split(",")) & set(other.key.split(",")) - {""}, (one.id, other.id)


def test_every_action_has_a_binding_that_can_be_moved() -> None:
    made = bindings("chat", "prompt", "message")
    assert [binding.id for binding in made] == [action.id for action in ACTIONS]
    assert all(re.fullmatch(r"[a-z_]+", binding.action) for binding in made)


async def test_chat_keys_work_while_typing() -> None:
    later = {"stop", "page_up", "page_down"}  # TextArea has these keys too: the chat screen's go before it
    wanted = [
        action for action in ACTIONS if action.place == "chat" and action.key and action.id not in later
    ]
    keys = [action.key.split(",")[0] for action in wanted]
    assert await pressed({}, *keys) == [action.id for action in wanted]


async def test_a_remapped_key_works_and_the_old_one_does_not() -> None:
    moved = {"new": "f9,ctrl+_"}
    assert await pressed(moved, "ctrl+n") == []
    assert await pressed(moved, "f9", "ctrl+underscore") == ["new", "new"]


async def test_two_actions_can_swap_their_keys() -> None:
    assert await pressed({"new": "ctrl+o", "search": "ctrl+n"}, "ctrl+n", "ctrl+o") == ["search", "new"]


async def test_an_action_without_a_key_can_be_given_one_and_another_lose_its_own() -> None:
    assert await pressed({"theme": "f9", "finetune": ""}, "f3", "f9") == ["theme"]


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"fly": "f9"}, ["'fly'", "no action"]),
        ({"new": "ctrl+nothing"}, ["new='ctrl+nothing'", "is not a key"]),
        ({"new": "hold+n"}, ["new='hold+n'", "is not a key"]),
        ({"new": "n"}, ["new='n'", "typing"]),
        ({"new": "?"}, ["new='?'", "typing"]),
        ({"new": "space"}, ["new='space'", "typing"]),
        ({"send": "left"}, ["send='left'", "typing"]),
        ({"new": "enter"}, ["new='enter'", "typing"]),
        ({"new": "ctrl+i"}, ["new='ctrl+i'", "typing"]),
        ({"new": "ctrl+y"}, ["new='ctrl+y'", "typing"]),  # takes back what was undone
        ({"new": "ctrl+shift+k"}, ["new='ctrl+shift+k'", "typing"]),
        ({"new": "ctrl+l"}, ["new='ctrl+l'", "key of model"]),
        ({"copy": "x"}, ["copy='x'", "key of export"]),
        ({"copy": "["}, ["copy='['", "key of previous_sibling"]),
        ({"copy": "ctrl+n"}, ["copy='ctrl+n'", "key of new"]),
        ({"new": "f9", "search": "f9"}, ["search='f9'", "key of new"]),
    ],
)
def test_what_cannot_be_is_named_in_one_sentence_and_the_default_stays(keys, words) -> None:
    made = keymap(keys)
    assert len(made.problems) == 1
    assert all(word in made.problems[0] for word in words), made.problems
    assert made.problems[0].endswith(".") and "\n" not in made.problems[0]
    last = list(keys)[-1]
    assert last not in made.overrides
    assert last not in BY_ID or made.keys[last] == BY_ID[last].key


def test_giving_up_one_key_gives_up_those_that_leaned_on_it() -> None:
    made = keymap({"new": "ctrl+o", "search": "ctrl+l"})  # ctrl+l is the model's
    assert made.overrides == {} and len(made.problems) == 2


def test_prompt_and_message_may_share_a_key() -> None:
    assert keymap({"copy": "up"}).problems == ()


def test_keys_are_written_as_people_write_them() -> None:
    assert [key_name(key) for key in ("ctrl+n", "left_square_bracket", "escape", "alt+up", "f1", "?")] == [
        "ctrl+n",
        "[",
        "esc",
        "alt+up",
        "f1",
        "?",
    ]
    assert [short_key_name(key) for key in ("ctrl+p", "enter", "escape", "alt+up", "f1")] == [
        "^p",
        "⏎",
        "esc",
        "alt+↑",
        "f1",
    ]
    assert key_names(BY_ID["newline"].key) == "ctrl+j, shift+enter, alt+enter"
    assert key_names("") == ""


def test_esc_is_escape_and_never_a_control_character() -> None:
    assert key_name("esc") == key_name("escape") == "esc"
    assert keymap({"stop": "f9", "new": "esc"}).overrides == {"stop": "f9", "new": "escape"}
    assert keymap({"new": "bel"}).overrides == {}
