"""ancd-ray: discovers the classes of industrial anomalies in large image archives, on Ray.

>>> from ancd_ray import discover
>>> results = discover("/archive/parts", classes=6)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ancd_ray.api import classify, discover
    from ancd_ray.config.errors import AncdError
    from ancd_ray.jobs.frames import Results
    from ancd_ray.jobs.in_memory import Predictions
    from ancd_ray.models.model import ImageInput, Model

__version__ = "0.2.0"
__all__ = ["AncdError", "ImageInput", "Model", "Predictions", "Results", "__version__", "classify", "discover"]

# Every module imports this one first, so nothing is imported before it is asked for.
_HOMES = {
    "AncdError": "ancd_ray.config.errors",
    "ImageInput": "ancd_ray.models.model",
    "Model": "ancd_ray.models.model",
    "Predictions": "ancd_ray.jobs.in_memory",
    "Results": "ancd_ray.jobs.frames",
    "classify": "ancd_ray.api",
    "discover": "ancd_ray.api",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
