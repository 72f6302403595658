"""The command that deletes old results."""

from __future__ import annotations

import re
from datetime import timedelta

import click

from ancd_ray.cli.errors import explain_errors

_HOURS = {"h": 1, "d": 24, "w": 24 * 7}


def parse_age(context: click.Context, option: click.Parameter, value: str | None) -> timedelta | None:
    """Parse a number of hours, days or weeks, such as 12h, 30d, 8w."""
    if value is None:
        return None
    found = re.fullmatch(r"(\d{1,6})([hdw])", value.strip())
    if not found:
        raise click.BadParameter(f"{value!r} is no age; write hours, days or weeks: 12h, 30d, 8w", context, option)
    return timedelta(hours=int(found[1]) * _HOURS[found[2]])


@click.command()
@click.argument("output", metavar="OUTPUT")
@click.option(
    "--keep", default=3, show_default=True, type=click.IntRange(min=0), help="The newest finished runs, which stay."
)
@click.option(
    "--older-than",
    "age",
    callback=parse_age,
    metavar="AGE",
    help="Younger runs stay, too: 12h, 30d, 8w. Logs of errors go when they are as old.",
)
@click.option("--dry-run", is_flag=True, help="Print what would go, and delete nothing.")
def clean(output: str, keep: int, age: timedelta | None, dry_run: bool) -> None:
    """Delete old runs, and the results that no run which stays stands on.

    OUTPUT is the output folder of jobs (`output:`), a path or URI. Sweeps count as runs. What an interrupted job has
    done stays for a day, so that it can go on; models in MLflow stay. A job that is submitted again computes what is
    no longer there.

    Each line is the size of what goes; the last line of the output is the number of bytes of all.

    \b
      ancd-ray clean runs/plant --dry-run
      ancd-ray clean runs/plant --keep 1
      ancd-ray clean s3://plant/ancd --keep 0 --older-than 30d      runs of the last 30 days stay
    """  # noqa: D301
    with explain_errors():
        from functools import partial

        from ancd_ray.data.store import Folder
        from ancd_ray.jobs.clean import Entry, Rules
        from ancd_ray.jobs.clean import clean as clean_folder

        def tell(entry: Entry) -> None:
            click.echo(f"{entry.size:>15,}  {entry.place}")

        total = clean_folder(Folder(output), Rules(keep, age), dry_run, tell, partial(click.echo, err=True))
        if dry_run:
            click.echo("a dry run: nothing was deleted", err=True)
        click.echo(total)
