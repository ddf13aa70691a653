"""All custom kernels, by name."""

from collections.abc import Mapping

from macllm.kernels import fused, gguf_blocks, nf4, skinny
from macllm.kernels.kernel import Kernel

KERNELS: Mapping[str, Kernel] = {
    kernel.name: kernel for kernel in (*nf4.KERNELS, *gguf_blocks.KERNELS, *skinny.KERNELS, *fused.KERNELS)
}
