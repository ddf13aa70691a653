"""Deletes a model, or what a download left of one, and says beforehand what that frees and what it keeps."""

from macllm import paths
from macllm.hub import store
from macllm.hub.pull import free_name
from macllm.hub.unfinished import unfinished
from macllm.units import size
from macllm_tui.model_rows import Row


def question(row: Row, *, in_use: bool) -> str | None:
    """What to ask before; None where there is nothing of it on this machine."""
    if row.missing:
        return f"Remove {row.name} from the list? Its files are gone already."
    if row.here:
        now = " It is in use now." if in_use else ""
        if row.owned or _inside(row):
            return f"Delete {row.name}?{now} About {size(row.size_bytes or 0)} are freed."
        return f"Remove {row.name} from the list?{now} Its files stay at {row.folder}."
    left = sum(path.stat().st_size for path in unfinished(row.source, free_name(row.source)) if path.exists())
    return f"Delete the {size(left)} of {row.title} that arrived?" if left else None


def delete(row: Row) -> str:
    """Deletes an installed model; says what came of it. Raises SourceError."""
    removed = store.remove(row.name)
    if removed.kept is not None:
        return f"{removed.name} is off the list; its files stay at {removed.kept}."
    return f"{removed.name} is deleted, {size(removed.freed_bytes)} freed."


def _inside(row: Row) -> bool:
    return row.folder.startswith(f"{paths.models_dir()}/")
