"""Callbacks that hand a run on to TensorBoard, wandb and trackio: extras, imported only where one is asked for."""

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, TypeAlias

from macllm.errors import OptionError
from macllm.tune.callbacks import Info, TrainingCallback

TENSORBOARD_FOLDER = "tensorboard"  # inside the adapter's
_FLUSH_S = 2  # whoever watches sees it, and a run that is killed has left it
Maker: TypeAlias = Callable[[Any, Path, str, Mapping[str, Any]], TrainingCallback]


class TensorBoardCallback(TrainingCallback):
    """Event files in ``tensorboard`` beside the adapter, for ``tensorboard --logdir``."""

    def __init__(self, library: Any, folder: Path, project: str, config: Mapping[str, Any]) -> None:
        self._writer = library.SummaryWriter(str(folder / TENSORBOARD_FOLDER), flush_secs=_FLUSH_S)
        rows = "\n".join(f"| {name} | {value} |" for name, value in config.items())
        self._writer.add_text("settings", f"| setting | value |\n| --- | --- |\n{rows}")

    def on_train_loss_report(self, train_info: Info) -> None:
        self._add("train", train_info)

    def on_val_loss_report(self, val_info: Info) -> None:
        self._add("validation", val_info)

    def close(self) -> None:
        self._writer.close()

    def _add(self, part: str, info: Info) -> None:
        for name, value in info.items():
            if name != "iteration":
                self._writer.add_scalar(f"{part}/{name}", value, info["iteration"])


class RunCallback(TrainingCallback):
    """A run of wandb, or of trackio, which has the same interface: one figure a key, by ``iteration``."""

    def __init__(self, library: Any, folder: Path, project: str, config: Mapping[str, Any]) -> None:
        self._library = library
        self._run = library.init(project=project, name=folder.name, config=dict(config), **self._more(folder))

    def on_train_loss_report(self, train_info: Info) -> None:
        self._library.log(dict(train_info), step=train_info["iteration"])

    def on_val_loss_report(self, val_info: Info) -> None:
        self._library.log(dict(val_info), step=val_info["iteration"])

    def close(self) -> None:
        self._library.finish()

    def _more(self, folder: Path) -> dict[str, Any]:
        return {}


class WandBCallback(RunCallback):
    """wandb keeps its own files beside the adapter too."""

    def _more(self, folder: Path) -> dict[str, Any]:
        return {"dir": str(folder)}


_MADE: Mapping[
    str, tuple[str, Maker]
] = {  # by name, which is the extra's: the package to import, and what is made
    "tensorboard": ("tensorboardX", TensorBoardCallback),
    "wandb": ("wandb", WandBCallback),
    "trackio": ("trackio", RunCallback),
}
REPORTERS = tuple(_MADE)


def checked_names(text: str) -> tuple[str, ...]:
    """Names with commas between, as mlx-lm's ``--report-to`` takes them. Raises OptionError for one that is not known,
    or whose package is not there."""
    names = tuple(dict.fromkeys(name.strip().lower() for name in text.split(",") if name.strip()))
    for name in names:
        if name not in _MADE:
            raise OptionError(f"report_to={name!r} is not known (expected {', '.join(REPORTERS)})")
        _library(name)
    return names


def reporters(
    names: Sequence[str], folder: Path, project: str, config: Mapping[str, Any]
) -> tuple[TrainingCallback, ...]:
    """The callbacks of these names, for the run that writes to ``folder``; ``config`` are its settings."""
    return tuple(_MADE[name][1](_library(name), folder, project, config) for name in names)


def _library(name: str) -> Any:
    package = _MADE[name][0]
    try:
        return import_module(package)
    except ImportError:
        raise OptionError(
            f"report_to={name} needs the package {package}, which is not installed; `pip install 'macllm[{name}]'`"
        ) from None
