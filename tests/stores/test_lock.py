"""One job at a time in an output folder of an object store."""

from __future__ import annotations

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import count

import pytest

from ancd_ray.data import lock
from ancd_ray.data.lock import Busy, lock_folder
from ancd_ray.data.store import Folder
from tests.conftest import REPO
from tests.stores.server import Store

_numbers = count()


@pytest.fixture
def output(store: Store, monkeypatch: pytest.MonkeyPatch) -> Folder:
    """A fresh output folder, whose leases are renewed and end ten times as fast."""
    monkeypatch.setattr(lock, "BEAT_S", 0.5)
    monkeypatch.setattr(lock, "DEAD_AFTER_S", 3.0)
    return Folder(store.uri(f"results/locked{next(_numbers)}"))


def test_a_second_job_leaves_while_the_first_one_lives(output: Folder) -> None:
    said: list[str] = []
    with lock_folder(output):
        with pytest.raises(Busy, match=r"another job writes here \(process \d+ on .*\); wait for it"):  # noqa: SIM117
            with lock_folder(output, said.append):
                pass
        (line,) = said
        assert line.startswith(f"{output}: another job may be writing here (process ")
    start = time.monotonic()
    with lock_folder(output, said.append):
        assert time.monotonic() - start < 2, "what was given back is free at once"
    assert len(said) == 1


def test_the_lock_of_a_killed_job_ends(output: Folder, store: Store) -> None:
    code = (
        "import os, signal, sys; from ancd_ray.data.lock import *\n"
        "with lock_folder(Folder(sys.argv[1])): os.kill(os.getpid(), signal.SIGKILL)"
    )
    place = store.uri(f"{output.location.place}")
    subprocess.run([sys.executable, "-c", code, place], cwd=REPO, check=False)
    assert len((output / ".locks").names()) == 1
    start = time.monotonic()
    with lock_folder(output):
        assert time.monotonic() - start >= 3, "it might have lived"
        assert len((output / ".locks").names()) == 1, "its own"
    assert (output / ".locks").names() == []


def test_of_jobs_that_start_at_once_at_most_one_stays(output: Folder) -> None:
    def enter(_: int) -> bool:
        try:
            stack.enter_context(lock_folder(output))
        except Busy:
            return False
        return True

    with ExitStack() as stack, ThreadPoolExecutor(4) as pool:
        stayed = sum(pool.map(enter, range(4)))
    assert stayed <= 1
    with lock_folder(output):
        pass


def test_a_job_whose_rival_came_between_its_looks_leaves(output: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "_wait_for_the_dead", lambda *_: None)
    with lock_folder(output):
        with pytest.raises(Busy), lock_folder(output):
            pass
        assert len((output / ".locks").names()) == 1
