"""macllm: local language models on a Mac."""

from macllm import blas

blas.preload()
