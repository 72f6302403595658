"""Commands for finished runs: report, track."""

from __future__ import annotations

from functools import partial

import click

from ancd_ray.cli.errors import explain_errors


@click.command()
@click.argument("run_folder", type=str, metavar="RUN")
def report(run_folder: str) -> None:
    """Render the report of a finished run again, and print its metrics."""
    with explain_errors():
        from ancd_ray.data.store import Folder
        from ancd_ray.jobs.run import rerender

        folder = Folder(run_folder)
        for product in rerender(folder).products:
            if number := product.estimated:
                click.echo(f"{product.name:<20} {number.range} classes, {number.n_classes} taken")
            for level, scores in (("image", product.image_level), ("region", product.region_level)):
                figures = [
                    f"{name} {_format_figure(value)}"
                    for name, value in (("NMI", scores.nmi), ("ARI", scores.ari), ("F1", scores.f1))
                ]
                click.echo(f"{product.name:<20} {level:<7} {'  '.join(figures)}  n={scores.n}")
        click.echo(f"{folder}/report.html")


@click.command()
@click.argument("run_folder", type=str, metavar="RUN")
@click.option("--uri", help="Tracking server or database, in place of tracking.uri of the job.")
def track(run_folder: str, uri: str | None) -> None:
    """Log a finished run to MLflow that could not be tracked when it ended.

    RUN is the folder that `submit` printed. A run that is tracked already is left as it is. The stored job has no
    passwords: MLflow takes them from MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or from --uri.

    \b
      ancd-ray track runs/plant/runs/plant-1a2b3c
      ancd-ray track runs/plant/runs/plant-1a2b3c --uri http://mlflow:5000
    """  # noqa: D301
    with explain_errors():
        from ancd_ray.data.store import Folder
        from ancd_ray.jobs.track import track

        place, is_new = track(Folder(run_folder), uri, partial(click.echo, err=True))
        click.echo(f"{run_folder} is {'now tracked' if is_new else 'tracked already'} in {place}")


def _format_figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


VERBS = (report, track)
