"""From settings to an objective."""

from collections.abc import Mapping
from pathlib import Path

from macllm.errors import OptionError
from macllm.spec import ModelSpec
from macllm.tune.batches import Batching
from macllm.tune.objective import Objective, SupervisedTokens
from macllm.tune.objectives.balanced import Balanced
from macllm.tune.objectives.distill import distill_of
from macllm.tune.objectives.grpo import grpo_of
from macllm.tune.objectives.kinds import KINDS, refuse_settings
from macllm.tune.objectives.kto import KTO, Weights
from macllm.tune.objectives.preference import CPO, DPO, IPO, ORPO, SimPO
from macllm.tune.objectives.reference import Reference
from macllm.tune.objectives.reward import BradleyTerry
from macllm.tune.settings import DEFAULTS, Value


def objective_of(settings: Mapping[str, Value], spec: ModelSpec, base: Path) -> Objective:
    """What a run on the model at ``base``, of this spec, minimizes.

    Raises OptionError for a setting that says nothing to the objective, or to the model.
    """
    made = _by_name(settings, spec, base)
    weight = float(settings["balance"])
    if not weight:
        return made
    if not any(tensor.kind == "router" for tensor in spec.tensors()):
        raise OptionError(
            f"balance={weight:g} is for mixtures of experts, and family {spec.family!r} has none here; leave it out"
        )
    return Balanced(made, weight)


def _by_name(settings: Mapping[str, Value], spec: ModelSpec, base: Path) -> Objective:
    name = str(settings["objective"])
    refuse_settings(name, settings, DEFAULTS)
    if name == "sft":
        return SupervisedTokens()
    if name == "reward":
        return BradleyTerry(int(settings["seed"]))
    if name == "grpo":
        return grpo_of(settings, base)
    if name == "distill":
        return distill_of(settings, spec, base)
    beta, smoothing = float(settings.get("beta", KINDS[name].beta)), float(settings["label_smoothing"])
    longest = int(settings["max_seq_length"])
    reference = Reference(base, Batching(2 * int(settings["batch_size"]), longest))
    match name:
        case "dpo":
            return DPO(beta, smoothing, reference)
        case "ipo":
            return IPO(beta, reference)
        case "simpo":
            return SimPO(beta, float(settings["simpo_gamma"]), smoothing)
        case "cpo":
            return CPO(beta, float(settings["cpo_alpha"]), smoothing)
        case "orpo":
            return ORPO(beta)
        case "kto":
            weights = Weights(float(settings["desirable_weight"]), float(settings["undesirable_weight"]))
            return KTO(beta, weights, reference, longest)
    raise ValueError(f"objective {name!r} is in the table and nowhere else")
