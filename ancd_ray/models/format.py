"""The form in which models are stored; see `model.py`. Imports nothing heavy."""

from __future__ import annotations

from ancd_ray.config.errors import AncdError

FORMAT = 4
DOCUMENT = "model.json"


class ModelError(AncdError):
    """A model cannot be loaded or used; the message is one line."""
