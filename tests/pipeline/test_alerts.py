"""Alerts of nights: exit code and webhook."""

from __future__ import annotations

import http.server
import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from click.testing import CliRunner

from ancd_ray.cli.main import main
from ancd_ray.data.store import Folder
from ancd_ray.jobs import tracking
from ancd_ray.jobs.nights import deliver
from tests.nights import arrive, list_others, make_job, run_night


@pytest.fixture
def hook() -> Iterator[tuple[str, list[Any], list[int]]]:
    """A server that takes JSON: its URL, what it got, and the codes it answers with (200 when they are used up)."""
    got: list[Any] = []
    codes: list[int] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(codes.pop(0) if codes else 200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/hook", got, codes
    server.shutdown()
    server.server_close()


def test_a_night_without_images_and_one_with_garbage(
    source: Path, discovered: Folder, arrivals: Path, tmp_path: Path
) -> None:
    job = make_job(arrivals, tmp_path / "out", discovered, reclassify=False, alerts={})
    good = arrivals / "tile/test" / list_others(source)[0]
    arrive(source, arrivals, good.name, 0, 12)
    first, _ = run_night(job)
    again, summary = run_night(job)
    assert again.path == first.path
    assert summary["alerts"] == [], "told by the job before"
    for number in range(3):
        (good / f"bad{number}.png").write_bytes(b"no image")
    last, summary = run_night(job)
    assert summary["alerts"] == ["tile: 100% of the new images are quarantined, more than 5%"]
    night = last.read_json(deliver.NIGHT)["products"][0]
    assert (night["new"], night["quarantined"], len(night["quarantine"])) == (3, 3, 3)


def test_the_exit_code_says_that_there_are_alerts(
    source: Path, discovered: Folder, arrivals: Path, tmp_path: Path
) -> None:
    folder = arrivals / "tile/test" / list_others(source)[0]
    arrive(source, arrivals, folder.name, 0, 2)
    (folder / "bad.png").write_bytes(b"no image")
    text = json.dumps(
        make_job(arrivals, tmp_path / "out", discovered, alerts={}).model_dump(mode="json", exclude_unset=True)
    )
    job = tmp_path / "job.yaml"
    job.write_text(text)
    with patch.object(tracking, "find_store", return_value=None):
        assert CliRunner().invoke(main, ["submit", str(job)]).exit_code == 3
        assert CliRunner().invoke(main, ["submit", str(job)]).exit_code == 0


def test_a_webhook_gets_the_night_once_and_never_fails_the_job(
    source: Path,
    discovered: Folder,
    arrivals: Path,
    tmp_path: Path,
    hook: tuple[str, list[Any], list[int]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(deliver, "_PAUSE_S", 0.01)
    url, got, codes = hook
    folder = arrivals / "tile/test" / list_others(source)[0]
    arrive(source, arrivals, folder.name, 0, 2)
    (folder / "bad.png").write_bytes(b"no image")
    codes += [500]
    job = make_job(arrivals, tmp_path / "out", discovered, alerts={"webhook": url})
    run_folder, summary = run_night(job)
    assert len(got) == 2, "the second try"
    assert got[-1] == run_folder.read_json(deliver.NIGHT)
    run_night(job)
    assert len(got) == 2
    (folder / "worse.png").write_bytes(b"no image")
    job = make_job(arrivals, tmp_path / "out", discovered, alerts={"webhook": "http://127.0.0.1:9/"})
    _, summary = run_night(job)
    assert summary["alerts"]


def test_a_webhook_that_hangs_is_given_up(
    source: Path, discovered: Folder, arrivals: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deliver, "_PAUSE_S", 0.01)
    monkeypatch.setattr(deliver, "_TIMEOUT_S", 0.2)
    folder = arrivals / "tile/test" / list_others(source)[0]
    arrive(source, arrivals, folder.name, 0, 2)
    (folder / "bad.png").write_bytes(b"no image")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        start = time.monotonic()
        run_folder, summary = run_night(make_job(arrivals, tmp_path / "out", discovered, alerts={"webhook": url}))
    assert time.monotonic() - start < 60
    assert summary["alerts"]
    assert run_folder.exists(deliver.NIGHT)
