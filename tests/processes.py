"""Finds the processes that a test started."""

from __future__ import annotations

import contextlib

import psutil


def children_named(name: str) -> list[psutil.Process]:
    """Finds the living children of this process, at any depth, whose command line holds `name`."""
    found = []
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):  # one that has ended meanwhile, or is a zombie
            if name in " ".join(child.cmdline()):
                found.append(child)
    return found
