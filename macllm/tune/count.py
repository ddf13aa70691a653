"""How many weights learn, by arithmetic: before a model is loaded."""

import math

from macllm.adapters.learnable import fully_learned
from macllm.adapters.method import AnyMethod, Method
from macllm.adapters.targets import select
from macllm.spec import ModelSpec

COUNTED = ("lora", "qlora", "rslora", "dora", "pissa", "full")


def learned_parameters(spec: ModelSpec, method: AnyMethod) -> int | None:
    """As :class:`macllm.tune.methods.Attached` counts them; None for a method that is counted when it is attached.

    Raises OptionError for targets that name nothing.
    """
    if not isinstance(method, Method) or method.kind not in COUNTED:
        return None
    if method.kind == "full":
        learned = fully_learned(spec, method.num_layers)
        return sum(tensor.size for tensor in spec.tensors() if tensor.name in learned)
    total = 0
    for tensor in select(spec, method.targets, method.num_layers):
        *count, outputs, inputs = tensor.shape
        each = method.rank * (outputs + inputs) + (outputs if method.kind == "dora" else 0)
        total += math.prod(count) * each
    return total
