"""Golden maps: inputs and outputs of the released program's binarization."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(os.environ.get("ANCD_SHARED", Path(__file__).resolve().parents[3] / "shared")) / "golden"


def _cases() -> list[Any]:
    file = FOLDER / "mebin_golden.json"
    if not file.is_file():
        return [pytest.param(None, marks=pytest.mark.skip(reason=f"no golden maps at {FOLDER}; set ANCD_SHARED"))]
    sets = json.loads(file.read_text())["sets"]
    return [
        pytest.param((set_, case, FOLDER), id=f"{name}-{case['name']}")
        for name, set_ in sets.items()
        for case in set_["maps"]
    ]


@pytest.fixture(params=_cases())
def golden_map(request: pytest.FixtureRequest) -> tuple[dict[str, Any], dict[str, Any], Path]:
    """Return the set with its range, one map with the expected results, and the golden folder."""
    return request.param
