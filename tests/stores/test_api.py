"""The functions for notebooks with archive and output in an object store."""

from __future__ import annotations

import pytest

from ancd_ray import AncdError, Results, classify
from ancd_ray.config.job import Job
from ancd_ray.jobs import tracking
from tests.conftest import Ran
from tests.stores.server import SECRET, Store

pytestmark = pytest.mark.slow


def test_results_in_a_store(finished: tuple[Job, Ran], store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracking, "find_store", lambda *_: None)
    place, output = store.uri("archive/demo/tile"), store.uri("results/api")
    overrides = ["resources.in_process_below=1000"]
    results = classify(place, finished[1].folder.uri, output, overrides=overrides, progress=False)
    assert results.folder.startswith("s3://results/api/runs/tile-")
    assert SECRET not in repr(results) + results._repr_html_()
    again = Results(results.folder)
    assert len(again.images) == 25
    assert set(again.regions["image_id"]) <= set(again.images["image_id"])
    assert again.model().class_names == again.class_names["tile"]
    assert f'href="{results.folder}/report.html"' in again._repr_html_()
    with pytest.raises(AncdError, match="open it in the object store"):
        _ = again.report
