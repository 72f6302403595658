"""An object store of the tests: moto's S3 in a process of its own, and a relay in front of it that fails when told to.

The store keeps its objects in memory. An outage is the death of the relay: what was stored is there when it is back.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow.fs as pafs

from tests.conftest import REPO

KEY, SECRET = "AKIAHuShKEY", "HuShA/HuShB+HuShC"  # all parts have HuSh, by which tests look for what has leaked
_ENCODED = "AKIAHuShKEY:HuShA%2FHuShB%2BHuShC"


@dataclass(frozen=True)
class Store:
    """S3 behind a port of this machine."""

    port: int

    def uri(self, path: str, port: int | None = None) -> str:
        """A location with credentials and options; `port` of a relay in front of it."""
        options = f"endpoint_override=127.0.0.1:{port or self.port}&scheme=http&region=us-east-1"
        return f"s3://{_ENCODED}@{path}?{options}"

    @property
    def files(self) -> pafs.S3FileSystem:
        """Its filesystem, made without the code that is tested."""
        place = f"127.0.0.1:{self.port}"
        return pafs.S3FileSystem(
            access_key=KEY,
            secret_key=SECRET,
            endpoint_override=place,
            scheme="http",
            region="us-east-1",
            allow_bucket_creation=True,
        )

    def upload(self, folder: Path, path: str) -> None:
        """Upload a folder; the first part of `path` is the bucket."""
        self.files.create_dir(path)
        pafs.copy_files(str(folder), path, destination_filesystem=self.files, use_threads=False)

    def list(self, path: str) -> list[str]:
        """The paths of all objects below a path."""
        selector = pafs.FileSelector(path, recursive=True, allow_not_found=True)
        return [info.path for info in self.files.get_file_info(selector) if info.type == pafs.FileType.File]


@contextmanager
def serve_store(log: Path) -> Iterator[Store]:
    """Run an empty store."""
    port = find_port()
    with _run(log, port, "-m", "tests.stores.at_once", "-H", "127.0.0.1", "-p", str(port)):
        yield Store(port)


@contextmanager
def relay(store: Store, log: Path, *faults: str, port: int | None = None) -> Iterator[tuple[int, int]]:
    """Run a relay in front of a store, see `relay.py` for its faults; yields its port and its process id."""
    port = port or find_port()
    with _run(log, port, "-m", "tests.stores.relay", str(port), str(store.port), *faults) as process:
        yield port, process


def find_port() -> int:
    """A port that is free now."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextmanager
def _run(log: Path, port: int, *arguments: str) -> Iterator[int]:
    with log.open("ab") as stream:
        process = subprocess.Popen([sys.executable, *arguments], cwd=REPO, stdout=stream, stderr=stream)
    try:
        deadline = time.monotonic() + 60
        while not _answers(port):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, "it does not start"
            time.sleep(0.05)
        yield process.pid
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)
        process.wait()


def _answers(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False
