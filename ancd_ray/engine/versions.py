"""Versions of the libraries that results depend on."""

from __future__ import annotations

from functools import cache
from importlib.metadata import PackageNotFoundError, version

LIBRARIES = (
    "ancd-ray",
    "ray",
    "torch",
    "timm",
    "numpy",
    "pyarrow",
    "opencv-python-headless",
    "openvino",
    "scikit-learn",
    "mlflow",
)


@cache
def read_versions() -> dict[str, str]:
    """Return the versions of the libraries that a result depends on."""
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # another distribution of the same package, such as opencv-python
            continue
    return found
