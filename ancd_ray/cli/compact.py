"""The command that compacts the published tables of an archive."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import click

from ancd_ray.cli.clean import parse_age
from ancd_ray.cli.errors import explain_errors

if TYPE_CHECKING:
    from ancd_ray.jobs.compact import Compaction


@click.command()
@click.argument("output", metavar="OUTPUT")
@click.option(
    "--older-than",
    "retention",
    default="7d",
    show_default=True,
    callback=parse_age,
    metavar="AGE",
    help="Delete files that were replaced longer ago: 12h, 30d, 8w. Programs that read an older version lose them.",
)
@click.option("--dry-run", is_flag=True, help="Print what would be done, and write and delete nothing.")
def compact(output: str, retention: timedelta, dry_run: bool) -> None:
    """Compact the published tables of an archive: the same rows in few files, which are read faster.

    OUTPUT is the output folder of jobs of `mode: classify`, a path or URI. Each of their runs adds small files to the
    tables in OUTPUT/archive; after many nights, programs that read them open thousands. Compaction writes the rows
    anew, product by product, as a new version of each table. Programs that are reading meanwhile go on with the
    version that they have begun: replaced files are deleted later, when they are as old as --older-than says.

    Each line of the output is a table: its files before and after, and the old files that were deleted.

    \b
      ancd-ray compact runs/plant --dry-run
      ancd-ray compact runs/plant                             once a week, after the job of the night
      ancd-ray compact s3://plant/ancd --older-than 30d       versions of the last 30 days stay readable
    """  # noqa: D301
    with explain_errors():
        from functools import partial

        from ancd_ray.data.store import Folder
        from ancd_ray.jobs.compact import compact as compact_tables

        for done in compact_tables(Folder(output), retention, dry_run, partial(click.echo, err=True)):
            click.echo(_describe(done))
        if dry_run:
            click.echo("a dry run: nothing was written or deleted; bytes after it are those before", err=True)


def _describe(done: Compaction) -> str:
    files = f"{len(done.before):,} files → {len(done.after):,}"
    size = f"{sum(done.before):,} bytes → {sum(done.after):,}"
    deleted = f"{len(done.deleted):,} old files deleted, {sum(done.deleted):,} bytes"
    return f"{done.table:<20} {files:<20} {size:<36} {deleted}"
