"""What a training step keeps of a token inside a layer, in values, and what the layer's backward pass adds to it.

Derived from what each operation's gradient needs: a norm its input, a product with an adapter its input, attention
queries, keys and values (scores are computed anew), a gate what it multiplies. No MLX.
"""

from collections.abc import Collection
from dataclasses import dataclass

from macllm.spec import MLP, Attention, Layer, MoE

# Of every hidden value: what its activation keeps where it is made of single operations, as on CPU, or of one kernel
# whose gradient is computed from its inputs; and what its backward pass has in memory beside that.
_SINGLE_KEPT, _FUSED_KEPT = 5, 0
_SINGLE_BACKWARD, _FUSED_BACKWARD = 3, 2
_OTHER_MIXERS = 3  # times the working values of a mixer without a formula of its own


@dataclass(frozen=True)
class LayerValues:
    """Of one token: ``kept`` until the layer's backward pass, ``backward`` more while that runs."""

    kept: float
    backward: float


@dataclass(frozen=True)
class Learning:
    """What of a layer learns, as far as activations go.

    ``targets``: ends of the names of its matrices that have an adapter or learn themselves (``mixer.q``).
    ``rows``: values of every output that the method keeps beside it (DoRA: 2). ``dropout``: whether inputs of
    adapters are masked. ``fused``: whether activations and attention are one kernel each. ``copies``: values that an
    adapter's float32 copy of its input takes; 0 where it is computed in float32 and needs none.
    """

    targets: Collection[str]
    rank: int
    rows: int
    dropout: bool
    fused: bool
    copies: int = 0


def layer_values(layer: Layer, dim: int, learning: Learning) -> LayerValues:
    """Values of a token inside ``layer`` over states of ``dim``."""
    kept = backward = 0.0
    mixer, channel = layer.mixer, layer.channel
    if mixer is not None:
        found = (
            _attention(mixer, dim, learning)
            if isinstance(mixer, Attention)
            else _other(mixer.working_values, dim)
        )
        kept, backward = kept + found.kept, max(backward, found.backward)
    if channel is not None:
        if isinstance(channel, MLP):
            found = _mlp(channel, dim, learning, "channel")
        elif isinstance(channel, MoE):
            found = _moe(channel, dim, learning)
        else:
            found = _other(channel.working_values, dim)
        kept, backward = kept + found.kept, max(backward, found.backward)
    after = sum(name.endswith("post_norm") for name in layer.norms)
    return LayerValues(kept + dim * (after + (mixer is not None and channel is not None)), backward + dim)


def _attention(spec: Attention, dim: int, learning: Learning) -> LayerValues:
    heads = sum(spec.projections.values())
    width, queries = heads * spec.head_dim, spec.heads * spec.head_dim
    turned = queries + (spec.kv_heads * spec.head_dim if spec.source is None else 0)
    kept = float(width)  # the values lie in what the projections gave
    if spec.rope is not None or spec.qk_norm is not None:
        kept += turned
    if spec.gated:
        kept += 2 * queries
    if learning.fused:
        kept += queries  # what the kernel gave, for its gradient
    kept += _input(dim, width, [f"mixer.{name}" for name in spec.projections], learning)
    kept += _input(queries, dim, ["mixer.o"], learning, always=True)  # also what attention gave
    return LayerValues(kept, 2 * turned)


def _mlp(spec: MLP, dim: int, learning: Learning, prefix: str) -> LayerValues:
    inputs = len(spec.inputs)
    activation = spec.hidden * (_FUSED_KEPT if learning.fused else _SINGLE_KEPT)
    kept = float(spec.hidden * inputs + activation)
    kept += _input(dim, spec.hidden * inputs, [f"{prefix}.{name}" for name in spec.inputs], learning)
    kept += _input(spec.hidden, dim, [f"{prefix}.down"], learning)
    return LayerValues(kept, spec.hidden * (_FUSED_BACKWARD if learning.fused else _SINGLE_BACKWARD))


def _moe(spec: MoE, dim: int, learning: Learning) -> LayerValues:
    expert = MLP(spec.experts_dim, spec.hidden, spec.activation, spec.gated)
    one = _mlp(expert, spec.experts_dim, learning, "channel.experts")
    # its input is a copy of the token's states for every expert, and what it gives is weighted
    kept = spec.top_k * (one.kept + 2 * spec.experts_dim) + 3 * spec.experts + dim
    backward = spec.top_k * (one.backward + spec.experts_dim)
    if spec.shared is not None:
        shared = _mlp(spec.shared, dim, learning, "channel.shared")
        kept, backward = kept + shared.kept, max(backward, shared.backward)
    return LayerValues(kept, backward)


def _other(working_values: int, dim: int) -> LayerValues:
    return LayerValues(_OTHER_MIXERS * working_values + dim, working_values)


def _input(
    width: int, outputs: int, names: Collection[str], learning: Learning, *, always: bool = False
) -> float:
    """What is kept of a product's input for the gradients of its matrices or of adapters beside them."""
    learns = [name for name in names if name in learning.targets]
    if not learns:
        return width if always else 0
    masks = 1.25 * width if learning.dropout else 0  # what is left, and a byte that says which
    copied = learning.copies * width * len(learns)
    own = width if always or not copied else 0
    return (
        own
        + copied
        + masks
        + learning.rank * len(learns)
        + learning.rows * outputs * len(learns) / len(names)
    )
