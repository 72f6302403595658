"""Commands for MLflow's registry of models: list, show, register, promote, rollback, compare."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ancd_ray.cli.errors import explain_errors
from ancd_ray.cli.table import align
from ancd_ray.config.errors import AncdError

if TYPE_CHECKING:
    from ancd_ray.jobs.tracking import TrackingStore, Version

_F = TypeVar("_F", bound=Callable[..., Any])


@click.group()
def models() -> None:
    """Register models, and say which one is in use.

    \b
    From a finished run to the model that every night uses, and back:
      ancd-ray models register runs/plant/runs/plant-1a2b3c --name tile      a version, with the alias `candidate`
      ancd-ray models compare models:/tile models:/tile@candidate --output runs/plant
      ancd-ray models promote tile --from candidate --output runs/plant      it is the `champion` from now on
      ancd-ray submit night.yaml model=models:/tile@champion                 uses it, and its successors
      ancd-ray models rollback tile --output runs/plant                      the champion before it is in use again

    A version is a model with its card: what it is for, data, figures, classes, limits. Aliases are names that move from
    version to version; `previous` is the champion before the champion.

    The registry is that of the tracking server --uri, or else the file mlflow.db of the output folder --output, or else
    what MLFLOW_TRACKING_URI names, which is also where `models:/` in other commands is looked up.
    """  # noqa: D301


def _add_registry(command: _F) -> _F:
    command = click.option("--uri", help="Tracking server or database with the registry.")(command)
    return click.option("--output", metavar="OUTPUT", help="Output folder of jobs, whose mlflow.db has the registry.")(
        command
    )


@models.command("list")
@click.argument("name", required=False)
@_add_registry
def list_(name: str | None, output: str | None, uri: str | None) -> None:
    """List registered models, or the versions of the model NAME, the newest first.

    \b
      ancd-ray models list --output runs/plant
      ancd-ray models list tile --uri http://mlflow:5000
    """  # noqa: D301
    with explain_errors():
        from ancd_ray.jobs.tracking import open_store
        from ancd_ray.jobs.tracking.registry import read_models, read_versions

        with (store := open_store(uri, output)).connect() as client:
            found = {name: read_versions(client, name)} if name else read_models(client)
        if not found:
            click.echo(f"{store}: no model is registered; ancd-ray models register RUN makes the first", err=True)
            return
        if name:
            head = ("name", "version", "aliases", "when", "product", "figures")
            rows = [_describe_version(version) for version in found[name]]
        else:
            head = ("name", "versions", "aliases", "when", "product", "figures")
            rows = [_describe_model(each, versions) for each, versions in found.items()]
        click.echo(align([head, *rows], "<><<<<"))


@models.command()
@click.argument("reference", metavar="NAME[@ALIAS|/VERSION]")
@_add_registry
def show(reference: str, output: str | None, uri: str | None) -> None:
    """Show the card of a model: its data, figures, classes, limits and versions, and the run it comes from.

    NAME alone is its champion, or else its newest version.

    \b
      ancd-ray models show tile --output runs/plant
      ancd-ray models show tile@candidate --uri http://mlflow:5000
      ancd-ray models show tile/3 --output runs/plant
    """  # noqa: D301
    with explain_errors():
        from ancd_ray.config.secrets import hide_secrets
        from ancd_ray.jobs.tracking import open_store
        from ancd_ray.jobs.tracking.markdown import to_text
        from ancd_ray.jobs.tracking.registry import find_version

        with open_store(uri, output).connect() as client:
            version = find_version(client, reference)
        click.echo(f"{version.describe()}, registered {_format_time(version)}")
        files = hide_secrets(version.source)
        click.echo(f"run {version.tags.get('run', '–')}, in MLflow {version.run or '–'}; files in {files}")
        click.echo(f"\n{to_text(version.card)}" if version.card else "it has no card: no run of ancd-ray registered it")


@models.command()
@click.argument("run_folder", metavar="RUN")
@click.option("--product", help="Product whose model is registered, for a run with several products.")
@click.option(
    "--name", help="Registered name; {product} in it is the product's. Default: tracking.register, or <job>.<product>."
)
@click.option("--alias", default="candidate", show_default=True, help="Alias of the version.")
@click.option("--uri", help="Tracking server or database, in place of tracking.uri of the job.")
def register(run_folder: str, product: str | None, name: str | None, alias: str, uri: str | None) -> None:
    """Register the model of a finished discovery as a version, with its card.

    RUN is the folder that `submit` printed; a run that is not tracked yet is logged first. A model with the same
    content is the version it was. The registry is that of the job: tracking.uri, or mlflow.db of its output folder.

    \b
      ancd-ray models register runs/plant/runs/plant-1a2b3c
      ancd-ray models register runs/plant/runs/plant-1a2b3c --product tile --name '{product}' --alias candidate

    A job registers its models itself with the key `tracking: {register: {name: '{product}', alias: candidate}}`.
    """  # noqa: D301
    with explain_errors():
        from ancd_ray.data.store import Folder
        from ancd_ray.jobs.track import register as register_run

        _check(name, alias)
        version, place = register_run(Folder(run_folder), product, name, alias, uri, partial(click.echo, err=True))
        click.echo(f"{version.describe()} in {place}")


@models.command()
@click.argument("name")
@click.option("--version", "number", type=click.IntRange(min=1), help="The version.")
@click.option("--from", "source", metavar="ALIAS", help="The version with this alias, such as candidate.")
@click.option("--alias", default="champion", show_default=True, help="The alias that the version gets.")
@_add_registry
def promote(name: str, number: int | None, source: str | None, alias: str, output: str | None, uri: str | None) -> None:
    """Make a version of the model NAME the champion; the one until now gets the alias `previous`.

    \b
      ancd-ray models promote tile --from candidate --output runs/plant
      ancd-ray models promote tile --version 3 --uri http://mlflow:5000
      ancd-ray models promote tile --version 3 --alias line-2 --output runs/plant      any other alias
    """  # noqa: D301
    with explain_errors():
        from ancd_ray.jobs.tracking import open_store
        from ancd_ray.jobs.tracking.registry import find_version, give_alias

        if (number is None) == (source is None):
            raise click.UsageError("give either --version V or --from ALIAS")
        _check(None, alias)
        with open_store(uri, output).connect() as client:
            version = find_version(client, f"{name}/{number}" if number else f"{name}@{source}")
            replaced = give_alias(client, version, alias)
        before = f"; {replaced.uri} was, and is @previous" if replaced else ""
        click.echo(f"{version.uri} is @{alias}{before}")


@models.command()
@click.argument("name")
@_add_registry
def rollback(name: str, output: str | None, uri: str | None) -> None:
    """Make the previous champion of the model NAME the champion again.

    The alias `previous` is gone then; `promote` sets it again.

    \b
      ancd-ray models rollback tile --output runs/plant
    """  # noqa: D301
    with explain_errors():
        from ancd_ray.jobs.tracking import open_store
        from ancd_ray.jobs.tracking.registry import roll_back

        with open_store(uri, output).connect() as client:
            version, replaced = roll_back(client, name)
        click.echo(f"{version.uri} is @champion again{f'; {replaced.uri} was' if replaced else ''}")


@models.command()
@click.argument("first", metavar="A")
@click.argument("second", metavar="B")
@click.option("--product", help="Product whose models are compared, for runs with several products.")
@click.option(
    "--html",
    "target",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Draw the flow of regions as a Sankey diagram.",
)
@_add_registry
def compare(
    first: str, second: str, product: str | None, target: Path | None, output: str | None, uri: str | None
) -> None:
    """Compare two models side by side: their figures, their classes, and the flow of regions between these.

    A and B are run folders, or models:/NAME, models:/NAME@ALIAS, models:/NAME/VERSION. Class 3 of one model and class 3
    of another have nothing to do with each other; the label that most regions of a class have says which are alike, and
    so does the last table: in which class of B the regions of a class of A are. It needs the runs of both models.

    \b
      ancd-ray models compare models:/tile@champion models:/tile@candidate --output runs/plant
      ancd-ray models compare models:/tile@champion runs/plant/runs/plant-1a2b3c --html flow.html
    """  # noqa: D301
    with explain_errors():
        from ancd_ray.jobs.tracking import open_store
        from ancd_ray.jobs.tracking.compared import compare_classes, find_models, list_differences

        def open_registry() -> TrackingStore:
            return open_store(uri, output)

        found = find_models((first, second), product, open_registry, output)
        click.echo(align([("", first, second), *list_differences(found)], "<<<"))
        try:
            flow = compare_classes(*found)
        except AncdError as error:
            if target:
                raise
            click.echo(f"no flow of regions: {error}", err=True)
            return
        click.echo("\n" + align([(first, second, "regions"), *flow.describe()], "<<>"))
        if target:
            from ancd_ray.jobs.report.render_flow import render_flow

            target.write_text(render_flow(flow), encoding="utf-8")
            click.echo(f"{target}: the flow of regions between the classes", err=True)


def _check(name: str | None, alias: str) -> None:
    """Check what will be written to the registry, before anything is."""
    from ancd_ray.config.registration import check_alias, check_model_name

    for option, value, check in (("--name", name, check_model_name), ("--alias", alias, check_alias)):
        if value is not None:
            try:
                check(value)
            except ValueError as error:
                raise click.UsageError(f"{option} {value!r}: {error}") from error


def _describe_model(name: str, versions: Sequence[Version]) -> tuple[str, ...]:
    """Describe a model in a row: its figures are those of the champion, or else of the newest version."""
    if not versions:
        return name, "0", "", "", "", ""
    shown = next((each for each in versions if "champion" in each.aliases), versions[0])
    aliases = " ".join(f"{alias}={each.number}" for each in versions for alias in each.aliases)
    newest = versions[0]
    return name, str(len(versions)), aliases, _format_time(newest), shown.product, _format_figures(shown.figures)


def _describe_version(version: Version) -> tuple[str, ...]:
    about = version.product, _format_figures(version.figures)
    return version.name, str(version.number), " ".join(version.aliases), _format_time(version), *about


def _format_figures(figures: Mapping[str, str]) -> str:
    def each() -> Iterator[str]:
        for name, value in figures.items():
            yield f"{name if name == 'silhouette' else name.upper()} {value}"

    return "  ".join(each())


def _format_time(version: Version) -> str:
    return f"{version.created_at:%Y-%m-%d %H:%M} UTC"
