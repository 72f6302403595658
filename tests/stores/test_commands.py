"""All commands over an object store and Ray, with credentials that nothing shows, logs or stores."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

from ancd_ray.cli.main import main
from ancd_ray.data import location
from ancd_ray.data.store import Folder
from tests.stores.conftest import WriteJob
from tests.stores.server import Store, find_port

pytestmark = pytest.mark.slow

USER, PASSWORD = "me", "HuShP:HuShQ/HuShR@"
ENCODED = "HuShP%3AHuShQ%2FHuShR%40"
LEAKS = (b"HuSh", base64.b64encode(f"{USER}:{PASSWORD}".encode()))
OUTPUT = "results/commands"


class _Tracking(BaseHTTPRequestHandler):
    """Is healthy, tracks nothing, and remembers who asked."""

    asked: ClassVar[set[str | None]] = set()

    def do_GET(self) -> None:
        self.asked.add(self.headers.get("Authorization"))
        self.send_response(200 if self.path == "/health" else 503)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_POST = do_GET

    def log_message(self, *_: object) -> None:
        pass


@dataclass(frozen=True)
class Journey:
    """What the commands said, by their names, and the local folders that they could write to."""

    said: Mapping[str, Result]
    folders: list[Path]
    run: str


@pytest.fixture(scope="module")
def tracking() -> Iterator[int]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Tracking) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


@pytest.fixture(scope="module")
def journey(
    store: Store,
    demo_root: Path,
    write_job: WriteJob,
    tracking: int,
    ray_of_the_tests: None,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Journey]:
    """Plan, submit, submit again, predict, track, and jobs that fail; each as if in a process of its own."""
    import ray

    work, temp = tmp_path_factory.mktemp("work"), tmp_path_factory.mktemp("temp")
    said: dict[str, Result] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(work)
        patch.setenv("TMPDIR", str(temp))
        patch.setattr("tempfile.tempdir", str(temp))

        def call(name: str, *arguments: str) -> str:
            patch.setattr("sys.argv", ["ancd-ray", *arguments])
            patch.setattr(location, "_ACCESS", {})  # what the command before remembered
            said[name] = CliRunner().invoke(main, arguments)
            return said[name].stdout.strip()

        uri = f"http://{USER}:{ENCODED}@127.0.0.1"
        # the steps up to regions have 37 images or 25, and the first ones go through Ray
        through_ray = "resources.in_process_below=30", "train.workers=2", "data.base=null"
        file = write_job(store.uri("archive/demo"), store.uri(OUTPUT), *through_ray, tracking=f"{uri}:{tracking}")
        call("plan", "plan", file)
        run = call("submit", "submit", file)
        call("submit again", "submit", file)
        call("plan again", "plan", file)
        place = store.uri(run.removeprefix("s3://"))
        image = next((demo_root / "tile" / "test").rglob("*.png"))
        call("predict", "predict", place, str(image))
        call("track", "track", place)
        call("track elsewhere", "track", place, "--uri", f"{uri}:{tracking}")
        dead, elsewhere = find_port(), f"output={store.uri('results/x')}"
        call("submit without tracking", "submit", file, elsewhere, f"tracking.uri={uri}:{dead}")
        with pytest.MonkeyPatch.context() as impatient:
            impatient.setattr(location, "ATTEMPTS", 3)
            call("submit without a store", "submit", file, f"output={store.uri('results/x', dead)}")
        call("submit with an option", "submit", file, f"{elsewhere}&nonsense=HuSh")
        session = Path(ray._private.worker._global_node.get_session_dir_path())
        yield Journey(said, [work, temp, session], run)


def test_every_step_is_computed_once(journey: Journey, store: Store) -> None:
    first, again = journey.said["submit"], journey.said["submit again"]
    assert first.exit_code == 0, first.stderr
    assert journey.run.startswith(f"s3://{OUTPUT}/runs/small-")
    assert "cached" not in first.stderr
    assert any("/ray/" in path for path in store.list(f"{OUTPUT}/steps/train")), "it is the storage of Ray Train"
    assert again.stdout == first.stdout
    steps = [line for line in again.stderr.splitlines() if " · " in line and " · track" not in line]
    assert len(steps) == 15
    assert all(line.endswith("cached") for line in steps)
    assert "14 of 14 steps are done" in journey.said["plan again"].stdout
    assert "0 of 14 steps are done" in journey.said["plan"].stdout


def test_every_image_is_predicted(journey: Journey, store: Store) -> None:
    run = Folder(store.uri(journey.run.removeprefix("s3://")))
    rows = [row for name in (run / "image_predictions").names() for row in _read(run / "image_predictions", name)]
    assert len({row["image_id"] for row in rows}) == len(rows) == 25
    assert (run / "quarantine").read_table("part-00000.parquet").num_rows == 0
    (line,) = journey.said["predict"].stdout.splitlines()
    answer = json.loads(line)
    name = Path(answer["image"]).name
    (known,) = [row for row in rows if row["uri"].endswith(f"{Path(answer['image']).parent.name}/{name}")]
    assert answer["confidence"] == pytest.approx(known["confidence"], abs=1e-3)


def test_what_cannot_be_tracked_is_one_line(journey: Journey) -> None:
    assert journey.said["submit"].stderr.count("not tracked: ") == 1
    assert f"Basic {base64.b64encode(f'{USER}:{PASSWORD}'.encode()).decode()}" in _Tracking.asked
    for name in ("track", "track elsewhere", "submit without tracking", "submit without a store"):
        result = journey.said[name]
        assert result.exit_code == 1, (name, result.output)
        assert [line.startswith("error: ") for line in result.stderr.splitlines()] == [True], (name, result.stderr)


def test_nothing_has_a_credential(journey: Journey, store: Store) -> None:
    for name, result in journey.said.items():
        assert not _has_leak(result.output_bytes), (name, result.output)
    local = [path for folder in journey.folders for path in folder.rglob("*") if path.is_file()]
    assert any(path.name.startswith("error-") for path in local), "a traceback was kept"
    assert any("raylet" in path.name for path in local), "Ray's own logs are looked at"
    assert [path for path in local if _has_leak(path.read_bytes())] == []
    stored = {path: store.files.open_input_file(path).read() for path in store.list(OUTPUT)}
    assert len(stored) > 50
    assert [path for path, data in stored.items() if _has_leak(data)] == []


def test_a_leak_would_be_found() -> None:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"uri": ["s3://a:HuShX@b"] * 1000}), sink, compression="zstd")
    assert _has_leak(sink.getvalue().to_pybytes())
    assert _has_leak(LEAKS[1])
    assert not _has_leak(b"s3://b")


def _has_leak(data: bytes) -> bool:
    """Tell whether bytes have a credential; tables are read as well, since they are compressed."""
    if data[:4] == b"PAR1":
        data += repr(pq.read_table(pa.BufferReader(data)).to_pydict()).encode()
    return any(leak in data for leak in LEAKS)


def _read(folder: Folder, name: str) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = folder.read_table(name).to_pylist()
    return rows
