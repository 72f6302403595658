"""Nights of an archive: products without a model, a registry that is away, late and duplicate arrivals."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from unittest.mock import patch

import cv2
import numpy as np
import pytest
from click.testing import CliRunner
from deltalake import DeltaTable, write_deltalake

from ancd_ray.cli.main import main
from ancd_ray.config.load import JobError
from ancd_ray.data.store import Folder
from ancd_ray.jobs import tracking
from ancd_ray.jobs.classify.plan import make
from ancd_ray.jobs.identity.assign import assign_class
from ancd_ray.jobs.nights import statistics
from tests.nights import HELD_BACK, arrive, list_others, make_job, read_table, run_night


def test_a_product_without_a_model_does_not_stop_the_others(
    source: Path, discovered: Folder, arrivals: Path, tmp_path: Path
) -> None:
    arrive(source, arrivals, list_others(source)[0], 0, 3)
    shutil.copytree(arrivals / "tile", arrivals / "plate")
    models = tmp_path / "models"
    shutil.copytree((discovered / "models/tile").path, models / "tile")
    products = [{"name": name, "layout": "mvtec", "path": name} for name in ("tile", "plate")]
    keys = {"data": {"root": str(arrivals), "products": products}, "alerts": {}}
    job = make_job(arrivals, tmp_path / "out", f"{models}/{{product}}", **keys)
    _, summary = run_night(job)
    assert [product["product"] for product in summary["products"]] == ["tile"]
    assert summary["alerts"][0].startswith("plate: not classified: ")
    (models / "plate").mkdir()
    document = json.loads((models / "tile/model.json").read_text())
    (models / "plate/model.json").write_text(json.dumps({**document, "format": 99}))
    with pytest.raises(JobError, match="format 99"):
        make(
            make_job(
                arrivals, tmp_path / "out", f"{models}/{{product}}", data={**keys["data"], "products": products[1:]}
            )
        )


def test_the_registry_is_away(source: Path, discovered: Folder, arrivals: Path, tmp_path: Path) -> None:
    arrive(source, arrivals, list_others(source)[0], 0, 3)
    place = str((discovered / "models/tile").path)
    with patch.object(tracking, "download_model", return_value=place):
        run_night(make_job(arrivals, tmp_path / "out", "models:/tile@champion"))
    arrive(source, arrivals, list_others(source)[0], 3, 5)
    job = make_job(arrivals, tmp_path / "out", "models:/tile@champion")
    away = tracking.RegistryAway("models:/tile@champion: no answer")
    with patch.object(tracking, "download_model", side_effect=away):
        assert "the model of the last job" in make(job).warnings[0]
        _, summary = run_night(job)
        assert summary["products"][0]["new"] == 2
        with pytest.raises(JobError, match="no answer"):
            make(make_job(arrivals, tmp_path / "elsewhere", "models:/tile@champion"))
    missing = tracking.TrackingProblem("models:/tile@champion: no such alias")
    with patch.object(tracking, "download_model", side_effect=missing), pytest.raises(JobError, match="no such alias"):
        make(job)


def test_late_and_duplicate_arrivals(source: Path, discovered: Folder, arrivals: Path, tmp_path: Path) -> None:
    job = make_job(arrivals, tmp_path / "out", discovered, reclassify=False)
    folder = arrivals / "tile/test" / list_others(source)[0]
    arrive(source, arrivals, folder.name, 0, 3)
    for number, file in enumerate(sorted(folder.iterdir())):
        os.utime(file, (86_400 * (number + 10),) * 2)
    run_night(job)
    arrive(source, arrivals, folder.name, 3, 4)
    late = max(folder.iterdir())
    os.utime(late, (86_400.0 * 2,) * 2)
    shutil.copy2(late, late.with_name("again.png"))  # the same picture under another name is an image of its own
    shutil.copy2(
        arrivals / f"tile/ground_truth/{folder.name}/{late.stem}_mask.png",
        arrivals / f"tile/ground_truth/{folder.name}/again_mask.png",
    )
    _, summary = run_night(job)
    assert summary["products"][0]["new"] == 2
    days = sorted(row["day"].isoformat() for row in read_table(tmp_path / "out", "image_predictions"))
    assert days == ["1970-01-03", "1970-01-03", "1970-01-11", "1970-01-12", "1970-01-13"]
    os.utime(late, (86_400.0 * 5,) * 2)  # delivered once more
    _, summary = run_night(job)
    rows = read_table(tmp_path / "out", "image_predictions")
    assert summary["products"][0]["images"] == len(rows) == len({row["image_id"] for row in rows}) == 5


def test_the_list_of_nights_links_to_the_reports_that_are_there(
    source: Path, discovered: Folder, arrivals: Path, tmp_path: Path
) -> None:
    job = make_job(arrivals, tmp_path / "out", discovered)
    folders = []
    for night in range(2):
        arrive(source, arrivals, list_others(source)[0], 2 * night, 2 * night + 2)
        folders.append(run_night(job)[0].path)
    index = tmp_path / "out/nights/index.html"
    links = [f'href="../runs/{folder.name}/night.html"' for folder in folders]
    assert all(link in index.read_text() for link in links)
    assert CliRunner().invoke(main, ["clean", str(tmp_path / "out"), "--keep", "1"]).exit_code == 0
    assert [link in index.read_text() for link in links] == [False, True]
    assert index.read_text().count("<time") == 3, "both nights, and the last one of the product"


def _arrive_brighter(arrivals: Path, label: str) -> None:
    """Adds each image of a label once more, with brighter pixels and the same mask."""
    masks = arrivals / "tile/ground_truth" / label
    for file in sorted((arrivals / "tile/test" / label).iterdir()):
        pixels = cv2.imread(str(file))
        cv2.imwrite(
            str(file.with_stem(f"bright{file.stem}")), np.minimum(pixels.astype(int) + 40, 255).astype(np.uint8)
        )
        shutil.copy2(masks / f"{file.stem}_mask.png", masks / f"bright{file.stem}_mask.png")


def test_brighter_images_are_drift(
    source: Path, discovered: Folder, arrivals: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(statistics, "_FEWEST", 20)  # of a small archive
    job = make_job(arrivals, tmp_path / "out", discovered, reclassify=False, alerts={})
    labels = list_others(source)[:2]
    assert sum(arrive(source, arrivals, label, 0, 30) for label in labels) >= 50
    run_night(job)
    for label in labels:
        _arrive_brighter(arrivals, label)
    folder, summary = run_night(job)
    drift = {each["figure"]: each for each in folder.read_json("night.json")["products"][0]["drift"]}
    assert drift["brightness"]["is_outside"]
    assert not drift["confidence"]["is_outside"]
    assert any(alert.startswith("tile: brightness ") for alert in summary["alerts"])
    assert "The images are brighter or darker than before" in folder.read("night.html").decode()


def test_tables_of_an_earlier_version_have_no_brightness(
    source: Path, discovered: Folder, arrivals: Path, tmp_path: Path
) -> None:
    """They get the column with the next night that writes; what they have is read as it is."""
    output, label = tmp_path / "out", list_others(source)[0]
    job = make_job(arrivals, output, discovered, reclassify=False)
    arrive(source, arrivals, label, 0, 3)
    run_night(job)
    arrive(source, arrivals, HELD_BACK, 0, 2)
    run_night(job)
    place = str(output / "archive/image_predictions")
    rows = DeltaTable(place).to_pyarrow_table().drop_columns(["brightness"])
    write_deltalake(place, rows, mode="overwrite", schema_mode="overwrite", partition_by=["product"])
    run_night(job)
    assert "brightness" not in DeltaTable(place).to_pyarrow_table().column_names, "nothing is new"
    region = next(row for row in read_table(output, "region_predictions") if row["is_unknown"])
    assign_class(Folder(str(output)), "tile-c0009", [region["region_id"]])
    first = min((arrivals / "tile/test" / label).iterdir())
    first.unlink()  # its partition is published again, from what the table has
    arrive(source, arrivals, label, 3, 5)
    _, summary = run_night(job)
    found = {Path(row["uri"]).name: row for row in read_table(output, "image_predictions") if row["label"] == label}
    assert len(found) == 4
    assert [row["brightness"] is None for _, row in sorted(found.items())] == [True, True, False, False]
    assert summary["products"][0]["images"] == 6
    assert CliRunner().invoke(main, ["compact", str(output)]).exit_code == 0
    assert run_night(job)[1]["products"][0]["images"] == 6
