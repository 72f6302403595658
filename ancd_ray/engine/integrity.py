"""Compares what earlier runs left in the folder of a step with what they recorded of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from ancd_ray.data.store import FileStat, Folder
from ancd_ray.engine.outputs import MANIFEST, CommittedShard, Output, Part, find_damage, read_finished_shard

_HASHED_AT_ONCE = 4  # files; hashing does not hold the interpreter's lock


@dataclass(frozen=True)
class Found:
    """What earlier runs left in the folder of a step: its output, or else its committed shards by index.

    `damage` has a line for everything that is not as it was written, and is therefore done again.
    """

    output: Output | None
    shards: Mapping[int, CommittedShard]
    damage: Sequence[str]


Check = Callable[[Sequence[Part], Mapping[str, str]], list[str]]  # parts, and other files by name with their sha256


def inspect_folder(folder: Folder) -> Found:
    """Find the output of a step, or else its committed shards, and compare their files with what was recorded.

    All files are read, which is due before they are used.
    """

    def check(parts: Sequence[Part], files: Mapping[str, str]) -> list[str]:
        with ThreadPoolExecutor(_HASHED_AT_ONCE) as pool:
            damage = [*pool.map(lambda part: part.find_damage(folder), parts)]
        return _drop_none([*damage, *(find_damage(folder, file, sha256) for file, sha256 in files.items())])

    return _inspect(folder, Output.find(folder), check)


def glance_at_folder(folder: Folder) -> Found:
    """Find the same by the existence and the sizes of the files; none of them is read, so none is to be used."""
    present = folder.stats()
    if not present:
        return Found(None, {}, [])
    output = Output.find(folder)
    sizes = output.sizes if output else {}

    def check(parts: Sequence[Part], files: Mapping[str, str]) -> list[str]:
        return _drop_none(_compare_size(file, present, sizes) for file in (*(part.file for part in parts), *files))

    return _inspect(folder, output, check)


def _inspect(folder: Folder, output: Output | None, check: Check) -> Found:
    if output:
        parts = [part for table in output.manifest["tables"] for part in output.parts(table)]
        damage = check(parts, output.manifest.get("files", {}))
        if not damage:
            return Found(output, {}, [])
    else:
        damage = [f"{MANIFEST} cannot be read"] if folder.exists(MANIFEST) else []
    shards = {}
    for name in (folder / "shards").names():
        if not name.endswith(".json"):
            continue
        done = read_finished_shard(folder, int(name.removesuffix(".json")))
        found = check(list(done.parts.values()), {}) if done else [f"shards/{name} cannot be read"]
        damage += found
        if done and not found:
            shards[done.index] = done
    return Found(None, shards, list(dict.fromkeys(damage)))


def _compare_size(file: str, present: Mapping[str, FileStat], sizes: Mapping[str, int]) -> str | None:
    """Return what is wrong with a file at first sight, in one line; None if it is there with its recorded size."""
    if file not in present:
        return f"{file} is missing"
    return None if sizes.get(file, present[file].size) == present[file].size else f"{file} is not as it was written"


def _drop_none(lines: Iterable[str | None]) -> list[str]:
    return [line for line in lines if line]
