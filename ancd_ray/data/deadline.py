"""Reads of files that may never end, as on a mount whose server is gone.

Neither a signal nor a timeout ends such a read. All that can be done is to leave the thread behind that waits for it.
So files are read in threads that are there for that: they wait for the next piece of work, and nobody waits for them.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from ancd_ray.data.location import StoreError, describe_outage

T = TypeVar("T")

READ_TIMEOUT_S = 120.0  # of one file; a slow archive may take minutes to find it, and the next run has it then
_LOOK_EVERY_S = 0.5


def read_in_time(place: object, read: Callable[[], T]) -> T:
    """Read a file, and give up if that takes too long.

    Raises
    ------
    StoreError
        The file was not read in time; the message names its place.
    """
    reader = threading.current_thread()
    if not isinstance(reader, _Reader):
        return run_in_time(lambda: read_in_time(place, read))
    reader.reads = place, time.monotonic()
    try:
        return read()
    finally:
        reader.reads = None


def run_in_time(work: Callable[[], T]) -> T:
    """Do work that calls `read_in_time`, all of it in one thread: of small files, a thread for each costs more.

    Raises
    ------
    StoreError
        A file was not read in time.
    """
    reader = _take_reader()
    result, error = reader.do(work)
    _idle.append(reader)
    if error is not None:
        raise error
    done: T = result
    return done


class _Reader(threading.Thread):
    """A thread that works for others, one piece of work after the other."""

    def __init__(self) -> None:
        super().__init__(name="reader", daemon=True)
        self.reads: tuple[object, float] | None = None  # the file that it reads, and when it began to
        self._work: SimpleQueue[Callable[[], Any]] = SimpleQueue()
        self._done: SimpleQueue[tuple[Any, BaseException | None]] = SimpleQueue()
        self.start()

    def run(self) -> None:
        while True:
            work = self._work.get()
            done: tuple[Any, BaseException | None]
            try:
                done = work(), None
            except BaseException as error:
                done = None, error
            self._done.put(done)
            del work, done  # a file may have a gigabyte

    def do(self, work: Callable[[], Any]) -> tuple[Any, BaseException | None]:
        """Do work; returns its result and what it raised."""
        self._work.put(work)
        while True:
            try:
                return self._done.get(timeout=_LOOK_EVERY_S)
            except Empty:
                place, began = self.reads or ("", math.inf)
                if time.monotonic() - began > READ_TIMEOUT_S:
                    outage = TimeoutError(f"not read within {READ_TIMEOUT_S:g} s")
                    raise StoreError(f"{place}: {describe_outage(outage)}") from None


_idle: list[_Reader] = []


def _take_reader() -> _Reader:
    while True:
        try:
            reader = _idle.pop()
        except IndexError:
            return _Reader()
        if reader.is_alive():  # those of the process that this one is a fork of are not
            return reader
