"""Runs a job up to its regions in this process, which an image kills: `python -m tests.pipeline.deadly JOB.yaml NAME`.

It dies wherever the stage `regions` reads an image whose URI ends in NAME. Shards have one image.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ancd_ray.config.load import load
from ancd_ray.data.images import ImageU8
from ancd_ray.engine import context
from ancd_ray.engine.executor import run_steps
from ancd_ray.engine.progress import Display
from ancd_ray.engine.runtime import Runtime
from ancd_ray.jobs.plan import make
from ancd_ray.stages import regions


def main(job_file: Path, deadly: str) -> None:
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
