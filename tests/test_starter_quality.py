"""The starter against llama.cpp on the same file: perplexity and top tokens over 1,000 tokens of real text."""

import argparse
import decimal
import inspect
import json
import statistics
import subprocess
from pathlib import Path
from typing import Any

import llama_cpp_peer
import numpy as np
import pytest

import macllm

COUNT = 1000


def real_text() -> str:
    """English prose about programming, written by many people: documentation of Python's own library."""
    pieces = [
        statistics.__doc__,
        argparse.__doc__,
        decimal.__doc__,
        inspect.getdoc(subprocess.Popen),
        json.__doc__,
    ]
    return "\n\n".join(piece for piece in pieces if piece)


def negative_log_likelihood(logits: np.ndarray, ids: list[int]) -> Any:
    """Of each next token, in nats."""
    rows = logits[:-1].astype(np.float64)
    rows -= rows.max(-1, keepdims=True)
    logp = rows - np.log(np.exp(rows).sum(-1, keepdims=True))
    return -logp[np.arange(len(ids) - 1), ids[1:]]


@pytest.mark.slow
def test_perplexity_and_top_tokens_agree_with_llama_cpp(starter_gguf: Path, tmp_path: Path) -> None:
    llama_cpp_peer.require_llama_cpp()
    llm = macllm.load(starter_gguf)
    ids = llm.tokenizer.encode(real_text())[:COUNT]
    assert len(ids) == COUNT
    ours, theirs = llm.logits(ids), llama_cpp_peer.logits(starter_gguf, ids, tmp_path)
    assert ours.shape == theirs.shape
    mean_ours = negative_log_likelihood(ours, ids).mean()
    mean_theirs = negative_log_likelihood(theirs, ids).mean()
    agreement = float((ours.argmax(-1) == theirs.argmax(-1)).mean())
    print(f"perplexity {np.exp(mean_ours):.4f} against {np.exp(mean_theirs):.4f}, top token {agreement:.2%}")
    assert abs(np.exp(mean_ours - mean_theirs) - 1) < 0.01
    assert agreement >= 0.96
