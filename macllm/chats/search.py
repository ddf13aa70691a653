"""Words of a person as a query of the full-text index, and the snippet that shows where they were found."""

import re
import unicodedata

from macllm.chats.records import Span

# Scripts that put no spaces between words: Thai, Lao, Myanmar, Khmer, kana, Chinese characters.
_UNSPACED = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    "\U00020000-\U0003ffff]"
)
_BEYOND_ASCII = re.compile("[^\x00-\x7f]")
_INVISIBLE = re.compile("[\u200d\ufe0f]")  # they join and colour emoji
_SNIPPET = 160  # characters
_LEAD = 50  # of them before the first word found


def spaced(text: str) -> str | None:
    """``text`` as the index reads it where that is not the text itself, else None.

    The index knows words by the spaces between them. A character of a script without spaces becomes a word, and
    so does a symbol such as an emoji, which the index would leave out: ``u1f389``.
    """
    if text.isascii():
        return None
    made = _BEYOND_ASCII.sub(_word_of, text)
    return None if made == text else made


def _word_of(match: re.Match[str]) -> str:
    character = match[0]
    if _UNSPACED.match(character):
        return f" {character} "
    return f" u{ord(character):x} " if unicodedata.category(character)[0] == "S" else character


def query(words: str, *, whole: bool) -> str:
    """The FTS5 query for text with all of ``words``, as whole words or as the beginnings of words; may be empty.

    Each word is a quoted phrase, so nothing in it is syntax: ``foo-bar`` is foo followed by bar.
    """
    phrases = []
    for word in words.replace("\x00", " ").split():
        pieces = _pieces(word)
        if pieces:
            phrases.append(f'"{" ".join(pieces)}"' + ("" if whole else " *"))
    return " ".join(phrases)


def _pieces(word: str) -> list[str]:
    """The runs of letters and digits, which are what the index holds."""
    found = re.findall(r"[^\W_](?:[^\W_]|[\u0300-\u036f])*", spaced(word) or word)
    return [str(piece) for piece in found]


def snippet(text: str, words: str) -> tuple[Span, ...]:
    """The part of ``text`` around the first of ``words``, as one line; the words are bold."""
    folded = _folded(text)
    places = [match.span() for match in _looked_for(words).finditer(folded)]
    start, end = _window(text, places[0][0] if places else 0)
    spans: list[Span] = []
    _append(spans, "…" if start else "", False)
    at = start
    for first, last in places:
        if first < at or last > end:
            continue
        _append(spans, text[at:first], False)
        _append(spans, text[first:last], True)
        at = last
    _append(spans, text[at:end], False)
    _append(spans, "…" if end < len(text) else "", False)
    return tuple(spans)


def _looked_for(words: str) -> re.Pattern[str]:
    forms = []
    for word in _INVISIBLE.sub("", words).split():
        # punctuation inside a word may stand for any other; a symbol is looked for as it is
        runs = re.findall(r"[^\W_]+|[^\x00-\x7f]", _folded(word))
        if runs:
            edge = r"(?<![^\W_])" if runs[0].isascii() else ""
            forms.append(edge + r"[\W_]*".join(re.escape(run) for run in runs))
    return re.compile("|".join(forms) if forms else r"(?!)")


def _folded(text: str) -> str:
    """Without case and accents, each character still at its place."""
    return text.lower() if text.isascii() else _BEYOND_ASCII.sub(_bare, text).lower()


def _bare(match: re.Match[str]) -> str:
    """A letter without its accent; every other character as it is."""
    parts = unicodedata.normalize("NFD", match[0])
    return parts[0] if parts[1:] and unicodedata.combining(parts[1]) else match[0]


def _window(text: str, first: int) -> tuple[int, int]:
    start = max(0, first - _LEAD)
    if start:
        space = text.find(" ", start, first)
        start = space + 1 if space >= 0 else start
    end = min(len(text), start + _SNIPPET)
    if end < len(text):
        space = text.rfind(" ", max(first + 1, end - 20), end)
        end = space if space >= 0 else end
    return start, end


def _append(spans: list[Span], text: str, bold: bool) -> None:
    if text:
        spans.append(Span(re.sub(r"\s+", " ", text), bold))
