"""The lock of an output folder: one job at a time writes there.

On a disk the operating system has the lock, and releases it when the process ends. In an object store it is a lease.
Each job has a file of its own in `<output>/.locks/`, named after it, and writes it anew every few seconds. A job first
waits until no file is left: one whose time changes has an owner that lives, and the job gives up; one whose time does
not is of a killed owner, and is deleted. Then it writes its own, looks once more, and gives up if there is another one
now. Stores list what was written before, so of two jobs that start at once the later one sees the other: both may give
up, but both cannot stay. No clocks are compared, and nothing is needed that only some stores have.
"""

from __future__ import annotations

import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ancd_ray.data.location import StoreError
from ancd_ray.data.store import DRAFTS, Folder

BEAT_S, DEAD_AFTER_S = 5.0, 30.0  # a lease is renewed; an owner without a sign of life has died
_LEASES = ".locks"


class Busy(StoreError):
    """Another job is writing to the same output."""

    def __init__(self, folder: Folder, owner: str) -> None:
        super().__init__(f"{folder}: another job writes here ({owner}); wait for it, or set another output=")


@contextmanager
def lock_folder(folder: Folder, say: Callable[[str], None] = lambda _: None) -> Iterator[None]:
    """Lock an output folder for one job.

    Parameters
    ----------
    folder
        The folder.
    say
        Is called with one line if it takes time to find out whether another job lives.

    Raises
    ------
    Busy
        Another job has the lock.
    """
    with _lock_local(folder) if folder.is_local else _lease(folder, say):
        yield


# --- disks ------------------------------------------------------------------------------------------------------


@contextmanager
def _lock_local(folder: Folder) -> Iterator[None]:
    """Lock a local folder, and delete the drafts of earlier jobs."""
    import fcntl

    folder.path.mkdir(parents=True, exist_ok=True)
    with (folder.path / ".lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            lock.seek(0)
            raise Busy(folder, f"process {lock.read().strip() or '?'}") from error
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        _sweep_drafts(folder.path / DRAFTS)
        yield


def _sweep_drafts(drafts: Path) -> None:
    """Delete what killed jobs were writing; the caller has the lock of the output."""
    drafts.mkdir(exist_ok=True)
    for draft in drafts.iterdir():
        draft.unlink(missing_ok=True)


# --- object stores ----------------------------------------------------------------------------------------------


@contextmanager
def _lease(folder: Folder, say: Callable[[str], None]) -> Iterator[None]:
    leases, mine = folder / _LEASES, f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex}"
    _wait_for_the_dead(folder, leases, say)
    ended, is_away = threading.Event(), threading.Event()
    _renew(leases, mine)
    beat = threading.Thread(target=_beat, args=(leases, mine, ended, is_away), daemon=True)
    try:
        if others := [name for name in leases.times() if name != mine]:
            raise Busy(folder, _describe(others[0]))
        beat.start()
        yield
    finally:
        ended.set()
        if beat.is_alive():
            beat.join()  # it could write the lease after it is deleted
        if not is_away.is_set():  # or else the lease ends by itself
            with suppress(OSError):
                leases.discard(mine)


def _wait_for_the_dead(folder: Folder, leases: Folder, say: Callable[[str], None]) -> None:
    """Return when no lease is left; those that do not change are deleted.

    Raises
    ------
    Busy
        A lease was renewed, or another one came.
    """
    if not (first := leases.times()):
        return
    owner = _describe(next(iter(first)))
    say(f"{folder}: another job may be writing here ({owner}); it has {DEAD_AFTER_S:g} s to give a sign of life")
    deadline = time.monotonic() + DEAD_AFTER_S
    while time.monotonic() < deadline:
        time.sleep(BEAT_S / 5)
        now = leases.times()
        if changed := now.items() - first.items():
            raise Busy(folder, _describe(next(iter(changed))[0]))
        if not now:
            return
    for name in first:
        leases.discard(name)


def _renew(leases: Folder, mine: str) -> None:
    leases.write(mine, b"\n")


def _beat(leases: Folder, mine: str, ended: threading.Event, is_away: threading.Event) -> None:
    while not ended.wait(BEAT_S):
        try:
            _renew(leases, mine)
            is_away.clear()
        except OSError:  # the job finds out by itself that the store does not answer
            is_away.set()


def _describe(lease: str) -> str:
    parts = lease.rsplit("-", 2)
    return f"process {parts[1]} on {parts[0]}" if len(parts) == 3 else lease
