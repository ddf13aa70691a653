"""llama.cpp's architectures: what each one's keys and tensors mean where that differs from the rest.

Every module of this folder is read; a function that is marked ``@architecture("name", "model_type", ...)`` turns a
file's header into the config of the model. What llama.cpp computes without a key for it stands there too.
"""

import pkgutil
from importlib import import_module

for _module in pkgutil.iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")
