"""A home of its own for every test, and a hub that the real client talks to."""

from hub_fixtures import home, hub, model_files

__all__ = ["home", "hub", "model_files"]
