"""Shared by all commands of the command line: error messages, exit codes, and output of other processes."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import click

from ancd_ray.config.errors import AncdError

INTERRUPTED = 130


def write(text: str) -> None:
    """Write the output of another process to stdout."""
    sys.stdout.write(text)
    sys.stdout.flush()


@contextmanager
def explain_errors() -> Iterator[None]:
    """Print errors that users can fix without a traceback, and exit with the error's exit code.

    Other exceptions are not caught. SIGTERM is handled like Ctrl-C.
    """
    signal.signal(signal.SIGTERM, lambda *_: (_ for _ in ()).throw(KeyboardInterrupt()))  # sent by Kubernetes
    try:
        yield
    except AncdError as error:
        for line in str(error).splitlines():
            click.echo(f"error: {line}", err=True)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        click.echo("stopped; the same command continues where it was", err=True)
        sys.stderr.flush()
        os._exit(INTERRUPTED)  # a normal exit waits for Ray's threads
