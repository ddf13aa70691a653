"""What llama.cpp's converter does for one family alone: its keys, and what becomes of its tensors."""

import pkgutil
from importlib import import_module

for _module in pkgutil.iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")
