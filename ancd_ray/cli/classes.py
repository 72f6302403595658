"""Commands for the classes of an archive: their names, what people merge, split off, accept and ignore."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import click

from ancd_ray.cli.errors import explain_errors

_OUTPUT = click.argument("output", metavar="OUTPUT")
_PRODUCT = click.option("--product", help="Only classes of this product.")


@click.group()
def classes() -> None:
    """Show and change the classes of an archive, which keep their ids while models come and go.

    OUTPUT is the output folder of the jobs, a path or URI. A class has an id (tile-c0003), a name once somebody gives
    it one, and a status: active, candidate (found by a later discovery, nobody has accepted it yet), merged, ignored.
    Names and merges show in the next report and in `classes list`; nothing is computed again, and published rows keep
    their ids.

    \b
      ancd-ray classes list runs/plant
      ancd-ray classes name runs/plant tile-c0003 "edge crack"
      ancd-ray classes merge runs/plant tile-c0005 --into tile-c0003
      ancd-ray classes cut runs/plant/runs/plant-1a2b3c --k 7      other classes of the same discovery
      ancd-ray classes export runs/plant > classes.csv
    """  # noqa: D301


@classes.command("list")
@_OUTPUT
@_PRODUCT
def list_classes(output: str, product: str | None) -> None:
    """List classes with their names, states and numbers of images."""
    with explain_errors():
        from ancd_ray.data.store import Folder
        from ancd_ray.jobs.identity.tables import read_classes

        rows = sorted(read_classes(Folder(output), product).values(), key=lambda row: row["id"])
        if not rows:
            click.echo("no classes yet; a finished discovery or a job of `mode: classify` writes them", err=True)
        for row in rows:
            status = f"{row['status']} into {row['merged_into']}" if row["merged_into"] else row["status"]
            click.echo(f"{row['id']:<24} {row['name'] or '–':<28} {status:<28} {row['images']:>8,} images")


@classes.command()
@_OUTPUT
@click.argument("class_id")
def show(output: str, class_id: str) -> None:
    """Show all that is known of a class."""
    with explain_errors():
        from ancd_ray.data.store import Folder
        from ancd_ray.jobs.identity.edits import find_class

        for key, value in find_class(Folder(output), class_id).items():
            if key != "prototype":
                shown = ", ".join(value) if isinstance(value, list) else value
                click.echo(f"{key:<12} {'–' if shown is None else shown}")


@classes.command()
@_OUTPUT
@click.argument("class_id")
@click.argument("name")
def name(output: str, class_id: str, name: str) -> None:
    """Give a class a name; "" takes it away."""
    with explain_errors():
        from ancd_ray.data.store import Folder
        from ancd_ray.jobs.identity.edits import name_class

        name_class(Folder(output), class_id, name)


@classes.command()
@_OUTPUT
@click.argument("class_ids", nargs=-1, required=True)
@click.option("--into", required=True, metavar="ID", help="The class that they become part of.")
def merge(output: str, class_ids: tuple[str, ...], into: str) -> None:
    """Merge classes into another one; `classes accept` undoes it."""
    with explain_errors():
        from ancd_ray.data.store import Folder
        from ancd_ray.jobs.identity.edits import merge_classes

        merge_classes(Folder(output), class_ids, into)


@classes.command()
@_OUTPUT
@click.argument("class_id")
def accept(output: str, class_id: str) -> None:
    """Accept a candidate as a class, or make a merged or ignored one active again."""
    _set_status(output, class_id, "active")


@classes.command()
@_OUTPUT
@click.argument("class_id")
def ignore(output: str, class_id: str) -> None:
    """Ignore a class: its images are counted, and raise no alerts."""
    _set_status(output, class_id, "ignored")


@classes.command("split-off")
@_OUTPUT
@click.argument("class_id")
@click.option(
    "--regions",
    required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="CSV file with a column region_id.",
)
@click.option("--name", help="Name of the new class.")
def split_off(output: str, class_id: str, regions: Path, name: str | None) -> None:
    """Make a new class of some regions of a class, for the next discovery, and print its id."""
    with explain_errors():
        from ancd_ray.data.store import Folder
        from ancd_ray.jobs.identity.edits import read_regions, split_off

        click.echo(
            split_off(Folder(output), class_id, read_regions(regions.read_text("utf-8-sig"), str(regions)), name)
        )


@classes.command("export")
@_OUTPUT
@_PRODUCT
def export_csv(output: str, product: str | None) -> None:
    """Print the classes as CSV, to change names and states in a spreadsheet."""
    with explain_errors():
        from ancd_ray.data.store import Folder
        from ancd_ray.jobs.identity.edits import export_classes

        click.echo(export_classes(Folder(output), product), nl=False)


@classes.command("import")
@_OUTPUT
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
def import_file(output: str, file: Path) -> None:
    """Import names and states of classes (columns id, name), or classes of regions (region_id, class_id).

    What people say of regions are labels for the next discovery.
    """
    with explain_errors():
        from ancd_ray.data.store import Folder
        from ancd_ray.jobs.identity.edits import import_csv

        click.echo(import_csv(Folder(output), file.read_text("utf-8-sig"), str(file)))


@classes.command()
@click.argument("run_folder", metavar="RUN")
@click.option("--k", type=click.IntRange(min=1), help="Number of classes, the normal one included.")
@click.option("--merge", "merged", metavar="A,B", help="Classes that become one, by id, name or index.")
@click.option("--split", "divided", metavar="C", help="A class that becomes two.")
@click.option("--product", help="Product that is cut, for a run with several products.")
def cut(run_folder: str, k: int | None, merged: str | None, divided: str | None, product: str | None) -> None:
    """Cut the classes of a finished discovery otherwise: more, fewer, two merged, one split.

    RUN is the folder that `submit` printed, or that of a cut. The discovery has left a tree of its classes, and nothing
    else is computed: predictions, a model and a report are there in seconds, as a run of their own whose folder is the
    last line. RUN stays as it is; to undo a cut, use RUN, or cut it otherwise. Classes keep their ids.

    \b
      ancd-ray classes cut runs/plant/runs/plant-1a2b3c --k 7
      ancd-ray classes cut runs/plant/runs/plant-4d5e6f --merge tile-c0003,tile-c0005
      ancd-ray classes cut runs/plant/runs/plant-7a8b9c --split "edge crack"
    """  # noqa: D301
    with explain_errors():
        from ancd_ray.data.store import Folder
        from ancd_ray.jobs.cut import cut as cut_run
        from ancd_ray.jobs.cut_source import make_change

        change = make_change(k, merged.split(",") if merged else None, divided)
        click.echo(str(cut_run(Folder(run_folder), change, product, partial(click.echo, err=True))))


def _set_status(output: str, class_id: str, status: str) -> None:
    with explain_errors():
        from ancd_ray.data.store import Folder
        from ancd_ray.jobs.identity.edits import set_status

        set_status(Folder(output), class_id, status)
