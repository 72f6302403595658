"""Counts how often the files of a folder are opened, by any process, as the kernel reports it (inotify)."""

from __future__ import annotations

import ctypes
import os
import struct
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_IN_OPEN, _IN_ISDIR, _IN_Q_OVERFLOW = 0x20, 0x40000000, 0x4000
_HEADER = struct.Struct("iIII")  # watch, mask, cookie, length of the name


@contextmanager
def count_opens(root: Path) -> Iterator[Counter[Path]]:
    """Count the opens of the files below a folder while the body runs; the counts are complete after it.

    Raises
    ------
    OSError
        There is no inotify, or its queue has overflowed.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = libc.inotify_init1(os.O_NONBLOCK)
    if descriptor < 0:
        raise OSError(ctypes.get_errno(), "inotify is not available")
    folders = {}
    for folder in [root, *(path for path in root.rglob("*") if path.is_dir())]:
        folders[libc.inotify_add_watch(descriptor, os.fsencode(folder), _IN_OPEN)] = folder
    counts: Counter[Path] = Counter()
    ended = threading.Event()
    reader = threading.Thread(target=_read_until, args=(descriptor, folders, counts, ended), daemon=True)
    reader.start()
    try:
        yield counts
    finally:
        ended.set()
        reader.join()
        os.close(descriptor)
    if counts.pop(Path(), 0):
        raise OSError("the queue of inotify has overflowed")


def _read_until(descriptor: int, folders: dict[int, Path], counts: Counter[Path], ended: threading.Event) -> None:
    while True:
        is_last = ended.is_set()
        try:
            data = os.read(descriptor, 1 << 20)
        except BlockingIOError:
            if is_last:
                return
            ended.wait(0.05)
            continue
        at = 0
        while at < len(data):
            watch, mask, _, length = _HEADER.unpack_from(data, at)
            name = data[at + _HEADER.size : at + _HEADER.size + length].rstrip(b"\0")
            at += _HEADER.size + length
            if mask & _IN_Q_OVERFLOW:
                counts[Path()] += 1
            elif name and not mask & _IN_ISDIR:
                counts[folders[watch] / os.fsdecode(name)] += 1
