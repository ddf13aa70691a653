"""What a model is, as frozen data. Everything else about a model is derived from its ``ModelSpec``.

No mlx here: sizes, KV-cache bytes and the list of tensors are arithmetic, known before any download.
Canonical tensor names are made of ``embed``, ``layers.N.<block>``, ``norm`` and ``head``; how checkpoints name and
lay out the same tensors is data too (``macllm.spec.names``).
"""

from macllm.spec.attention import Attention, LatentAttention, QKNorm, QueryScale
from macllm.spec.channel import MLP, Activation, Channel, InputScaledMoE, LatentMoE, MoE, SparseMixer
from macllm.spec.mamba import Mamba, Mamba2, ParallelMixers
from macllm.spec.memory import CacheSpec, KeyValues, State, Tokens
from macllm.spec.model import Frame, Layer, Mixer, ModelSpec, NormPlacement
from macllm.spec.names import Entry, Names
from macllm.spec.norm import Norm
from macllm.spec.recurrent import GatedDelta, ShortConv
from macllm.spec.rope import (
    DynamicScaling,
    LinearScaling,
    Llama3Scaling,
    LongScaling,
    ProportionalScaling,
    Rope,
    RopeScaling,
    TableScaling,
    YarnScaling,
)
from macllm.spec.rwkv import ChannelMix, LowRank, TimeMix
from macllm.spec.tensor import TensorKind, TensorSpec

__all__ = [
    "MLP",
    "Activation",
    "Attention",
    "CacheSpec",
    "Channel",
    "ChannelMix",
    "DynamicScaling",
    "Entry",
    "Frame",
    "GatedDelta",
    "InputScaledMoE",
    "KeyValues",
    "LatentAttention",
    "LatentMoE",
    "Layer",
    "LinearScaling",
    "Llama3Scaling",
    "LongScaling",
    "LowRank",
    "Mamba",
    "Mamba2",
    "Mixer",
    "MoE",
    "ModelSpec",
    "Names",
    "Norm",
    "NormPlacement",
    "ParallelMixers",
    "ProportionalScaling",
    "QKNorm",
    "QueryScale",
    "Rope",
    "RopeScaling",
    "ShortConv",
    "SparseMixer",
    "State",
    "TableScaling",
    "TensorKind",
    "TensorSpec",
    "TimeMix",
    "Tokens",
    "YarnScaling",
]
