"""Finds the masks of images by patterns such as `{class}/{stem}_mask.png`.

`{class}` is the label, `{dir}` the folders between that of the class and the file (with a final slash), `{stem}` the
name without its suffix; `*`, `?` and `[...]` have their usual meaning. The first pattern that finds files decides; all
files that it finds are united. A file that fits several images belongs to the one with the longest stem.
"""

from __future__ import annotations

import bisect
import fnmatch
import glob
import posixpath
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple


class Named(NamedTuple):
    """The parts of an image's path that patterns refer to."""

    label: str
    folder: str  # between that of the class and the file, with a final slash if there is one
    stem: str


class FoundMasks(NamedTuple):
    """Masks by image, and the images that share one with another."""

    masks: Mapping[str, tuple[str, ...]]
    ambiguous: frozenset[str]


def find_masks(images: Mapping[str, Named], files: Iterable[str], patterns: Sequence[str]) -> FoundMasks:
    """Find the masks of images.

    Parameters
    ----------
    images
        Parts of the path by image.
    files
        Paths of all files that may be masks.
    patterns
        Patterns in the order of preference.
    """
    folders: dict[str, list[str]] = defaultdict(list)
    for file in files:
        folders[posixpath.dirname(file)].append(posixpath.basename(file))
    for names in folders.values():
        names.sort()
    found: dict[str, tuple[str, ...]] = {}
    rank: dict[str, int] = {}
    for image, named in images.items():
        for number, pattern in enumerate(patterns):
            if matched := _match(pattern, named, folders, image):
                found[image], rank[image] = matched, number
                break
    return _settle(images, found, rank)


def _match(pattern: str, named: Named, folders: Mapping[str, list[str]], image: str) -> tuple[str, ...]:
    folder, name = _split(pattern, named.folder)
    folder = folder.replace("{class}", named.label).replace("{stem}", named.stem)
    names = folders.get(folder)
    if names is None:  # most patterns of most images: escaping them would take ten times as long
        return ()
    name = name.replace("{class}", glob.escape(named.label)).replace("{stem}", glob.escape(named.stem))
    literal = _literal_start(name)
    start, rest = _unescape(literal), name[len(literal) :]  # the rest is mostly the same for all, and compiled once
    matched = []
    for position in range(bisect.bisect_left(names, start), len(names)):
        candidate = names[position]
        if not candidate.startswith(start):
            break
        path = f"{folder}/{candidate}" if folder else candidate
        if fnmatch.fnmatchcase(candidate[len(start) :], rest) and path != image:
            matched.append(path)
    return tuple(matched)


@lru_cache(maxsize=10_000)
def _split(pattern: str, folder: str) -> tuple[str, str]:
    """Split a pattern into folder, which has no wildcards, and name, after `{dir}` is replaced."""
    place, _, name = pattern.replace("{dir}", glob.escape(folder)).rpartition("/")
    return _unescape(place), name


def _literal_start(pattern: str) -> str:
    """Return the part before the first wildcard; `[x]` is how a literal character is escaped."""
    position = 0
    while position < len(pattern):
        if pattern[position] in "*?" or (pattern[position] == "[" and pattern[position + 2 : position + 3] != "]"):
            break
        position += 3 if pattern[position] == "[" else 1
    return pattern[:position]


def _unescape(text: str) -> str:
    for character in "*?[":
        text = text.replace(f"[{character}]", character)
    return text


def _settle(images: Mapping[str, Named], found: Mapping[str, tuple[str, ...]], rank: Mapping[str, int]) -> FoundMasks:
    """Give a mask that several images claim to the one with the longest stem, or the better pattern."""
    claims: dict[str, list[str]] = defaultdict(list)
    for image, masks in found.items():
        for mask in masks:
            claims[mask].append(image)
    lost: dict[str, set[str]] = defaultdict(set)
    ambiguous: set[str] = set()
    for mask, claimants in claims.items():
        if len(claimants) < 2:
            continue
        best = max((len(images[image].stem), -rank[image]) for image in claimants)
        winners = [image for image in claimants if (len(images[image].stem), -rank[image]) == best]
        if len(winners) > 1:
            ambiguous.update(winners)
        for image in claimants:
            if image not in winners:
                lost[image].add(mask)
    kept = {image: tuple(mask for mask in masks if mask not in lost[image]) for image, masks in found.items()}
    return FoundMasks({image: masks for image, masks in kept.items() if masks}, frozenset(ambiguous))
