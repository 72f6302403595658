"""The notebook of the examples: its cells run, and its outputs show nothing of the machine that made them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import REPO

NOTEBOOK = REPO / "examples/notebook/discover.ipynb"


def _read() -> tuple[str, list[dict[str, Any]]]:
    text = NOTEBOOK.read_text("utf-8")
    return text, [cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]


@pytest.mark.slow
def test_cells_run_one_after_the_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("ancd_ray.jobs.tracking.find_store", lambda *_: None)  # half of the time
    names: dict[str, Any] = {}
    for number, cell in enumerate(_read()[1], start=1):
        exec(compile("".join(cell["source"]), f"cell {number}", "exec"), names)
    assert names["results"].report.is_file()


def test_outputs_are_those_of_one_run() -> None:
    text, cells = _read()
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    assert sum(bool(cell["outputs"]) for cell in cells) >= 4
    assert "error" not in {output["output_type"] for cell in cells for output in cell["outputs"]}
    assert len(text) < 300_000
    assert not re.findall(r"(?:/tmp|/home|/root|/work|/Users)/\S*", text)
