"""From settings to an objective."""

from collections.abc import Mapping
from pathlib import Path

from macllm.spec import ModelSpec
from macllm.tune.batches import Batching
from macllm.tune.objective import Objective, SupervisedTokens
from macllm.tune.objectives.kinds import KINDS, refuse_settings
from macllm.tune.objectives.preference import DPO
from macllm.tune.objectives.reference import Reference
from macllm.tune.settings import DEFAULTS, Value


def objective_of(settings: Mapping[str, Value], spec: ModelSpec, base: Path) -> Objective:
    """What a run on the model at ``base``, of this spec, minimizes.

    Raises OptionError for a setting that says nothing to the objective.
    """
    name = str(settings["objective"])
    refuse_settings(name, settings, DEFAULTS)
    if name == "sft":
        return SupervisedTokens()
    beta = float(settings.get("beta", KINDS[name].beta))
    reference = Reference(base, Batching(int(settings["batch_size"]), int(settings["max_seq_length"])))
    return DPO(beta, float(settings["label_smoothing"]), reference)
