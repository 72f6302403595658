"""Finds the files that annotations name: tools write other folders, backslashes, URLs and prefixes of their own."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from heapq import nsmallest
from typing import NamedTuple
from urllib.parse import unquote

from ancd_ray.data.layouts.text import clip

Parts = tuple[str, ...]

_UPLOAD = re.compile(r"[0-9a-f]{8}-(?=.)")  # Label Studio puts it before the names of uploaded files
_LOCAL = "?d="  # before the path in Label Studio's URLs of local files


class Match(NamedTuple):
    """The path of the file that an annotation names, or None and a reason of one line."""

    path: str | None
    reason: str | None = None


class _Candidates(NamedTuple):
    """Files that a name fits, and how well: the lower the rank, the better."""

    rank: int
    paths: list[str]


def match_files(entries: Iterable[str], paths: Iterable[str]) -> dict[str, Match]:
    """Match names of files in annotations with the relative paths of an archive.

    A name belongs to the file with exactly this path, else to the only one whose path ends with the name, or that the
    name ends with; else to the only one in any folder, at last without the prefix of Label Studio. A file belongs to
    the name that fits it best; if two fit it equally well, to none of them.
    """
    finder = _Finder(paths)
    found = {entry: finder.find(entry) for entry in entries}
    claims: dict[str, list[tuple[int, str]]] = defaultdict(list)
    for entry, (rank, fitting) in found.items():
        if len(fitting) == 1:
            claims[fitting[0]].append((rank, entry))
    best = {path: nsmallest(2, claim) for path, claim in claims.items()}
    return {entry: _choose(entry, candidates.paths, best) for entry, candidates in found.items()}


def _choose(entry: str, fitting: Sequence[str], best: Mapping[str, list[tuple[int, str]]]) -> Match:
    if not fitting:
        return Match(None, "no image of the archive has this name")
    if len(fitting) > 1:
        return Match(None, f"several images fit this name, such as {fitting[0]} and {fitting[1]}")
    path = fitting[0]
    (rank, first), *others = best[path]
    if first == entry and not (others and others[0][0] == rank):
        return Match(path)
    rival = first if first != entry else others[0][1]
    return Match(None, f"{path} fits {clip(rival)!r} as well")


class _Finder:
    """Finds files by the last part of their paths."""

    def __init__(self, paths: Iterable[str]) -> None:
        self._by_name: dict[str, list[Parts]] = defaultdict(list)
        self._by_upload: dict[str, list[Parts]] = defaultdict(list)
        self._paths = set(paths)
        for path in sorted(self._paths):
            parts = tuple(path.split("/"))
            self._by_name[parts[-1]].append(parts)
            self._by_upload[_to_upload(parts[-1])].append(parts)

    def find(self, entry: str) -> _Candidates:
        """Find the files that fit a name best."""
        found = self._find_parts(_split(entry))
        return found if found.paths or "%" not in entry else self._find_parts(_split(unquote(entry)))

    def _find_parts(self, parts: Parts) -> _Candidates:
        if not parts:
            return _Candidates(0, [])
        if (path := "/".join(parts)) in self._paths:
            return _Candidates(0, [path])
        same_name = self._by_name.get(parts[-1], [])
        stripped = _UPLOAD.sub("", parts[-1], count=1)
        uploads = self._by_upload.get(_to_upload(stripped), []) if stripped != parts[-1] else []
        steps: tuple[Sequence[Parts], ...] = (
            [path for path in same_name if _ends_with(path, parts) or (len(path) > 1 and _ends_with(parts, path))],
            same_name,
            uploads,
        )
        return next(
            (_Candidates(rank, ["/".join(path) for path in step]) for rank, step in enumerate(steps, 1) if step),
            _Candidates(0, []),
        )


def _to_upload(name: str) -> str:
    """Return the name that Label Studio gives to an uploaded file, without its prefix."""
    return name.replace(" ", "_")


def _ends_with(path: Parts, end: Parts) -> bool:
    return path[-len(end) :] == end


def _split(entry: str) -> Parts:
    """Split a path of any system, or a URL, into its parts; folders above are left out."""
    if "://" in entry or entry.startswith("/data/"):
        address, _, local = entry.partition(_LOCAL)
        entry = local or address.partition("?")[0]
    return tuple(part for part in entry.replace("\\", "/").split("/") if part not in ("", ".", ".."))
