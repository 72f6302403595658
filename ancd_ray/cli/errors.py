"""The boundary of all commands: whatever goes wrong is one line a problem on stderr, and an exit code.

Errors that users can fix say all there is to say. For any other exception the traceback is written to a file, and the
line names it.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import click

from ancd_ray import __version__
from ancd_ray.config.errors import AncdError
from ancd_ray.config.secrets import hide_secrets

INTERRUPTED = 130


@dataclass
class Boundary:
    """What a command knows about where its errors are to be kept."""

    output: str | None = None  # output folder of the job; its `logs` keeps tracebacks


def write(text: str) -> None:
    """Write the output of another process to stdout."""
    sys.stdout.write(text)
    sys.stdout.flush()


@contextmanager
def explain_errors() -> Iterator[Boundary]:
    """Print any exception as lines, and exit with its exit code; SIGTERM is handled like Ctrl-C."""
    signal.signal(signal.SIGTERM, lambda *_: (_ for _ in ()).throw(KeyboardInterrupt()))  # sent by Kubernetes
    boundary = Boundary()
    try:
        yield boundary
    except AncdError as error:
        for line in hide_secrets(str(error)).splitlines():
            click.echo(f"error: {line}", err=True)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        click.echo("stopped; the same command continues where it was", err=True)
        sys.stderr.flush()
        os._exit(INTERRUPTED)  # a normal exit waits for Ray's threads
    except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError):
        raise  # click's own: usage, exit codes, a reader of stdout that has gone
    except Exception as error:
        from ancd_ray.cli.faults import describe

        text = hide_secrets(describe(error))
        click.echo(f"error: {text}; {_keep_traceback(error, boundary.output)}", err=True)
        sys.exit(1)


def _keep_traceback(error: Exception, output: str | None) -> str:
    """Write the traceback to a file in the output folder, or else in the temporary one; returns where it is."""
    command = " ".join(sys.argv)
    lines = traceback.format_exception(error)
    text = hide_secrets(f"ancd-ray {__version__}: {command}\n\n{''.join(lines)}")
    name = f"error-{datetime.now():%Y%m%d-%H%M%S}-{os.getpid()}.log"
    folders = [Path(tempfile.gettempdir())]
    if output and "://" not in output:
        folders.insert(0, Path(output).expanduser().absolute() / "logs")
    for folder in folders:
        path = folder / name
        try:
            folder.mkdir(parents=True, exist_ok=True)
            path.write_text(text, "utf-8", errors="backslashreplace")
        except OSError:  # full, read-only, or below a file: this may be what went wrong
            path.unlink(missing_ok=True) if folder.is_dir() else None
            continue
        return f"the traceback is in {path}"
    return "the traceback could not be written anywhere"
