"""All custom kernels, by name."""

from collections.abc import Mapping

from macllm.kernels import gguf_blocks, nf4
from macllm.kernels.kernel import Kernel

KERNELS: Mapping[str, Kernel] = {kernel.name: kernel for kernel in (*nf4.KERNELS, *gguf_blocks.KERNELS)}
