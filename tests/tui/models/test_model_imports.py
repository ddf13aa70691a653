"""The screens of models never bring mlx, numpy or the API into the screen's process."""


def test_importing_every_screen_of_models_brings_no_mlx(run_python):
    names = "downloads model_refs model_rows model_deletion screens.models screens.welcome screens.explain"
    names += " screens.variants screens.conversion"
    code = f"""
import importlib, sys
for name in {names.split()!r}:
    importlib.import_module("macllm_tui." + name)
from macllm.hub import search, huggingface, unfinished
print(sorted(name for name in sys.modules if name.split(".")[0] in ("mlx", "numpy") or name == "macllm.api"))
"""
    assert run_python(code).strip() == "[]"
