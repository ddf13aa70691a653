"""Runs the Metal text of kernels on the CPU, compiled by clang, and watches what it does.

Nothing here is used by a model: it is how a kernel is proven where there is no Mac (``macllm kernels check``).

- ``text``: the Metal that MLX would compile for a launch, from MLX itself;
- ``program``: that text as a C++ program, with ``include/`` for Metal's library and ``runtime/`` for its threads;
- ``compile``: clang, and a cache of what it made, in five builds;
- ``calls``: runs such a program's kernels on buffers in guarded memory;
- ``run``: all of this for one :class:`macllm.kernels.kernel.Launch`, or for many at once;
- ``check``: the cases of kernels, as rows of a table.
"""
