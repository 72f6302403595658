"""What all verbs of the command line share: how errors look and end, and how text of other processes is passed on."""

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
    """Prints what another process has printed."""
    sys.stdout.write(text)
    sys.stdout.flush()


@contextmanager
def explained() -> Iterator[None]:
    """Turns what users can put right into one line each and an exit code; anything else keeps its traceback."""
    signal.signal(signal.SIGTERM, lambda *_: (_ for _ in ()).throw(KeyboardInterrupt()))  # kubectl's way of Ctrl-C
    try:
        yield
    except AncdError as error:
        for line in str(error).splitlines():
            click.echo(f"error: {line}", err=True)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        click.echo("stopped; the same command continues where it was", err=True)
        sys.stderr.flush()
        os._exit(INTERRUPTED)  # Ray's threads would make an orderly exit wait for work nobody wants any more
