"""Which class computes which block of a spec."""

from typing import Any

from macllm.families.custom.side import ExpertsBeside, SparseMLP
from macllm.nn.attention import AttentionBlock
from macllm.nn.custom.channels import ExpertsBesideBlock, SparseMLPBlock
from macllm.nn.gated_delta import GatedDeltaBlock
from macllm.nn.latent_attention import LatentAttentionBlock
from macllm.nn.mamba import MambaBlock
from macllm.nn.mamba2 import Mamba2Block
from macllm.nn.mlp import MLPBlock
from macllm.nn.moe import InputScaledMoEBlock, LatentMoEBlock, MoEBlock
from macllm.nn.parallel_mixers import ParallelMixersBlock
from macllm.nn.parameters import Parameters
from macllm.nn.rwkv7 import ChannelMixBlock, TimeMixBlock
from macllm.nn.short_conv import ShortConvBlock
from macllm.spec import (
    MLP,
    Attention,
    Channel,
    ChannelMix,
    GatedDelta,
    InputScaledMoE,
    LatentAttention,
    LatentMoE,
    Mamba,
    Mamba2,
    Mixer,
    MoE,
    ParallelMixers,
    ShortConv,
    SparseMixer,
    TimeMix,
)

_MIXERS: dict[type, Any] = {
    Attention: AttentionBlock,
    GatedDelta: GatedDeltaBlock,
    LatentAttention: LatentAttentionBlock,
    Mamba: MambaBlock,
    Mamba2: Mamba2Block,
    ShortConv: ShortConvBlock,
    TimeMix: TimeMixBlock,
}
_CHANNELS: dict[type, Any] = {
    MLP: MLPBlock,
    ChannelMix: ChannelMixBlock,
    MoE: MoEBlock,
    InputScaledMoE: InputScaledMoEBlock,
    LatentMoE: LatentMoEBlock,
    SparseMixer: MoEBlock,
    SparseMLP: SparseMLPBlock,
    ExpertsBeside: ExpertsBesideBlock,
}


def mixer_block(spec: Mixer, parameters: Parameters, prefix: str) -> Any:
    """The block over positions: called with states (B, L, D), the step and its caches."""
    if isinstance(spec, ParallelMixers):
        parts = {name: mixer_block(mixer, parameters, f"{prefix}.{name}") for name, mixer in spec.mixers}
        return ParallelMixersBlock(spec, parts)
    return _MIXERS[type(spec)](spec, parameters, prefix)


def channel_block(spec: Channel, parameters: Parameters, prefix: str) -> Any:
    """The block over channels: called with states (B, L, D); with the step and its caches too where it has any."""
    return _CHANNELS[type(spec)](spec, parameters, prefix)
