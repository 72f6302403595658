"""Finds the processes that a test started, and starts copies of one that has its libraries already."""

from __future__ import annotations

import contextlib
import os
import traceback
from collections.abc import Callable

import psutil


def children_named(name: str) -> list[psutil.Process]:
    """Finds the living children of this process, at any depth, whose command line holds `name`."""
    found = []
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):  # one that has ended meanwhile, or is a zombie
            if name in " ".join(child.cmdline()):
                found.append(child)
    return found


def import_libraries() -> None:
    """Import what jobs import, which takes ten seconds, and starts no thread."""
    import mlflow  # noqa: F401
    import numba  # noqa: F401
    import openvino  # noqa: F401
    import plotly.graph_objects  # noqa: F401
    import sklearn.cluster  # noqa: F401
    import timm  # noqa: F401
    import torch  # noqa: F401

    import ancd_ray.jobs.report.render
    import ancd_ray.jobs.run  # noqa: F401


def run_in_a_copy(work: Callable[[], object]) -> int:
    """Run something in a fork of this process, which must have no threads yet; its exit code, or -N after signal N."""
    process = os.fork()
    if not process:
        try:
            work()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
