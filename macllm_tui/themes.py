"""The colours of the app: one theme for dark rooms, one for light, and four for those who want others.

Every text colour reaches 4.5:1 on every surface, 7:1 in "contrast"; a test computes it.
"""

import os
from typing import TYPE_CHECKING, Any

from textual.theme import Theme

if TYPE_CHECKING:
    from textual.app import App

DEFAULT = "graphite"
WITHOUT_COLOUR = "terminal"

# What a terminal shows in its own colours. Bold and underlined needs none, so the chosen line is always seen.
_TERMINAL = {
    "ansi-background": "ansi_default",
    "ansi-foreground": "ansi_default",
    "surface-active": "ansi_default",
    "text-muted": "ansi_default",
    "text-disabled": "ansi_default",  # bright black is the background itself in some terminals' colours
    "foreground-muted": "ansi_default",
    "foreground-disabled": "ansi_default",
    "border": "ansi_blue",
    "border-blurred": "ansi_default",
    "block-cursor-foreground": "ansi_black",
    "block-cursor-background": "ansi_cyan",
    "block-cursor-text-style": "bold underline",  # parts of a widget cannot be reversed in Textual 8
    "block-cursor-blurred-text-style": "underline",
    "footer-key-foreground": "ansi_default",
    "input-cursor-text-style": "reverse",
    "input-selection-foreground": "ansi_black",
    "button-color-foreground": "ansi_black",
    "screen-selection-background": "ansi_cyan",
    "screen-selection-foreground": "ansi_black",
}


def _theme(name: str, *, dark: bool, text: str, muted: str, **colours: str) -> Theme:
    """A theme whose words on its own surfaces have the colours given, not a blend of black or white."""
    named = {f"text-{colour}": colours[colour] for colour in _NAMED}
    return Theme(
        name=name,
        dark=dark,
        foreground=text,
        variables={
            **named,
            "text-muted": "auto 72%",  # of black or white, whichever the ground asks for: also on a chosen line
            "text-disabled": "auto 64%",
            "foreground-muted": muted,
            "markdown-h6-color": muted,
            "footer-key-foreground": colours["accent"],
            "footer-background": colours["panel"],
            "block-cursor-foreground": colours["background"],
            "block-cursor-background": colours["primary"],
            "block-cursor-blurred-foreground": text,
            "block-cursor-blurred-background": colours["panel"],
            "block-cursor-blurred-text-style": "bold",
            "border-blurred": muted,
            "input-selection-foreground": colours["background"],
            "input-selection-background": colours["secondary"],
            "screen-selection-foreground": colours["background"],
            "screen-selection-background": colours["secondary"],
            "button-color-foreground": colours["background"],
            "link-background-hover": colours["primary"],
            "link-color-hover": colours["background"],
        },
        primary=colours["primary"],
        secondary=colours["secondary"],
        accent=colours["accent"],
        success=colours["success"],
        warning=colours["warning"],
        error=colours["error"],
        background=colours["background"],
        surface=colours["surface"],
        panel=colours["panel"],
    )


_NAMED = ("primary", "secondary", "accent", "success", "warning", "error")

THEMES: tuple[Theme, ...] = (
    _theme(
        "graphite",
        dark=True,
        text="#d9dde3",
        muted="#a2abb8",
        primary="#7fb2e5",
        secondary="#9fb4cf",
        accent="#e3b778",
        success="#8ecb9a",
        warning="#e6c06a",
        error="#f19a94",
        background="#16191d",
        surface="#1d2126",
        panel="#262b32",
    ),
    _theme(
        "paper",
        dark=False,
        text="#24292f",
        muted="#57606a",
        primary="#1f5fa8",
        secondary="#4a5a70",
        accent="#8a4b08",
        success="#1c6b34",
        warning="#7d5200",
        error="#b3261e",
        background="#fdfcf9",
        surface="#f5f3ee",
        panel="#ebe8e1",
    ),
    _theme(
        "contrast",
        dark=True,
        text="#ffffff",
        muted="#d6d6d6",
        primary="#7fd0ff",
        secondary="#c9c9ff",
        accent="#ffe14d",
        success="#6dff8f",
        warning="#ffd21f",
        error="#ffb0a8",
        background="#000000",
        surface="#000000",
        panel="#141414",
    ),
    _theme(
        "mist",
        dark=False,
        text="#1f2a37",
        muted="#4c5a6b",
        primary="#0b6170",
        secondary="#44557a",
        accent="#6d3fa0",
        success="#15663c",
        warning="#78500a",
        error="#a8243f",
        background="#f1f5f8",
        surface="#e7edf2",
        panel="#dbe4ea",
    ),
    _theme(
        "ember",
        dark=True,
        text="#ebdfcf",
        muted="#bba996",
        primary="#e9a15b",
        secondary="#d3b48c",
        accent="#e8c468",
        success="#b0c36f",
        warning="#f0b84e",
        error="#f48f78",
        background="#1b1714",
        surface="#231e1a",
        panel="#2e2722",
    ),
    Theme(
        name="terminal",
        ansi=True,
        primary="ansi_blue",
        secondary="ansi_cyan",
        warning="ansi_yellow",
        error="ansi_red",
        success="ansi_green",
        accent="ansi_magenta",
        foreground="ansi_default",
        background="ansi_default",
        surface="ansi_default",
        panel="ansi_default",
        boost="ansi_default",
        variables=_TERMINAL,
    ),
)

NAMES: tuple[str, ...] = tuple(theme.name for theme in THEMES)


def colourless() -> bool:
    """The user wants no colour at all: NO_COLOR is set."""
    return "NO_COLOR" in os.environ


def app_arguments() -> dict[str, Any]:
    """What ``App(...)`` must be told: without colour, words keep bold, underline and reverse; grey is a colour too."""
    return {"ansi_color": True} if colourless() else {}


def install(app: "App[Any]", name: str) -> str:
    """Makes all themes known to ``app`` and uses one: ``name``, or the default where there is none of that name.

    Under NO_COLOR it is always the terminal's. Returns the name of the one used.
    """
    for theme in THEMES:
        app.register_theme(theme)
    used = WITHOUT_COLOUR if colourless() else name if name in NAMES else DEFAULT
    app.theme = used
    return used
