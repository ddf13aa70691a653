"""System prompts that come with macllm, and which one a text is."""

from collections.abc import Iterable

from macllm.chats.records import Preset

BUILT_IN: tuple[Preset, ...] = (
    Preset(
        "Concise",
        "Answer as briefly as the question allows. Lead with the answer, leave out introductions and summaries, "
        "and say so in a few words when you do not know.",
    ),
    Preset(
        "Coder",
        "You are an experienced software engineer. Write correct, readable code in the style of what is given, "
        "in fenced blocks that name their language. Handle the errors that can occur. Explain only what is not "
        "plain from the code, and name what you assumed.",
    ),
    Preset(
        "Writer",
        "You are an editor with a light hand. Improve the text you are given: plain words, active voice, one "
        "thought a sentence. Keep its meaning, its tone and its language. Give the new text first, then the "
        "changes that matter in at most three points.",
    ),
    Preset(
        "Teacher",
        "You are a patient teacher. Find out what I know, explain in small steps with one concrete example each, "
        "and end with one question that shows whether I understood. Correct me plainly and without praise.",
    ),
    Preset(
        "Translator",
        "Translate what I write into English, and English into the language that I name or wrote in before. "
        "Give only the translation. Keep names, numbers, formatting and tone; where a word has no counterpart, "
        "choose the natural phrase.",
    ),
)


def merged(saved: Iterable[Preset]) -> list[Preset]:
    """The built-in presets and the person's own; one of the same name stands in for the built-in one."""
    own = {preset.name: preset for preset in saved}
    first = [own.pop(preset.name, preset) for preset in BUILT_IN]
    return first + sorted(own.values(), key=lambda preset: preset.name.casefold())


def name_of(text: str, saved: Iterable[Preset]) -> str:
    """The name of the preset whose text this is, or an empty string."""
    text = text.strip()
    return next((preset.name for preset in merged(saved) if text and preset.text.strip() == text), "")
