"""The screen's process has no model library in it: importing every module, and the app at work on a recording."""

from collections.abc import Callable
from pathlib import Path

HEAVY = "('mlx', 'mlx_lm', 'numpy', 'transformers', 'torch', 'tokenizers')"
LISTED = f"print(sorted(name for name in sys.modules if name.split('.')[0] in {HEAVY}))"
RECORDINGS = Path(__file__).parent / "recordings"


def test_no_module_of_the_app_imports_a_model_library(run_python: Callable[..., str]) -> None:
    code = f"""
import importlib, pkgutil, sys
import macllm_tui.app
found = [module.name for module in pkgutil.walk_packages(macllm_tui.__path__, "macllm_tui.")]
for name in found:
    importlib.import_module(name)
assert len(found) > 60 and "macllm_tui.screens.compare" in found, found
{LISTED}
"""
    assert run_python(code).strip() == "[]"


def test_the_app_at_work_needs_none(run_python: Callable[..., str]) -> None:
    code = f"""
import sys
from pathlib import Path
from macllm_tui.replay import replay
for path in sorted(Path({str(RECORDINGS)!r}).glob("*.jsonl")):
    assert len(replay(path, (100, 30), None).splitlines()) == 30
{LISTED}
"""
    assert run_python(code).strip() == "[]"
