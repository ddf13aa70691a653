"""What one run of the benchmark measures: model, sizes, repeats, and where made models are kept."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

GROUPS = (
    "prefill",
    "decode",
    "host",
    "families",
    "start",
    "help",
    "import",
    "load",
    "finetune",
    "finetune-speed",
    "finetune-memory",
    "app",
)


@dataclass(frozen=True)
class Settings:
    """Sizes are tokens; ``only`` are the rows' keys, empty for all."""

    model: Path
    vocab: int
    results: Path  # bench/results: made models and reports
    only: Sequence[str] = ()
    quick: bool = False
    prompt_tokens: int = 512
    decode_tokens: int = 32
    repeats: int = 3
    process_repeats: int = 5
    host_steps: int = 200
    tiny_layers: int = 30
    tiny_width: int = 64
    families: Sequence[str] = ()  # empty: all native ones
    family_layers: int = 24

    @property
    def prompt(self) -> list[int]:
        """The same ids for every program."""
        import random

        generator = random.Random(0)
        return [generator.randrange(self.vocab) for _ in range(self.prompt_tokens)]

    @property
    def tiny(self) -> Path:
        return self.results / "models" / f"tiny-{self.tiny_layers}x{self.tiny_width}"

    def mlx_folder(self, dtype: str) -> Path:
        """Where the model's weights lie as mlx-lm's folder."""
        return self.results / "models" / f"{self.model.stem}-{dtype}"

    def wants(self, *keys: str) -> bool:
        """Whether any of these rows is to be measured."""
        return not self.only or bool(set(keys) & set(self.only))
