"""What is known of one model, as text: title, fit, and a column of facts."""

from collections.abc import Iterator
from dataclasses import replace

from textual.content import Content

from macllm.fit import Fit
from macllm.units import count, size
from macllm_tui.model_rows import Facts, Row
from macllm_tui.widgets.fit_badge import mark

_LABEL = 12  # cells


def details(row: Row, facts: Facts | None, fit: Fit | None, *, in_use: bool, free: int | None) -> Content:
    """The right side of the models screen; ``facts`` and ``fit`` are None until they are known."""
    lines = [Content.styled(row.title, "bold")]
    if row.description:
        lines.append(Content(row.description))
    lines.append(Content(""))
    lines.append(Content.assemble(mark(fit), " ", fit.sentence if fit is not None else _WAIT))
    if row.gated:
        lines.append(
            Content.styled(
                "Gated: accept its terms on its page, then log in with `hf auth login`.", "$text-warning"
            )
        )
    lines.append(Content(""))
    lines += [
        Content.assemble((f"{label:<{_LABEL}}", "$foreground-muted"), text)
        for label, text in _facts(row, facts, in_use=in_use, free=free)
    ]
    if facts is not None and facts.note:
        lines += [Content(""), Content.styled(f"No config: {facts.note}", "$foreground-muted")]
    return Content("\n").join(lines)


_WAIT = "Whether it fits is said as soon as the engine has started."


def _facts(row: Row, facts: Facts | None, *, in_use: bool, free: int | None) -> Iterator[tuple[str, str]]:
    spec = facts.spec if facts is not None else None
    yield "state", _state(row, in_use=in_use)
    if row.size_bytes is not None:
        yield "size", size(row.size_bytes)
    weights = ", ".join(part for part in (row.quantization, row.format) if part)
    if weights:
        yield "weights", weights
    parameters = spec.parameters if spec is not None else row.parameters
    if parameters:
        active = f", {count(row.active_parameters)} active" if row.active_parameters else ""
        yield "parameters", count(parameters) + active
    context = (facts.context if facts is not None else None) or row.context
    if context:
        yield "context", f"{context:,} tokens"
    if spec is not None:
        yield "family", spec.family
    if row.licence:
        yield "licence", row.licence
    if row.draft:
        yield "draft", f"{row.draft} can draft for it"
    if row.downloads is not None:
        yield "downloads", f"{row.downloads:,}"
    if row.updated:
        yield "changed", row.updated
    if row.here:
        yield "last used", row.used or "never"
    yield "source", str(replace(row.hub, revision=None)) if row.hub is not None else row.source
    if free is not None:
        yield "disk", f"{size(free)} free"


def _state(row: Row, *, in_use: bool) -> str:
    if row.missing:
        return "its files are gone; d downloads them again, delete removes the entry"
    if in_use:
        return "in use"
    if row.here:
        return "on this machine"
    return "a quantization is to be chosen (v)" if row.choices else "not downloaded"
