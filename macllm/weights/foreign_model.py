"""Models without a native family, built by mlx-lm's classes with lazy weights; what it refuses becomes one sentence."""

from typing import Any

from mlx.nn.layers.base import Module

from macllm.errors import CheckpointError, ConfigError
from macllm.weights.model_files import ModelFiles


def refuse_unknown(files: ModelFiles) -> None:
    """Raises ConfigError where mlx-lm has no class for the architecture either."""
    if files.gguf is None and "model_type" in files.config:
        from mlx_lm.utils import _get_classes

        try:
            _get_classes(dict(files.config))
            return
        except (ValueError, KeyError):
            pass
    raise ConfigError(
        f"{files.label}: model_type={files.config.get('model_type')!r} is not supported; "
        "`macllm families` shows what is"
    )


def load(files: ModelFiles) -> tuple[Module, dict[str, Any]]:
    """The model and its config as mlx-lm completes it. Raises CheckpointError where it cannot be built.

    mlx-lm runs no code of the folder unless told to, which this never does.
    """
    from mlx_lm.utils import load_model

    try:
        model, config = load_model(files.path, lazy=True)
    except (ValueError, KeyError, TypeError, FileNotFoundError) as error:
        reason = " ".join(str(error).split())[:300]
        raise CheckpointError(
            f"{files.path}: mlx-lm cannot load it: {reason}; download the model again"
        ) from None
    return model, config
