"""Compacts the published tables of an output folder: many small files become few, and those they replaced go in time.

Each run of `mode: classify` adds a file a table and product. Compaction is a new version of a table with the same rows;
programs that read an earlier version still find its files, until they have been replaced for longer than the retention.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from ancd_ray.config.errors import first_line
from ancd_ray.data.location import StoreError
from ancd_ray.data.lock import lock_folder
from ancd_ray.data.store import Folder
from ancd_ray.jobs.classify.delta import FOLDER, LOG, explain_broken_log, list_expired, measure_files, open_table

if TYPE_CHECKING:
    from deltalake import DeltaTable

TARGET = 128 << 20  # bytes; larger files are left as they are


@dataclass(frozen=True)
class Compaction:
    """What was done with a table: bytes of its files before and after, and of the files that were deleted."""

    table: str
    before: tuple[int, ...]
    after: tuple[int, ...]
    deleted: tuple[int, ...]


def compact(
    root: Folder,
    retention: timedelta,
    dry_run: bool,
    say: Callable[[str], None] = lambda _: None,
) -> Iterator[Compaction]:
    """Compact the published tables, and delete files that were replaced longer ago than the retention.

    Parameters
    ----------
    root
        Output folder.
    retention
        How long a replaced file stays, for programs that read an earlier version.
    dry_run
        Nothing is written or deleted, and nothing locked; bytes after it are not known, and taken to be as many.
    say
        Is called with one line if it takes time to find out whether a job is writing there.

    Yields
    ------
    What was done, or would be, with each table.

    Raises
    ------
    StoreError
        There is no table, one cannot be read, or a job is writing there.
    """
    names = [name for name in (root / FOLDER).names() if (root / FOLDER / name / LOG).names()]
    if not names:
        raise StoreError(f"{root}: no published tables in {FOLDER}/; jobs of `mode: classify` publish them")
    with nullcontext() if dry_run else lock_folder(root, say):
        for name in names:
            folder = root / FOLDER / name
            with explain_broken_log(folder):
                if table := open_table(folder):
                    yield (_forecast if dry_run else _compact)(name, table, folder, retention)


def _compact(name: str, table: DeltaTable, folder: Folder, retention: timedelta) -> Compaction:
    from deltalake.exceptions import DeltaError

    before = measure_files(table)
    try:
        table.optimize.compact(target_size=TARGET)
    except DeltaError as error:
        raise StoreError(
            f"{folder}: cannot be compacted ({first_line(error)}); submit the job that publishes it, which repairs it"
        ) from error
    expired = list_expired(table, folder, retention)
    if expired:  # it would write two versions for nothing
        hours = int(retention.total_seconds() // 3600)
        table.vacuum(hours, dry_run=False, enforce_retention_duration=False, full=True)
    return Compaction(name, *map(_list_sizes, (before, measure_files(table), expired)))


def _forecast(name: str, table: DeltaTable, folder: Folder, retention: timedelta) -> Compaction:
    before = measure_files(table)
    after = [size for files in _group(before).values() for size in _pack(files)]
    expired = list_expired(table, folder, retention)
    if not retention and len(after) < len(before):
        expired |= {path: size for path, size in before.items() if size < TARGET}
    return Compaction(name, _list_sizes(before), tuple(after), _list_sizes(expired))


def _group(files: dict[str, int]) -> dict[str, list[int]]:
    """Group sizes of files by the folder of their product."""
    groups: dict[str, list[int]] = {}
    for path, size in files.items():
        groups.setdefault(path.rpartition("/")[0], []).append(size)
    return groups


def _pack(sizes: list[int]) -> list[int]:
    """Return the sizes of files when small ones are put together up to the target."""
    packed: list[int] = []
    for size in sorted(sizes, reverse=True):
        if packed and packed[-1] + size <= TARGET:
            packed[-1] += size
        else:
            packed.append(size)
    return packed


def _list_sizes(files: dict[str, int]) -> tuple[int, ...]:
    return tuple(files.values())
