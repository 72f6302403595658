"""Command line. Heavy imports are inside the commands, so that `--help` is fast."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ancd_ray import __version__
from ancd_ray.cli import finished
from ancd_ray.cli import remote as cli_remote
from ancd_ray.cli.classes import classes
from ancd_ray.cli.clean import clean
from ancd_ray.cli.compact import compact
from ancd_ray.cli.errors import explain_errors, write
from ancd_ray.cli.init import init
from ancd_ray.cli.models import models
from ancd_ray.cli.predict import predict
from ancd_ray.cli.table import align
from ancd_ray.config.secrets import hide_secrets

if TYPE_CHECKING:
    from ancd_ray.config.job import Job
    from ancd_ray.jobs.classify.plan import ClassificationPlan
    from ancd_ray.jobs.plan import JobPlan

_F = TypeVar("_F", bound=Callable[..., Any])
ALERTS = 3  # exit code of a job that is done and has found something that a person should look at


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="ancd-ray")
def main() -> None:
    """Find the anomalous regions of an image archive and discover their classes, without labels.

    \b
    A first run, on generated images:
      ancd-ray demo-data demo
      ancd-ray submit jobs/quickstart.yaml
    On your own:
      ancd-ray init   /archive/tiles     recognizes the layout, and writes tiles.yaml
      ancd-ray plan   tiles.yaml         accounts for every file; what would run, and why
      ancd-ray submit tiles.yaml train.lambda=0.5
      ancd-ray submit /archive/tiles     all of it at once

    Running the same command again resumes an interrupted job; finished steps are not recomputed.
    """  # noqa: D301


def _add_job_arguments(command: _F) -> _F:
    command = click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")(command)
    return click.argument("job_file", type=click.Path(path_type=Path, allow_dash=True), metavar="JOB")(command)


@main.command()
@_add_job_arguments
@click.option(
    "--address",
    help="http://host:8265 sends the job to that cluster; `auto` joins a running Ray. Default: this machine.",
)
@click.option("--no-wait", is_flag=True, help="With http://: return after submission instead of following the log.")
@click.option(
    "--apply",
    "target",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="For a sweep: write a job file with the best settings of each product.",
)
@click.option(
    "--verify",
    is_flag=True,
    help="Read again all images, masks and anomaly maps of earlier runs, and redo what rests on files that changed "
    "although their size and time of change did not.",
)
@click.option(
    "--refit",
    is_flag=True,
    help="Discover the classes anew if the archive has changed, in place of classifying new images with the model; the "
    "same as discovery.refit_when_grown_by=0.",
)
def submit(
    job_file: Path,
    overrides: tuple[str, ...],
    address: str | None,
    no_wait: bool,
    target: Path | None,
    verify: bool,
    refit: bool,
) -> None:
    """Run a job, or a sweep if it has a `sweep:` section, on this machine or on a cluster.

    JOB is a job file, or a folder of images, for which the job is run that `ancd-ray init` would draft.

    KEY=VALUE changes a key of the job; the value is YAML: `train.lambda=0.5`, `data.base=null`.

    Submitted again, a job does what is not done yet: images that were added to the archive since are classified with
    the model of its classes.

    The last line of the output is the run folder, with report.html, summary.json and the tables of results. The exit
    code is 3 if the job is done and its `alerts:` found something that a person should look at.
    """
    with explain_errors() as boundary:
        job = _load(job_file, (*overrides, *(["discovery.refit_when_grown_by=0"] if refit else [])))
        boundary.output = job.output_root
        if target and not job.sweep:
            raise click.UsageError(f"--apply is for sweeps, and {job_file} has no `sweep:` section")
        if verify and (job.sweep or (address and "://" in address)):
            raise click.UsageError("--verify is for jobs that run here, without a `sweep:` section")
        if address and "://" in address:
            if target:
                raise click.UsageError(f"--apply is for sweeps that run here; later: ancd-ray apply RUN {target}")
            sys.exit(_send(job, address, follow=not no_wait))
        from ancd_ray.engine.progress import Display

        display = Display(f"{job.name} → {hide_secrets(job.output_root)}")
        with display.running():
            if job.mode == "classify":
                from ancd_ray.jobs.classify.run import run as classify

                folder = classify(job, address, display)
            elif job.sweep:
                from ancd_ray.jobs.sweep.run import run as run_sweep

                folder = run_sweep(job, address, display)
            else:
                from ancd_ray.jobs.run import run

                folder = run(job, address, display, verify)
        if target:
            _apply(str(folder), target)
        click.echo(str(folder))
        if job.alerts and folder.read_json("summary.json").get("alerts"):
            sys.exit(ALERTS)


@main.command()
@_add_job_arguments
def plan(job_file: Path, overrides: tuple[str, ...]) -> None:
    """Show what a job would do: which steps are done, which would run and why, and about what they cost.

    Of each step that would run there are its images, time and bytes, by the rates of earlier runs in the same output
    folder; `?` stands for a step of which there are none. The last line is the sum.
    """
    with explain_errors():
        from ancd_ray.engine.status import plan_status
        from ancd_ray.jobs.plan import make
        from ancd_ray.jobs.rates import estimate, format_row, summarize_costs

        job = _load(job_file, overrides)
        if job.sweep:
            from ancd_ray.jobs.sweep.planning import build_search_space

            space = build_search_space(job)
            place = f"results go to {hide_secrets(str(space.folder))}"
            click.echo("\n".join([*space.forecast(), *space.plan.describe_inputs(), place]))
            return
        if job.mode == "classify":
            from ancd_ray.jobs.classify.plan import make as plan_classification

            plans: list[JobPlan | ClassificationPlan] = [plan_classification(job)]
        else:
            from ancd_ray.jobs.classify.plan import find_plan_of_others

            discovery = make(job)
            plans = [discovery, *find_plan_of_others(discovery)]
        found = [(made, plan_status(made.steps, made.root)) for made in plans]
        statuses = [status for _, some in found for status in some]
        costs = [cost for made, some in found for cost in estimate(made, some)]
        rows = [
            (status.step.product, status.step.name, status.state, *format_row(cost), status.why)
            for status, cost in zip(statuses, costs, strict=True)
        ]
        click.echo(align(rows, "<<<>>><"))
        ready = sum(status.state == "cached" for status in statuses)
        click.echo("\n".join(plans[0].describe_inputs()))
        place = hide_secrets(str(plans[-1].run_folder))
        click.echo(f"{ready} of {len(statuses)} steps are done; results go to {place}")
        click.echo(summarize_costs(costs, statuses))


@main.command("apply")
@click.argument("run_folder", type=str, metavar="RUN")
@click.argument("target", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE")
def apply_(run_folder: str, target: Path) -> None:
    """Write a job file with the best settings of a finished sweep.

    RUN is the folder that `submit` printed. Each product gets its best settings as `overrides`; submitting the file
    reuses the trainings of the sweep.
    """
    with explain_errors():
        _apply(run_folder, target)


@main.command()
@_add_job_arguments
@click.option(
    "--table",
    "number",
    required=True,
    type=click.Choice(["I", "II", "III", "IV", "V", "VI", "VII", "VIII", "IX", "X"]),
    help="Table of the paper whose rows are run: I and II compare methods (II: published deep clusterings and novel "
    "class discoveries), III to X are ablations.",
)
@click.option("--seeds", default=1, show_default=True, type=click.IntRange(min=1), help="Runs of each row.")
def bench(job_file: Path, overrides: tuple[str, ...], number: str, seeds: int) -> None:
    """Run the rows of a table of the paper on a job's products, and compare with the published figures.

    The tables go to OUTPUT/bench as Markdown and CSV; the last line of the output is the Markdown file.
    """
    with explain_errors() as boundary:
        from ancd_ray.data.store import Folder
        from ancd_ray.engine.progress import Display
        from ancd_ray.jobs.bench import run as harness
        from ancd_ray.jobs.bench.tables import TABLES
        from ancd_ray.jobs.run import discover

        def run_row(job: Job) -> Folder:
            display = Display(f"{job.name} → {hide_secrets(job.output_root)}")
            with display.running():
                return discover(job, None, display)

        job = _load(job_file, overrides)
        boundary.output = job.output_root
        measured = harness.measure(
            number,
            seeds,
            lambda more: _load(job_file, (*TABLES[number].overrides, *overrides, *more)),
            run_row,
            click.echo,
        )
        command = shlex.join(["ancd-ray", "bench", str(job_file), *overrides, "--table", number, "--seeds", str(seeds)])
        text = harness.markdown(number, measured, command)
        folder = Folder(job.output_root) / "bench"
        folder.write(f"table-{number}.md", text.encode())
        folder.write(f"table-{number}.csv", harness.as_csv(measured).encode())
        click.echo(text)
        click.echo(f"{folder}/table-{number}.md")


@main.command("demo-data")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "--images", default=120, show_default=True, help="Test images, spread over four kinds of defect and `good`."
)
@click.option("--normals", default=60, show_default=True, help="Normal training images.")
@click.option("--base", default=60, show_default=True, help="Images of the labelled base set.")
@click.option("--size", default=256, show_default=True, help="Side of an image, pixels.")
@click.option("--seed", default=0, show_default=True)
def demo_data(folder: Path, images: int, normals: int, base: int, size: int, seed: int) -> None:
    """Generate a demo product: textured metal, four kinds of defect with masks, and a base set."""
    with explain_errors():
        from ancd_ray.data.demo.generate import generate

        try:
            made = generate(folder, images=images, normals=normals, base=base, seed=seed, size=size)
        except ValueError as error:
            raise click.UsageError(str(error)) from error
        classes = ", ".join(f"{name} {count}" for name, count in made.test.items())
        click.echo(f"{folder}/tile: {made.normals} normal; test: {classes}")
        click.echo(f"{folder}/base: {', '.join(f'{name} {count}' for name, count in made.base.items())}")


@main.group()
def weights() -> None:
    """Weights of backbones (`backbone.weights` of a job)."""


@weights.command("list")
def weights_list() -> None:
    """List common backbones and the sources of their weights."""
    with explain_errors():
        from ancd_ray.backbones.weights import KNOWN

        for name, note in KNOWN.items():
            click.echo(f"{name:<44} {note}")


@weights.command("pull")
@click.argument("name")
@click.option(
    "--to", "target", type=click.Path(path_type=Path), required=True, help="Folder for the .safetensors file."
)
def weights_pull(name: str, target: Path) -> None:
    """Download the weights of a timm model to a file, for machines without a network.

    Use the file with backbone.name=NAME backbone.weights=FILE; the printed digest can be set as backbone.sha256.
    """
    with explain_errors():
        from ancd_ray.backbones.weights import pull

        path, digest = pull(name, target)
        click.echo(f"sha256 {digest}")
        click.echo(str(path))


def _apply(run_folder: str, target: Path) -> None:
    from ancd_ray.data.store import Folder
    from ancd_ray.jobs.sweep.apply import apply

    for product in apply(Folder(run_folder), target):
        click.echo(f"{product}: no trial has a result; it keeps the settings of the job", err=True)
    click.echo(f"{target}: the best settings of {run_folder}", err=True)


def _load(job_file: Path, overrides: tuple[str, ...]) -> Job:
    import warnings

    from ancd_ray.config.load import load, validate
    from ancd_ray.config.renamed import RenamedKeyWarning

    if job_file.is_dir():
        from ancd_ray.jobs.draft import draft_discovery

        job = validate(draft_discovery(str(job_file)), overrides)
        click.echo(f"detector {job.detector.name}; `ancd-ray init {job_file}` writes this job to a file", err=True)
        return job
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", RenamedKeyWarning)
        job = load(job_file, overrides)
    for warning in caught:
        if issubclass(warning.category, RenamedKeyWarning):
            click.echo(f"warning: {warning.message}", err=True)
    return job


def _send(job: Job, address: str, follow: bool) -> int:
    from ancd_ray.jobs import remote

    submission_id = remote.send(address, job)
    click.echo(f"{submission_id} was sent to {address}", err=True)
    if not follow:
        click.echo(submission_id)
        return 0
    return remote.follow(address, submission_id, write)


@main.command()
def schema() -> None:
    """Print the JSON Schema of job files, for completion and validation in editors.

    \b
      ancd-ray schema > job.schema.json
    and as the first line of a job file:
      # yaml-language-server: $schema=job.schema.json
    """  # noqa: D301
    with explain_errors():
        import json

        from ancd_ray.config.schema import job_schema

        click.echo(json.dumps(job_schema(), indent=1, ensure_ascii=False))


for _verb in (init, predict, models, classes, clean, compact, *finished.VERBS, *cli_remote.VERBS):
    main.add_command(_verb)
