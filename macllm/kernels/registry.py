"""All custom kernels, by name."""

from collections.abc import Mapping

from macllm.kernels import fused, gguf_blocks, kv_attention, kv_memory, nf4_kernels, skinny
from macllm.kernels.kernel import Kernel

_MODULES = (nf4_kernels, gguf_blocks, skinny, fused, kv_memory, kv_attention)
KERNELS: Mapping[str, Kernel] = {kernel.name: kernel for module in _MODULES for kernel in module.KERNELS}
