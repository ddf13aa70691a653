"""The hub's fixtures for the screens that speak with it: a home of its own, a local hub."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent.parent / "hub"))

from hub_fixtures import home, hub, model_files

__all__ = ["home", "hub", "model_files"]
