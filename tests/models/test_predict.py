"""`ancd-ray predict`, and the model as an MLflow pyfunc behind a real HTTP server."""

from __future__ import annotations

import base64
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import click
import pyarrow.dataset as ds
import pytest
from click.testing import CliRunner

from ancd_ray.cli.main import main
from ancd_ray.cli.predict import list_inputs
from ancd_ray.config.job import Job
from ancd_ray.jobs.tracking import save_pyfunc
from ancd_ray.models.model import Model
from tests.conftest import Ran


def _predict(*arguments: object, **environment: str) -> Any:
    return CliRunner(env=environment).invoke(main, ["predict", *map(str, arguments)])


def _rows(run: Ran) -> dict[str, dict[str, Any]]:
    return {row["uri"]: row for row in ds.dataset(str(run.folder.path / "image_predictions")).to_table().to_pylist()}


def test_a_folder_of_images_as_json_lines_and_as_a_table(
    finished: tuple[Job, Ran], demo_root: Path, tmp_path: Path
) -> None:
    _, run = finished
    folder = demo_root / "tile" / "test" / "hole"
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"\x89PNG")
    result = _predict(run.folder, folder, broken)
    assert result.exit_code == 0, result.output
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert [row["image"] for row in rows] == [*map(str, sorted(folder.iterdir())), str(broken)]
    expected = _rows(run)
    for row in rows[:-1]:
        assert row["probs"] == expected[row["image"]]["probs"]
        assert row["class"] == ("normal" if row["cls"] == 0 else f"class {row['cls']}")
        assert len(row["regions"]) == expected[row["image"]]["n_regions"]
        assert all(len(region["box"]) == 4 and region["area"] >= 0 for region in row["regions"])
    assert "error" in rows[-1]
    table = _predict(run.folder.path / "models" / "tile", folder, "--format", "table")
    assert table.exit_code == 0
    assert len(table.stdout.splitlines()) == 1 + len(rows) - 1
    assert rows[0]["class"] in table.stdout


def test_maps_of_images_with_the_same_name_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    for name in ("in/a/1.png", "in/b/1.png", "in/b/2.png", "maps/a/1.npy", "maps/b/1.npy", "maps/2_mask.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    maps, one, other = tmp_path / "maps", tmp_path / "in" / "a" / "1.png", tmp_path / "in" / "b" / "1.png"
    for images in ([tmp_path / "in"], [one, other, other]):
        listed = [each.anomaly_map for each in list_inputs(images, None, maps)]
        assert listed[:2] == [maps / "a" / "1.npy", maps / "b" / "1.npy"]
    (alone,) = list_inputs([tmp_path / "in" / "b" / "2.png"], None, maps)
    assert alone.anomaly_map == maps / "2_mask.png"
    with pytest.raises(click.UsageError, match=r"1\.npy fits .*in/a/1\.png and .*in/b/1\.png"):
        list(list_inputs([one, other], None, maps / "a"))


def test_wrong_models_are_told_in_one_line(finished: tuple[Job, Ran], demo_root: Path, tmp_path: Path) -> None:
    _, run = finished
    image = next((demo_root / "tile" / "test" / "hole").iterdir())
    for arguments, said in (
        ((tmp_path, image), "neither a model"),
        ((run.folder, image, "--product", "tyle"), "there are tile"),
        ((run.folder, tmp_path), "no image"),
        (("models:/nothing@champion", image), "models:/nothing@champion"),
    ):
        result = _predict(*arguments, MLFLOW_TRACKING_URI=f"sqlite:///{tmp_path}/mlflow.db")
        assert result.exit_code != 0
        assert said in result.output
        assert "Traceback" not in result.output


def test_a_registered_model_is_found_and_registered_once(
    finished: tuple[Job, Ran], demo_root: Path, tmp_path: Path
) -> None:
    job, run = finished
    uri = f"sqlite:///{job.output_root}/mlflow.db"
    command = ["models", "register", str(run.folder), "--alias", "champion"]
    versions = {CliRunner().invoke(main, command).stdout.partition(" ")[0] for _ in range(2)}
    assert versions == {"models:/small.tile/1"}
    image = next((demo_root / "tile" / "test" / "hole").iterdir())
    result = _predict("models:/small.tile@champion", image, MLFLOW_TRACKING_URI=uri)
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout.splitlines()[-1])["probs"] == _rows(run)[str(image)]["probs"]


@pytest.mark.slow
def test_it_is_served_over_http(
    finished: tuple[Job, Ran], demo_root: Path, tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    _, run = finished
    save_pyfunc(Model.load(run.folder.path / "models" / "tile"), tmp_path / "model")
    assert not [warning for warning in recwarn if "type hint" in str(warning.message)]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", str(tmp_path / "model"), "-p", str(port)]
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",  # it calls uvicorn
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/m.db",
    }
    with (tmp_path / "server.log").open("w") as log:
        server = subprocess.Popen(
            [*command, "--env-manager", "local", "-h", "127.0.0.1"],
            env=environment,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            _wait_for(f"http://127.0.0.1:{port}/ping", server, tmp_path / "server.log")
            image = next((demo_root / "tile" / "test" / "hole").iterdir())
            encoded = base64.b64encode(image.read_bytes()).decode()
            data = [[encoded, "hole"], ["bm8gaW1hZ2U=", "text"], ["?", "junk"]]
            body = json.dumps({"dataframe_split": {"columns": ["image", "name"], "data": data}}).encode()
            headers = {"Content-Type": "application/json"}
            request = urllib.request.Request(f"http://127.0.0.1:{port}/invocations", body, headers)
            with urllib.request.urlopen(request, timeout=120) as answer:
                rows = [json.loads(row["prediction"]) for row in json.load(answer)["predictions"]]
        finally:
            os.killpg(server.pid, 15)
            server.wait(30)
    assert [row["image"] for row in rows] == ["hole", "text", "junk"]
    assert rows[0]["probs"] == _rows(run)[str(image)]["probs"]
    assert "not an image" in rows[1]["error"]
    assert rows[2]["error"] == "not base64"


def _wait_for(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + 240
    while time.monotonic() < end:
        assert server.poll() is None, log.read_text()[-2000:]
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return
        except (urllib.error.URLError, OSError):
            time.sleep(1)
    raise AssertionError(log.read_text()[-2000:])
