"""llama.cpp as a reference: logits, tokens and requantized files, each from a process of its own."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    import numpy as np

# Repacked weights need instructions that some virtual machines fault on; a fault ends the peer's process only.
_PREAMBLE = """
import json, sys
import numpy as np
import llama_cpp
from llama_cpp import Llama

defaults = llama_cpp.llama_cpp.llama_model_default_params

def as_stored():
    parameters = defaults()
    parameters.use_extra_bufts = False
    return parameters

llama_cpp.llama_cpp.llama_model_default_params = as_stored
job = json.loads(sys.stdin.read())
"""
# The keys and values of attention are kept in float32 (type 0), as macllm keeps them on a CPU. One thread: its
# threads wait by spinning, which costs minutes where tests run side by side.
_LOGITS = """
ids = job["ids"]
llama = Llama(
    job["path"], n_ctx=len(ids) + 8, logits_all=True, type_k=0, type_v=0, flash_attn=False, verbose=False,
    n_threads=1, n_threads_batch=1, lora_path=job["lora"],
)
llama.eval(ids)
np.save(job["out"], np.array(llama.scores[: len(ids)], dtype=np.float32))
"""
_TOKENS = """
rows = []
for path in job["paths"]:
    llama = Llama(path, vocab_only=True, verbose=False)
    rows.append([llama.tokenize(text.encode(), False, job["special"]) for text in job["texts"]])
json.dump(rows, sys.stdout)
"""
_QUANTIZE = """
parameters = llama_cpp.llama_model_quantize_default_params()
kind = "ALL_F32" if job["type"] == "F32" else "MOSTLY_" + job["type"]
parameters.ftype = getattr(llama_cpp, "LLAMA_FTYPE_" + kind)
parameters.allow_requantize = True
parameters.nthread = 2
sys.exit(llama_cpp.llama_model_quantize(job["source"].encode(), job["target"].encode(), parameters))
"""


def require_llama_cpp() -> None:
    """Skips the test where llama.cpp is not installed."""
    pytest.importorskip("llama_cpp", reason="needs the peers group: make test-all installs it")


def logits(path: Path, ids: Sequence[int], scratch: Path, lora: Path | None = None) -> "np.ndarray":
    """llama.cpp's logits (L, V) of a file, with an adapter; ``scratch`` is a folder they pass through."""
    import numpy as np

    out = scratch / f"{path.stem}-peer.npy"
    _run(_LOGITS, path=str(path), ids=list(ids), out=str(out), lora=str(lora) if lora else None)
    result: np.ndarray = np.load(out)
    return result


def tokens(paths: Sequence[Path], texts: Sequence[str], *, special: bool) -> list[list[list[int]]]:
    """llama.cpp's ids of each text by each file's tokenizer, nothing added in front or behind."""
    answer = _run(_TOKENS, paths=[str(path) for path in paths], texts=list(texts), special=special)
    rows: list[list[list[int]]] = json.loads(answer)
    return rows


def quantize(source: Path, target: Path, type_name: str) -> Path:
    """Writes ``source`` in another type (``Q4_K_M``; ``F32`` undoes it) by llama.cpp; returns ``target``."""
    _run(_QUANTIZE, source=str(source), target=str(target), type=type_name)
    return target


def _run(code: str, **job: Any) -> str:
    done = subprocess.run(
        [sys.executable, "-c", _PREAMBLE + code],
        input=json.dumps(job),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"llama.cpp ended with {done.returncode}:\n{done.stderr[-4000:]}"
    return done.stdout
