"""Runs a sweep and kills its process once N trials are recorded: `python -m tests.sweep.killed N JOB.yaml`."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path

from ancd_ray.config.load import load
from ancd_ray.engine.progress import Display
from ancd_ray.jobs.sweep.planning import build_search_space
from ancd_ray.jobs.sweep.run import run


def main(trials: int, job_file: Path) -> None:
    """Arms the kill, then runs the sweep as `submit` does."""
    job = load(job_file)
    folder = build_search_space(job).records

    def die_in_time() -> None:
        while len([name for name in folder.names() if name.endswith(".json")]) < trials:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=die_in_time, daemon=True).start()
    run(job, None, Display("killed"))


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
