"""Runs a job and ends its process with SIGKILL at a given step: `python -m tests.pipeline.killed STEP JOB.yaml`.

Where the step works in shards the blow falls after the first of them is committed, else when all of its work is done
and only the manifest is missing.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from ancd_ray.config.load import load
from ancd_ray.data.store import Folder
from ancd_ray.engine import attempts, steps
from ancd_ray.engine.outputs import MANIFEST, CommittedShard
from ancd_ray.engine.progress import Display
from ancd_ray.jobs.run import run


def main(step: str, job_file: Path) -> None:
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
    assert steps.MANIFEST == MANIFEST
    run(load(job_file), None, Display("killed"))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
