"""Runs a job and ends its process with SIGKILL between the files of a published table and their commit.

    python -m tests.pipeline.killed_commit TABLE JOB.yaml

A folder in the place of the next version makes the commit fail when the files are written; there the blow falls.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import deltalake
from deltalake.exceptions import CommitFailedError

from ancd_ray.config.load import load
from ancd_ray.engine.progress import Display
from ancd_ray.jobs.classify.run import run


def main(table: str, job_file: Path) -> None:
    """Arms the kill, then runs the job as `submit` does."""
    write = deltalake.write_deltalake

    def write_and_die(target: deltalake.DeltaTable, rows: Any, **how: Any) -> None:
        folder = Path(target.table_uri.removeprefix("file://"))
        if folder.name != table:
            write(target, rows, **how)
            return
        commit = folder / "_delta_log" / f"{target.version() + 1:020d}.json"
        commit.mkdir()
        try:
            write(target, rows, **how)
        except CommitFailedError:
            commit.rmdir()
            os.kill(os.getpid(), signal.SIGKILL)

    deltalake.write_deltalake = write_and_die  # type: ignore[assignment]
    run(load(job_file), None, Display("killed"))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
