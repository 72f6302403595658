"""The command that drafts a job file."""

from __future__ import annotations

from pathlib import Path

import click

from ancd_ray.cli.errors import explain_errors


@click.command()
@click.argument("folder", metavar="FOLDER")
@click.option(
    "--to",
    "target",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="The job file; by default the name of the folder, in the current one. An existing file is not overwritten.",
)
def init(folder: str, target: Path | None) -> None:
    """Look at a folder of images, recognize its layout, and write a commented job file.

    FOLDER is a path or URI. It may be one product, or have a product in each of its subfolders. What was found, and
    what the job still lacks, is printed; the last line of the output is the job file.

    \b
      ancd-ray init /archive/tiles
      ancd-ray plan tiles.yaml
    """  # noqa: D301
    with explain_errors():
        from ancd_ray.config.load import JobError
        from ancd_ray.jobs.draft import VARIABLE, draft_job

        draft = draft_job(folder, str(target) if target else None)
        path = target or Path(f"{draft.name}.yaml")
        for line in draft.found:
            click.echo(line)
        for line in draft.lacks:
            click.echo(f"missing: {line}", err=True)
        try:
            with path.open("x", encoding="utf-8") as file:
                file.write(draft.text)
        except FileExistsError:
            raise JobError(f"{path}: exists already; name another file with --to") from None
        except OSError as error:
            raise JobError(f"{path}: {error.strerror or error}") from None
        if f"${{{VARIABLE}}}" in draft.text:
            click.echo(f"the job reads {VARIABLE}, so that no credentials are in the file: set it to the URI", err=True)
        click.echo(str(path))
