"""Runs `ancd-ray submit JOB.yaml` and ends it with SIGKILL: `python -m tests.pipeline.killed_night POINT JOB.yaml`.

draft       while the listing of a new partition is being written
partition   when it is written, before any image is opened
shard       when the first shard of images is committed
TABLE       before the rows of a published table are written; those of the tables before it are
runs        when all is done but the row of the run
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa

from ancd_ray.cli.main import main as command
from ancd_ray.data.store import Folder
from ancd_ray.engine import attempts
from ancd_ray.engine.outputs import CommittedShard
from ancd_ray.jobs.classify import publish, run


def _die(*_: object, **__: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _arm(point: str) -> None:
    write_table, commit, publish_table = Folder.write_table, attempts.commit_shard, publish._publish_table

    def write_half(self: Folder, name: str, table: pa.Table) -> str:
        if "/partitions/" in self.uri:
            with self._atomically(name) as draft:
                Path(draft).write_bytes(b"PAR1 and half of the rest")
                _die()
        return write_table(self, name, table)

    def commit_then_die(folder: Folder, *rest: Any) -> CommittedShard:
        done = commit(folder, *rest)
        _die()
        return done

    def publish_until(table: str, *rest: Any, **more: Any) -> int:
        if table == point:
            _die()
        return publish_table(table, *rest, **more)

    if point == "draft":
        Folder.write_table = write_half  # type: ignore[method-assign]
    elif point == "partition":
        run.run_steps = _die  # type: ignore[assignment]
    elif point == "shard":
        attempts.commit_shard = commit_then_die
    elif point == "runs":
        run.publish_run = _die
    else:
        assert point in publish.TABLES
        publish._publish_table = publish_until


if __name__ == "__main__":
    _arm(sys.argv[1])
    command(["submit", sys.argv[2]])
