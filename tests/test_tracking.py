"""Tracking: servers that cut, hang or want credentials, paths that URLs do not keep, runs that are tracked later."""

from __future__ import annotations

import base64
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from ancd_ray.cli.main import main
from ancd_ray.config.job import Job
from ancd_ray.data.store import Folder
from ancd_ray.jobs import tracking
from tests.conftest import Ran

RunJob = Callable[[Job], Ran]
ODD = "a%41 b?c#d é&e=f;50%"


@contextmanager
def _serve(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


class _Healthy(BaseHTTPRequestHandler):
    """Answers /health, and leaves anything else to `misbehave`."""

    def do_GET(self) -> None:
        if self.path == "/health":
            self.answer(200, b"OK")
        else:
            self.misbehave()

    def do_POST(self) -> None:
        self.misbehave()

    def misbehave(self) -> None:
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def answer(self, code: int, body: bytes, **headers: str) -> None:
        self.send_response(code)
        for key, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(key.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


class _Hanging(_Healthy):
    def misbehave(self) -> None:
        time.sleep(60)


class _Busy(_Healthy):
    def misbehave(self) -> None:
        self.answer(503, b"busy", Retry_After="3600")


class _Talkative(_Healthy):
    def misbehave(self) -> None:
        self.answer(418, b"<html>I am http://me:HUSH@teapot,\nand no MLflow</html>")


@pytest.fixture
def copied(finished: tuple[Job, Ran], tmp_path: Path) -> Callable[[str], Folder]:
    """Copies the output of the finished job without what was tracked; returns the run folder in the copy."""

    def copy(name: str) -> Folder:
        job, run = finished
        target = tmp_path / name
        shutil.copytree(job.output_root, target, ignore=shutil.ignore_patterns("mlflow*"))
        return Folder(str(target / "runs" / run.folder.path.name))

    return copy


def _track(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["track", *map(str, arguments)])


def _check_warned(ran: Ran, seconds: float) -> str:
    warnings = [line for line in ran.said.splitlines() if "not tracked: " in line]
    assert len(warnings) == 1, ran.said
    assert "Traceback" not in ran.said
    assert "HUSH" not in ran.said
    assert seconds < 40
    assert f"later: ancd-ray track {ran.folder}" in warnings[0]
    assert ran.folder.exists("report.html")
    return warnings[0]


@pytest.mark.parametrize(
    ("handler", "said"),
    [
        (_Healthy, "failed with exception"),
        pytest.param(_Hanging, "timed out", marks=pytest.mark.slow),  # it is given half a minute
        (_Busy, "503"),
        (_Talkative, "418"),
    ],
)
def test_server_that_fails_after_its_health_check(
    handler: type[_Healthy],
    said: str,
    finished: tuple[Job, Ran],
    small_job: Callable[..., Job],
    run_job: RunJob,
    capsys: pytest.CaptureFixture[str],
) -> None:
    job, first = finished
    with _serve(handler) as uri:
        start = time.monotonic()
        run_job(small_job(Path(job.output_root), f"tracking.uri={uri}"))
        seconds = time.monotonic() - start
    shown = capsys.readouterr().err
    line = _check_warned(Ran(first.folder, shown, {}), seconds)
    assert said in line
    assert uri in line
    assert (handler is _Hanging) == ("a server that stays silent is given up" in shown)


def test_dead_server_and_complete_results(
    finished: tuple[Job, Ran], small_job: Callable[..., Job], run_job: RunJob, capsys: pytest.CaptureFixture[str]
) -> None:
    job, first = finished
    run_job(small_job(Path(job.output_root), "tracking.uri=http://me:HUSH@127.0.0.1:9"))
    _check_warned(Ran(first.folder, capsys.readouterr().err, {}), 0)


def test_dead_server_before_any_work(small_job: Callable[..., Job], run_job: RunJob, tmp_path: Path) -> None:
    with pytest.raises(tracking.TrackingProblem) as error:
        run_job(small_job(tmp_path, "tracking.uri=http://me:HUSH@127.0.0.1:9"))
    assert "http://127.0.0.1:9" in str(error.value)
    assert "HUSH" not in str(error.value)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "steps").exists()


def test_own_deadlines_of_the_user_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    from ancd_ray.jobs.tracking.store import prepare_mlflow

    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "77")
    monkeypatch.delenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", raising=False)
    with prepare_mlflow({"MLFLOW_TRACKING_PASSWORD": "HUSH"}):
        assert os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "77"
        assert os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == "1"
    assert "MLFLOW_HTTP_REQUEST_MAX_RETRIES" not in os.environ
    assert "MLFLOW_TRACKING_PASSWORD" not in os.environ


@pytest.mark.parametrize("broken", [KeyError("x"), RuntimeError(""), OSError(28, "No space left on device")])
def test_whatever_mlflow_raises(
    broken: Exception,
    finished: tuple[Job, Ran],
    small_job: Callable[..., Job],
    run_job: RunJob,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def raise_it(*_: object, **__: object) -> None:
        raise broken

    monkeypatch.setattr("mlflow.MlflowClient.search_runs", raise_it)
    job, first = finished
    run_job(small_job(Path(job.output_root)))
    _check_warned(Ran(first.folder, capsys.readouterr().err, {}), 0)


def test_database_that_is_none(copied: Callable[[str], Folder]) -> None:
    run = copied("out")
    (run.path.parents[1] / "mlflow.db").write_bytes(b"no database, " * 1000)
    start = time.monotonic()
    result = _track(run)
    assert time.monotonic() - start < 20, "MLflow itself tries for two minutes"
    assert result.exit_code == 1
    (line,) = result.stderr.strip().splitlines()
    assert "file is not a database" in line


def test_odd_path_and_a_run_tracked_later_once(copied: Callable[[str], Folder], tmp_path: Path) -> None:
    run = copied(ODD)
    before = {path.name for path in tmp_path.iterdir()}
    for said in ("now tracked", "tracked already"):
        result = _track(run)
        assert result.exit_code == 0, result.output
        assert said in result.stdout
    output = run.path.parents[1]
    assert (output / "mlflow.db").is_file()
    assert list((output / "mlflow").rglob("report.html"))
    assert list((output / "mlflow").rglob("MLmodel"))
    assert {path.name for path in tmp_path.iterdir()} == before, "nothing lies beside the folder"

    store = tracking.find_store(_job_of(run), Folder(str(output)))
    assert store is not None
    with store.connect() as client:
        (parent,) = client.search_runs(
            [client.get_experiment_by_name("small").experiment_id], "attributes.run_name LIKE 'small-%'"
        )
        assert "report.html" in {file.path for file in client.list_artifacts(parent.info.run_id)}
        fetched = client.download_artifacts(parent.info.run_id, "summary.json", str(tmp_path))
        assert Path(fetched).read_bytes() == run.read("summary.json")


def _job_of(run: Folder) -> Job:
    from ancd_ray.jobs.results import open_run

    return open_run(run)[0]


@pytest.mark.parametrize("name", ["plain", "%41", "a?b", "a#b", "a b", "é", "a;b=c&d", "50%", "a:b@c"])
def test_url_keeps_a_path(name: str, finished: tuple[Job, Ran], tmp_path: Path) -> None:
    from sqlalchemy.engine import make_url

    store = tracking.find_store(finished[0], Folder(str(tmp_path / name)))
    assert store is not None
    assert make_url(store.uri).database == str(tmp_path / name / "mlflow.db")
    assert store.note is None


def test_path_that_a_url_does_not_keep(
    finished: tuple[Job, Ran], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("ancd_ray.jobs.tracking.store._is_kept", lambda path: False)
    store = tracking.find_store(finished[0], Folder(str(tmp_path / "odd")))
    assert store is not None
    assert store.uri.startswith(f"sqlite+pysqlite:///{tmp_path}/cache/ancd-ray/mlflow/")
    assert store.artifacts is not None
    assert store.artifacts.startswith(f"file://{tmp_path}/cache/")
    assert store.note is not None
    assert "\n" not in store.note
    assert f"{tmp_path}/odd" in store.note


def test_what_is_no_run(tmp_path: Path) -> None:
    result = _track(tmp_path)
    assert result.exit_code == 1
    assert "not a run folder" in result.stderr


@pytest.fixture(scope="module")
def mlflow_behind_a_password(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, list[str]]]:
    """A real server of MLflow behind a proxy that wants `me:p@ss/HUSH`; yields its host and what was refused."""
    folder = tmp_path_factory.mktemp("server")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{folder}/m.db", "--artifacts-destination", str(folder / "artifacts")]
    environment = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    wanted = f"Basic {base64.b64encode(b'me:p@ss/HUSH').decode()}"
    refused: list[str] = []

    class Proxy(_Healthy):
        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if self.headers.get("Authorization") != wanted:
                refused.append(self.path)
                self.answer(401, b"who are you?", WWW_Authenticate="Basic")
                return
            kept = {key: value for key, value in self.headers.items() if key in ("Content-Type", "Accept")}
            request = urllib.request.Request(
                f"http://127.0.0.1:{port}{self.path}", body or None, kept, method=self.command
            )
            try:
                with urllib.request.urlopen(request, timeout=30) as answer:
                    self.answer(answer.status, answer.read(), Content_Type=answer.headers.get("Content-Type") or "")
            except urllib.error.HTTPError as error:
                self.answer(error.code, error.read(), Content_Type=error.headers.get("Content-Type") or "")

        do_POST = do_PUT = do_PATCH = do_DELETE = do_GET

    with (folder / "log").open("w") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        until = time.monotonic() + 90
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2).close()
                break
            except OSError:
                assert time.monotonic() < until, (folder / "log").read_text()[-2000:]
                time.sleep(0.3)
        with _serve(Proxy) as uri:
            yield uri.removeprefix("http://"), refused
    finally:
        os.killpg(server.pid, 15)
        server.wait(20)


@pytest.mark.slow  # starts a server
def test_credentials_of_a_server(
    mlflow_behind_a_password: tuple[str, list[str]],
    copied: Callable[[str], Folder],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    host, refused = mlflow_behind_a_password
    for name in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"):
        monkeypatch.delenv(name, raising=False)
    run = copied("out")
    for uri in (f"http://{host}", f"http://me:WRONG@{host}"):
        result = _track(run, "--uri", uri)
        assert result.exit_code == 1
        assert "asks for other credentials (401)" in result.stderr
        assert "WRONG" not in result.output
    assert refused
    refused.clear()
    for said in ("now tracked", "tracked already"):
        result = _track(run, "--uri", f"http://me:p%40ss%2FHUSH@{host}")
        assert result.exit_code == 0, result.output
        assert f"{said} in http://{host}" in result.stdout
        assert "HUSH" not in result.output
    assert not refused, "all requests have the credentials, also those of artifacts"
    assert not any(b"HUSH" in path.read_bytes() for path in run.path.parents[1].rglob("*") if path.is_file())

    with tracking.TrackingStore(
        f"http://{host}",
        credentials={"MLFLOW_TRACKING_USERNAME": "me", "MLFLOW_TRACKING_PASSWORD": "p@ss/HUSH"},
    ).connect() as client:
        runs = client.search_runs([client.get_experiment_by_name("small").experiment_id])
        assert len(runs) == 2
        assert "HUSH" not in str([each.to_dictionary() for each in runs])


@pytest.mark.slow
def test_stored_job_has_no_credentials_and_takes_those_of_the_environment(
    mlflow_behind_a_password: tuple[str, list[str]],
    copied: Callable[[str], Folder],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    host, _ = mlflow_behind_a_password
    run = copied("out2")
    text = run.read("job.yaml").decode().replace("uri: null", f"uri: http://***@{host}")
    run.write("job.yaml", text.encode())
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "me")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "p@ss/HUSH")
    result = _track(run)
    assert result.exit_code == 0, result.output
    assert f"in http://{host}" in result.stdout
