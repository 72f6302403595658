"""Runs a job up to its regions until it ends, in processes that an image kills.

python -m tests.pipeline.deadly JOB.yaml NAME: a process dies wherever the stage `regions` reads an image whose URI ends
in NAME. Shards have one image. Prints how many were killed.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from ancd_ray.config.load import load
from ancd_ray.data.images import ImageU8
from ancd_ray.engine import context
from ancd_ray.engine.attempts import ATTEMPTS
from ancd_ray.engine.executor import run_steps
from ancd_ray.engine.progress import Display
from ancd_ray.engine.runtime import Runtime
from ancd_ray.jobs.plan import make
from ancd_ray.stages import regions
from tests.processes import run_in_a_copy


def main(job_file: Path, deadly: str) -> None:
    """Runs the steps again and again; the processes are copies of this one."""
    killed = 0
    while ended := run_in_a_copy(partial(run_or_die, job_file, deadly)):
        assert ended == -signal.SIGKILL, ended
        killed += 1
        assert killed <= ATTEMPTS
    print(killed)


def run_or_die(job_file: Path, deadly: str) -> None:
    """Arms the kill, then runs the steps."""
    read = regions.read_rgb

    def read_or_die(row: Mapping[str, Any]) -> ImageU8:
        if str(row["uri"]).endswith(deadly):
            os.kill(os.getpid(), signal.SIGKILL)
        return read(row)

    regions.read_rgb = read_or_die  # type: ignore[attr-defined]
    context.SHARD_ROWS = (1, 1)
    plan = make(load(job_file))
    steps = [step for step in plan.steps if step.name in ("catalog", "detect", "regions")]
    run_steps(steps, plan.root, Runtime(in_process_below=1000), Display("deadly"), max_quarantined=0.5)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
