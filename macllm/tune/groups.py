"""The settings of a run under the headings that help texts and recipes show them by."""

from macllm.tune.settings import SETTINGS, Setting

_GROUPS: tuple[tuple[str, str], ...] = (
    (
        "what learns, and from what",
        "objective method rank scale loraplus_ratio dropout targets num_layers virtual_tokens learn keys",
    ),
    (
        "steps",
        "epochs iters batch_size grad_accumulation_steps learning_rate schedule warmup optimizer optimizer_bits"
        " weight_decay clip seed",
    ),
    ("memory", "max_seq_length pack grad_checkpoint memory"),
    ("looks and saves", "steps_per_eval samples early_stop save_every"),
)
_REST = "of some objectives"


def grouped() -> tuple[tuple[str, tuple[Setting, ...]], ...]:
    """Headings with their settings, every one once."""
    by_name = {setting.name: setting for setting in SETTINGS}
    found = [(title, tuple(by_name.pop(name) for name in names.split())) for title, names in _GROUPS]
    return (*found, *([(_REST, tuple(by_name.values()))] if by_name else []))
