"""Commands for jobs on a cluster: status, logs, stop, list."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, TypeVar

import click

from ancd_ray.cli.errors import explain_errors, write

_F = TypeVar("_F", bound=Callable[..., Any])


def _address_option(command: _F) -> _F:
    return click.option("--address", envvar="ANCD_RAY_ADDRESS", help="Ray's dashboard, http://host:8265.")(command)


@click.command()
@click.argument("submission_id")
@_address_option
def status(submission_id: str, address: str | None) -> None:
    """Tell how a submitted job is doing."""
    with explain_errors():
        from ancd_ray.jobs import remote

        click.echo(_format(remote.status(_require(address), submission_id)))


@click.command()
@click.argument("submission_id")
@click.option("--follow", "-f", is_flag=True, help="Go on until the job ends, and end with its exit code.")
@_address_option
def logs(submission_id: str, follow: bool, address: str | None) -> None:
    """Print the log of a submitted job."""
    with explain_errors():
        from ancd_ray.jobs import remote

        if follow:
            sys.exit(remote.follow(_require(address), submission_id, write))
        write(remote.logs(_require(address), submission_id))


@click.command()
@click.argument("submission_id")
@_address_option
def stop(submission_id: str, address: str | None) -> None:
    """Stop a submitted job; submitting it again continues it."""
    with explain_errors():
        from ancd_ray.jobs import remote

        was_running = remote.stop(_require(address), submission_id)
        click.echo(f"{submission_id} {'is being stopped' if was_running else 'is over already'}")


@click.command("list")
@_address_option
def list_jobs(address: str | None) -> None:
    """List the jobs of a cluster, the newest first."""
    with explain_errors():
        from ancd_ray.jobs import remote

        for job in remote.list_jobs(_require(address)):
            click.echo(_format(job))


def _format(job: Any) -> str:
    seconds = "" if job.seconds is None else f"{job.seconds:.0f} s"
    return f"{job.id}  {job.status:<10} {seconds:>8}  {job.message or ''}".rstrip()


def _require(address: str | None) -> str:
    if not address:
        raise click.UsageError("give --address http://host:8265, or set ANCD_RAY_ADDRESS")
    return address


VERBS = (status, logs, stop, list_jobs)
