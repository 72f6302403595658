"""Deletes old runs of an output folder, and the results of steps that nothing which is left stands on.

The newest finished runs stay, and those that are young enough; a sweep is a run. With them stay the steps that the
record of a run names, and those that the trials of a sweep were made from. Models are whole: in a run folder they stay
as long as it does, in MLflow they need nothing of it.

Work in progress stays for a day: steps of a job that was interrupted, which no run refers to yet, with those that they
were made from, and run folders without a record.

Of published tables nothing goes but what a killed writer left, which no version has; `ancd-ray compact` deletes what
newer versions have replaced.

Steps are deleted before the runs that refer to them, the oldest first, and of each step the manifest first. So a
command that was killed leaves nothing that looks whole and is not, and the next one finds the rest by the same records.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import timedelta

from ancd_ray.data.location import StoreError
from ancd_ray.data.lock import lock_folder
from ancd_ray.data.store import DRAFTS, Folder
from ancd_ray.engine.outputs import MANIFEST, Output
from ancd_ray.jobs.classify import delta
from ancd_ray.jobs.identity.tables import UNLOCKED
from ancd_ray.jobs.nights.deliver import write_index
from ancd_ray.jobs.results import RECORD, read_record
from ancd_ray.models.classify_images import ClassifyImages
from ancd_ray.stages.catalog import Catalog

_IN_PROGRESS_S = 86_400.0
_RUN, _STEP = re.compile(r".+-[0-9a-f]{12}"), re.compile(r".+-[0-9a-f]{16}")  # other folders are not of ancd-ray
_LOGS = "logs"
_UNLOCKED_S = 3600.0  # age from which a file of an unlocked table that no version has is a killed writer's


@dataclass(frozen=True)
class Entry:
    """A file or folder of an output folder: its path in it, its bytes, and the time of its last change."""

    place: str
    size: int
    time: float
    is_file: bool = False


@dataclass(frozen=True)
class Run:
    """A run folder, and the fingerprints of the steps that it stands on; None if it is not finished."""

    entry: Entry
    steps: frozenset[str] | None


@dataclass(frozen=True)
class Rules:
    """What stays: the `keep` newest runs, and those that are younger than `age`, if any."""

    keep: int
    age: timedelta | None = None

    def choose(self, runs: Iterable[Run], now: float) -> tuple[list[Run], list[Run]]:
        """Divide runs into those that stay and those that go."""
        finished = sorted((run for run in runs if run.steps is not None), key=lambda run: -run.entry.time)
        stay = finished[: self.keep] + [run for run in finished[self.keep :] if not self.is_old(run.entry, now)]
        stay += [run for run in runs if run.steps is None and now - run.entry.time < _IN_PROGRESS_S]
        return stay, [run for run in runs if run not in stay]

    def is_old(self, entry: Entry, now: float) -> bool:
        """Whether something that is not among the newest is old; everything is, if there is no age."""
        return self.age is None or now - entry.time >= self.age.total_seconds()


def clean(
    root: Folder,
    rules: Rules,
    dry_run: bool,
    tell: Callable[[Entry], None],
    say: Callable[[str], None] = lambda _: None,
) -> int:
    """Delete what the rules do not keep, and return its size in bytes.

    Parameters
    ----------
    root
        Output folder.
    rules
        What stays.
    dry_run
        Nothing is deleted, and nothing locked.
    tell
        Is called with everything that was deleted, or would be.
    say
        Is called with one line if it takes time to find out whether a job is writing there, and for a published table
        whose log is broken.

    Raises
    ------
    StoreError
        The folder is not an output folder, a job is writing there, or the record of a run cannot be read.
    """
    if not {Catalog.name, ClassifyImages.name} & set((root / "steps").names()):
        raise StoreError(f"{root}: not an output folder (no job has left its steps there); it is `output:` of a job")
    drafts = _list_files(root, DRAFTS)  # the lock deletes them, and leases of the dead
    total = 0
    with nullcontext() if dry_run else lock_folder(root, say):
        for entry in [*drafts, *find_waste(root, rules), *_list_unpublished(root, say)]:
            if not dry_run:
                _delete(root, entry)
            tell(entry)
            total += entry.size
        if total and not dry_run:
            write_index(root)
    return total


def find_waste(root: Folder, rules: Rules) -> list[Entry]:
    """List what the rules do not keep: steps, runs, logs, in the order in which they are to be deleted."""
    now = time.time()
    steps = _list_steps(root)
    runs = [_look_at_run(root, f"runs/{name}", steps) for name in (root / "runs").names() if _RUN.fullmatch(name)]
    stay, go = rules.choose(runs, now)
    needed = {fingerprint for run in stay for fingerprint in run.steps or ()}
    dismissed = {fingerprint for run in go for fingerprint in run.steps or ()}
    loose = {fingerprint: _measure(root, steps[fingerprint]) for fingerprint in steps.keys() - needed}
    fresh = {
        fingerprint
        for fingerprint, entry in loose.items()
        if fingerprint not in dismissed and now - entry.time < _IN_PROGRESS_S
    }
    needed |= _list_sources(root, steps, fresh)
    waste = [entry for fingerprint, entry in loose.items() if fingerprint not in needed]
    logs = [entry for entry in _list_files(root, _LOGS) if rules.age and rules.is_old(entry, now)]
    return [*sorted(waste, key=lambda entry: (entry.time, entry.place)), *(run.entry for run in go), *logs]


def _look_at_run(root: Folder, place: str, steps: Mapping[str, str]) -> Run:
    """Look at a run folder.

    Raises
    ------
    StoreError
        It has a record that cannot be read: nobody knows which steps it stands on.
    """
    folder, entry = root / place, _measure(root, place)
    if folder.exists(RECORD):
        record = read_record(folder)
        if record is None:
            raise StoreError(
                f"{folder}/{RECORD}: cannot be read, so nobody knows which steps this run stands on; submit its job "
                "again, or delete the folder"
            )
        return Run(entry, frozenset(_get_fingerprint(step) for step in record["steps"]))
    trials = [_get_fingerprint(name.removesuffix(".json")) for name in (folder / "trials").names()]
    is_sweep = trials or folder.exists("sweep.parquet")
    return Run(entry, frozenset(_list_sources(root, steps, trials)) if is_sweep else None)


def _list_steps(root: Folder) -> dict[str, str]:
    """List the folders of steps, finished or not, by fingerprint."""
    places = [
        f"steps/{stage}/{name}"
        for stage in (root / "steps").names()
        for name in (root / "steps" / stage).names()
        if _STEP.fullmatch(name)
    ]
    return {_get_fingerprint(place): place for place in places}


def _list_sources(root: Folder, steps: Mapping[str, str], fingerprints: Iterable[str]) -> set[str]:
    """List steps and all that they were made from; the inputs of a step that is not finished are not known."""
    found: set[str] = set()
    todo = list(fingerprints)
    while todo:
        fingerprint = todo.pop()
        if fingerprint in steps and fingerprint not in found:
            found.add(fingerprint)
            output = Output.find(root / steps[fingerprint])
            todo += [source["fingerprint"] for source in output.manifest["inputs"].values()] if output else []
    return found


def _measure(root: Folder, place: str) -> Entry:
    stats = (root / place).stats().values()
    return Entry(place, sum(stat.size for stat in stats), max((stat.time for stat in stats), default=0.0))


def _list_files(root: Folder, place: str) -> list[Entry]:
    stats = (root / place).stats()
    return [Entry(f"{place}/{name}", stat.size, stat.time, is_file=True) for name, stat in sorted(stats.items())]


def _list_unpublished(root: Folder, say: Callable[[str], None]) -> list[Entry]:
    """List the files of published tables that no version has; those of a table whose log is broken stay."""
    found = []
    for name in (root / delta.FOLDER).names():
        place = f"{delta.FOLDER}/{name}"
        try:
            table = delta.open_table(root / place)
        except StoreError as error:
            say(str(error))
            continue
        orphans = delta.list_orphans(table, root / place) if table else {}
        entries = [Entry(f"{place}/{file}", stat.size, stat.time, is_file=True) for file, stat in orphans.items()]
        # people change classes without the lock, and may be about to commit a file
        settled = time.time() - (_UNLOCKED_S if name in UNLOCKED else 0)
        found += [entry for entry in entries if entry.time <= settled]
    return found


def _delete(root: Folder, entry: Entry) -> None:
    if entry.is_file:
        root.discard(entry.place)
        return
    (root / entry.place).discard(MANIFEST)
    (root / entry.place).remove()


def _get_fingerprint(place: str) -> str:
    return place.rpartition("-")[2]
