"""Compares what earlier runs left in the folder of a step with what they recorded of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from ancd_ray.data.store import Folder
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


def inspect_folder(folder: Folder) -> Found:
    """Find the output of a step, or else its committed shards, and compare their files with what was recorded."""
    output = Output.find(folder)
    if output:
        parts = [part for table in output.manifest["tables"] for part in output.parts(table)]
        damage = [*_check_parts(folder, parts), *_check_files(folder, output.manifest.get("files", {}))]
        if not damage:
            return Found(output, {}, [])
    else:
        damage = [f"{MANIFEST} cannot be read"] if folder.exists(MANIFEST) else []
    shards = {}
    for name in (folder / "shards").names():
        if not name.endswith(".json"):
            continue
        done = read_finished_shard(folder, int(name.removesuffix(".json")))
        found = _check_parts(folder, list(done.parts.values())) if done else [f"shards/{name} cannot be read"]
        damage += found
        if done and not found:
            shards[done.index] = done
    return Found(None, shards, list(dict.fromkeys(damage)))


def _check_parts(folder: Folder, parts: Sequence[Part]) -> list[str]:
    with ThreadPoolExecutor(_HASHED_AT_ONCE) as pool:
        return [damage for damage in pool.map(lambda part: part.find_damage(folder), parts) if damage]


def _check_files(folder: Folder, digests: Mapping[str, str]) -> list[str]:
    return [damage for file, sha256 in digests.items() if (damage := find_damage(folder, file, sha256))]
