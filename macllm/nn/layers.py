"""Which class computes which layer of a spec, and which what an odd architecture has around them."""

from typing import Any

from macllm.families.custom.altup import AltUpLayer, Streams
from macllm.families.custom.side import SideInputs, SideLayer
from macllm.nn.custom.altup import AltUpLayerBlock, StreamsBlock
from macllm.nn.custom.side import SideInputsBlock, SideLayerBlock
from macllm.nn.layer import LayerBlock
from macllm.nn.parameters import Parameters
from macllm.spec import Frame, Layer

_LAYERS: dict[type, Any] = {Layer: LayerBlock, SideLayer: SideLayerBlock, AltUpLayer: AltUpLayerBlock}
_FRAMES: dict[type, Any] = {SideInputs: SideInputsBlock, Streams: StreamsBlock}


def layer_block(spec: Layer, parameters: Parameters, prefix: str) -> Any:
    """The layer: called with states, the step and its caches."""
    return _LAYERS[type(spec)](spec, parameters, prefix)


def frame_block(spec: Frame, parameters: Parameters) -> Any:
    """What stands around the layers.

    ``begin(tokens, x, step)`` makes of ids (B, L) and their embedding (B, L, D) what the first layer takes,
    ``end(x)`` of what the last one gives states (B, L, D).
    """
    return _FRAMES[type(spec)](spec, parameters)
