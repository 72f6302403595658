"""Runs a job in a process for each step, which SIGKILL ends there: `python -m tests.pipeline.killed JOB.yaml STEP...`.

Where the step works in shards the blow falls after the first of them is committed, else when all of its work is done
and only the manifest is missing. The processes are copies of this one, which share its imports and nothing else.
"""

from __future__ import annotations

import os
import signal
import sys
from functools import partial
from pathlib import Path

from ancd_ray.config.load import load
from ancd_ray.data.store import Folder
from ancd_ray.engine import attempts, executor
from ancd_ray.engine.outputs import MANIFEST, CommittedShard
from ancd_ray.engine.progress import Display
from ancd_ray.jobs.run import run
from tests.processes import import_libraries, run_in_a_copy


def main(job_file: Path, steps: list[str]) -> None:
    """Runs the job once for each step."""
    import_libraries()
    for step in steps:
        ended = run_in_a_copy(partial(run_and_die, step, job_file))
        assert ended == -signal.SIGKILL, (step, ended)


def run_and_die(step: str, job_file: Path) -> None:
    """Arms the kill, then runs the job as `submit` does."""
    commit, write_json = attempts.commit_shard, Folder.write_json

    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def commit_then_die(folder: Folder, *rest: object) -> CommittedShard:
        done = commit(folder, *rest)  # type: ignore[arg-type]
        if f"/steps/{step}/" in folder.uri:
            die()
        return done

    def die_before_manifest(self: Folder, name: str, document: object, durable: bool = True) -> None:
        if name == MANIFEST and f"/steps/{step}/" in self.uri:
            die()
        write_json(self, name, document, durable)
        if name == "summary.json" and step == "report":
            die()

    attempts.commit_shard = commit_then_die  # type: ignore[assignment]
    Folder.write_json = die_before_manifest  # type: ignore[method-assign]
    assert executor.MANIFEST == MANIFEST
    run(load(job_file), None, Display("killed"))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
