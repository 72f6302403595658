"""Lists all files below a folder, once, for all layouts: regular files with sizes and times, and what is left out.

Links are followed as long as they stay inside the archive; every folder is entered once, so that a link to a folder
above does not multiply its files. Hidden files and the folders of operating systems and programs are left out, and
counted.
"""

from __future__ import annotations

import os
import stat
from array import array
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import NamedTuple

import pyarrow.fs as pafs

from ancd_ray.data.location import Location

SYSTEM = frozenset({"@eadir", "__macosx", "#recycle", "$recycle.bin", "system volume information", "lost+found"})
SYSTEM_FILES = frozenset({"thumbs.db", "desktop.ini"})
_UNKNOWN = -(2**63)  # time
HIDDEN, OUTSIDE = "hidden, or of the system", "links that lead out of the archive"


class Entry(NamedTuple):
    """A file; `problem` says why it cannot be opened."""

    size: int
    time_ns: int | None  # None: the store does not tell
    problem: str | None = None


class Files(Mapping[str, Entry]):
    """Files by relative path, in a fraction of the memory of a dict of entries; sorted."""

    def __init__(self) -> None:
        self._names: list[str] = []
        self._sizes, self._times = array("q"), array("q")
        self._problems: dict[str, str] = {}
        self._marks = bytearray()
        self._is_sorted = True

    def add(self, name: str, entry: Entry) -> None:
        """Add a file; of files with one name the last one counts."""
        self._is_sorted = self._is_sorted and (not self._names or self._names[-1] < name)
        self._names.append(name)
        self._sizes.append(entry.size)
        self._times.append(_UNKNOWN if entry.time_ns is None else entry.time_ns)
        if entry.problem:
            self._problems[name] = entry.problem
        elif self._problems:
            self._problems.pop(name, None)

    def _sort(self) -> None:
        names = self._names
        order = sorted(range(len(names)), key=names.__getitem__)  # stable
        kept = [i for i, after in zip_longest(order, order[1:]) if after is None or names[i] != names[after]]
        self._names = [names[i] for i in kept]
        self._sizes, self._times = (array("q", map(each.__getitem__, kept)) for each in (self._sizes, self._times))
        self._is_sorted = True

    def _find(self, name: str) -> int | None:
        if not self._is_sorted:
            self._sort()
        i = bisect_left(self._names, name)
        return i if i < len(self._names) and self._names[i] == name else None

    def __getitem__(self, name: str) -> Entry:
        if (i := self._find(name)) is None:
            raise KeyError(name)
        return self._make(i)

    def _make(self, i: int) -> Entry:
        time = self._times[i]
        problem = self._problems.get(self._names[i]) if self._problems else None
        return Entry(self._sizes[i], None if time == _UNKNOWN else time, problem)

    def take(self, name: str) -> Entry | None:
        """Return a file and mark it as taken; None if it does not exist."""
        i = self._find(name)
        if i is None:
            return None
        if not self._marks:
            self._marks = bytearray(len(self))
        self._marks[i] = 1
        return self._make(i)

    def unmarked(self) -> Iterator[str]:
        """Iterate over the files that were not taken."""
        return (name for name, mark in zip_longest(self, self._marks) if not mark)

    def __iter__(self) -> Iterator[str]:
        if not self._is_sorted:
            self._sort()
        return iter(self._names)

    def __len__(self) -> int:
        if not self._is_sorted:
            self._sort()
        return len(self._names)


@dataclass
class Walk:
    """The files below a folder by relative path, and the paths that were left out, by reason."""

    files: Files = field(default_factory=Files)
    left_out: dict[str, list[str]] = field(default_factory=dict)

    def leave_out(self, reason: str, path: str) -> None:
        """Count a path that is left out."""
        self.left_out.setdefault(reason, []).append(path)


def walk(folder: Location, inside: Sequence[Location] = ()) -> Walk:
    """List the files below a folder.

    Parameters
    ----------
    folder
        The folder.
    inside
        Folders in which links may lead, besides the folder itself.

    Raises
    ------
    FileNotFoundError
        The folder does not exist.
    OSError
        It cannot be read.
    """
    return _walk_local(folder, inside) if folder.is_local else _walk_remote(folder)


def printable(name: str) -> str:
    r"""Return a name as text: bytes that are not UTF-8 become `\xdf`."""
    try:
        name.encode()
        return name
    except UnicodeEncodeError:
        return os.fsencode(name).decode("utf-8", "backslashreplace")


def is_hidden(name: str) -> bool:
    """Whether a file or folder is hidden, or belongs to an operating system or program."""
    lower = name.lower()
    return name.startswith(".") or lower in SYSTEM or lower in SYSTEM_FILES


def _walk_local(folder: Location, inside: Sequence[Location]) -> Walk:
    files = Files()
    result = Walk(files)
    roots = [os.path.realpath(place.path) for place in (folder, *inside) if place.is_local]
    visited: set[tuple[int, int]] = set()
    pending = [(folder.path, "", False)]
    links: list[tuple[str, str, bool]] = []  # to folders: entered last, so that a real folder keeps its own path
    while pending or links:
        path, prefix, hidden = pending.pop() if pending else links.pop()
        about = os.stat(path)  # noqa: PTH116  (pathlib takes several times as long)
        if (about.st_dev, about.st_ino) in visited:
            result.leave_out("links to a folder that is listed already", printable(prefix.rstrip("/")))
            continue
        visited.add((about.st_dev, about.st_ino))
        try:
            entries = list(os.scandir(path))
        except PermissionError:
            result.leave_out("folders that may not be read", printable(prefix.rstrip("/")))
            continue
        for entry in entries:
            name = f"{prefix}{entry.name}"
            is_left_out = hidden or is_hidden(entry.name)
            if entry.is_symlink() and not _leads_inside(entry.path, roots):
                result.leave_out(HIDDEN if is_left_out else OUTSIDE, printable(name))
            elif entry.is_dir():
                (links if entry.is_symlink() else pending).append((entry.path, f"{name}/", is_left_out))
            elif is_left_out:
                result.leave_out(HIDDEN, printable(name))
            else:
                _add_file(result, files, entry, name)
    return result


def _add_file(result: Walk, files: Files, entry: os.DirEntry[str], name: str) -> None:
    try:
        about = entry.stat()
    except OSError:
        result.leave_out("links to nothing", printable(name))
        return
    if not stat.S_ISREG(about.st_mode):
        result.leave_out("pipes, sockets or devices", printable(name))
        return
    shown = printable(name)
    problem = None if shown == name else "its name is not UTF-8; rename the file or its folder"
    files.add(shown, Entry(about.st_size, about.st_mtime_ns, problem))


def _leads_inside(link: str, roots: Sequence[str]) -> bool:
    target = os.path.realpath(link)
    return any(target == root or target.startswith(f"{root.rstrip('/')}/") for root in roots)


def _walk_remote(folder: Location) -> Walk:
    files = Files()
    result = Walk(files)
    system, base = folder.open()
    start = f"{base.rstrip('/')}/"
    for info in system.get_file_info(pafs.FileSelector(base, recursive=True)):
        if info.type != pafs.FileType.File:
            continue
        name = info.path.removeprefix(start)
        if any(is_hidden(part) for part in name.split("/")):
            result.leave_out(HIDDEN, name)
        else:
            files.add(name, Entry(info.size, info.mtime_ns))
    return result
