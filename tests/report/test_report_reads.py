"""What a report reads of a product with very many regions: rows that it shows, and of others a few short columns."""

from __future__ import annotations

from collections import Counter
from datetime import datetime, timezone
from typing import Any

import numpy as np
import pytest

from ancd_ray.config.job import Job
from ancd_ray.data.roles import make_class_ids
from ancd_ray.data.store import Folder
from ancd_ray.engine.outputs import Part
from ancd_ray.jobs.identity.tables import find_titles
from ancd_ray.jobs.report import MAX_POINTS, build, count_points
from ancd_ray.jobs.report.build_classes import read_crops
from ancd_ray.jobs.results import open_run
from tests.conftest import Ran

LONG = {"embedding", "probs", "image", "mask", "uri"}  # columns that take most of the memory


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, list[str] | None, int]]:
    """Every part that is read: its table, columns and rows."""
    found: list[tuple[str, list[str] | None, int]] = []
    read = Part.read

    def count(self: Part, folder: Folder, columns: list[str] | None = None) -> Any:
        found.append((self.file.partition("/")[0], columns, self.rows))
        return read(self, folder, columns)

    monkeypatch.setattr(Part, "read", count)
    return found


def test_long_columns_are_read_a_part_at_a_time(
    finished: tuple[Job, Ran], reads: list[tuple[str, list[str] | None, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole: Counter[str] = Counter()
    _, run = finished
    job, results = open_run(run.folder)
    table = type(results.products["tile"].table("regions"))
    read = table.read

    def note(self: Any, columns: list[str] | None = None) -> Any:
        whole.update(LONG & set(columns or LONG))
        return read(self, columns)

    monkeypatch.setattr(table, "read", note)
    monkeypatch.setattr(build, "count_points", lambda _: 20)
    embedded: list[int] = []
    embed = build.embedding_2d
    monkeypatch.setattr(build, "embedding_2d", lambda x, seed: embedded.append(len(x)) or embed(x, seed))
    classified = results.products["tile"].figures("classifier")
    titles = find_titles({}, make_class_ids("tile", classified["n_novel"], classified["has_normal"]))
    report = build.build_report(job, results, datetime.now(timezone.utc), {"tile": titles}, Folder("runs/x"))
    assert not whole, "of no table all rows"
    assert embedded == [20], "t-SNE has the points that are shown"
    assert report.products[0].token_map is not None
    assert len(report.products[0].token_map.cls) == 20
    pictures = [n for name, columns, n in reads if name == "regions" and columns is None]
    assert len(pictures) <= len(results.products["tile"].table("regions").parts)


def test_pictures_are_read_of_parts_that_have_them(
    finished: tuple[Job, Ran], reads: list[tuple[str, list[str] | None, int]]
) -> None:
    _, run = finished
    _, results = open_run(run.folder)
    regions = results.products["tile"].table("regions")
    assert len(regions.parts) > 1
    (wanted,) = regions.read_part(regions.parts[-1], ["region_id"]).slice(0, 1).column("region_id").to_pylist()
    reads.clear()
    found = read_crops(regions, {wanted})
    assert list(found) == [wanted]
    assert [columns for _, columns, _ in reads].count(None) == 1


def test_maps_share_the_points_of_a_report() -> None:
    assert count_points(1) == count_points(0) == MAX_POINTS <= 2000
    assert count_points(200) * 200 <= 12_000
    assert np.all(np.diff([count_points(n) for n in range(1, 300)]) <= 0)
