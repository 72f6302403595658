"""Runs the rows of a table of the paper as jobs, and compares the results with the published ones.

A row is the job with overrides, run like `submit`; steps that are the same for several rows are computed once.
"""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ancd_ray.config.errors import AncdError
from ancd_ray.config.job import Job
from ancd_ray.data.roles import describe_number
from ancd_ray.data.store import Folder
from ancd_ray.jobs.bench.tables import TABLES, Figures, Row
from ancd_ray.jobs.results import RECORD

LoadJob = Callable[[Sequence[str]], Job]  # from overrides
RunJob = Callable[[Job], Folder]  # returns the run folder
_COLUMNS = ("product", "level", "row", "seeds", "nmi", "ari", "f1", "nmi_sd", "ari_sd", "f1_sd", "note")


@dataclass(frozen=True)
class Measured:
    """Results of a row on one product and level.

    Parameters
    ----------
    row
        Row of the table.
    product, level
        Product, and image or region level; empty if the row has no results.
    runs
        Metrics by seed.
    note
        Why there are no results, the row that this one is identical to because its overrides have no effect, or the
        range of an estimated number of classes.
    """

    row: Row
    product: str
    level: str
    runs: tuple[Figures, ...]
    note: str = ""

    @property
    def mean(self) -> Figures | None:
        """Mean over the seeds."""
        return _by_column(self.runs, statistics.fmean) if self.runs else None

    @property
    def spread(self) -> Figures | None:
        """Standard deviation over the seeds (n − 1); None for a single seed."""
        return _by_column(self.runs, statistics.stdev) if len(self.runs) > 1 else None


def measure(number: str, seeds: int, load: LoadJob, run: RunJob, say: Callable[[str], None]) -> list[Measured]:
    """Run all rows of a table on the job's products.

    A row that fails, for example because the backbone does not have its mask, stays in the table with the reason.

    Parameters
    ----------
    number
        Number of the table, a key of `TABLES`.
    seeds
        Runs per row, with `train.seed` = 0, 1, ….
    load
        Loads the job with overrides.
    run
        Runs a job.
    say
        Is called with progress messages.

    Returns
    -------
    list of Measured
        One element per row, product and level.
    """
    found: list[Measured] = []
    first: dict[str, str] = {}  # folder of the evaluation → the first row with it
    for row in TABLES[number].rows:
        runs: dict[tuple[str, str], list[Figures]] = {}
        same: dict[str, str] = {}  # product → note about the identical row
        numbers: dict[str, str] = {}  # product → an estimated number of classes
        note = ""
        for seed in range(seeds):
            say(f"{row.name}, seed {seed}")
            try:
                folder = run(load([*row.overrides, f"train.seed={seed}"]))
            except AncdError as error:
                note = str(error).splitlines()[0]
                say(note)
                break
            for place in _find_metrics(folder):
                product = place.rsplit("/", 1)[1].rsplit("-", 1)[0]
                if first.setdefault(place, row.name) != row.name:
                    same[product] = f"the same run as {first[place]}"
            summary = folder.read_json("summary.json")
            for number_of in summary.get("class_numbers", ()):
                low, high, product = (number_of[key] for key in ("low", "high", "product"))
                numbers[product] = f"{describe_number(low, high)} classes, {number_of['n_classes']} taken"
            for result in summary["results"]:
                if result["nmi"] is not None:
                    figures = (result["nmi"], result["ari"], result["f1"])
                    runs.setdefault((result["product"], result["level"]), []).append(figures)
        if note or not runs:
            found.append(Measured(row, "", "", (), note or "nothing is labelled"))
        for where, each in runs.items():
            notes = [of[where[0]] for of in (same, numbers) if where[0] in of]
            found.append(Measured(row, *where, tuple(each), "; ".join(notes)))
    return found


def _find_metrics(folder: Folder) -> list[str]:
    """List where the metrics of a run are, one place per product; runs that share a place have the same figures."""
    return [places["metrics"] for places in folder.read_json(RECORD)["products"].values()]


def markdown(number: str, measured: Sequence[Measured], command: str) -> str:
    """Format results as a Markdown table: mean ± standard deviation over the seeds, and the published results.

    Parameters
    ----------
    number
        Number of the table.
    measured
        Result of `measure`.
    command
        Command line that reproduces the table; it is appended.
    """
    table = TABLES[number]
    lines = [
        f"## Table {number}: {table.title}",
        "",
        f"Published: {table.source}; ViT-B/8 (DINO), base set AeBAD-S. NMI / ARI / F1, mean ± standard deviation.",
        "",
        "| row | product | level | seeds | here | published |",
        "|---|---|---|---|---|---|",
    ]
    for one in measured:
        here = _format(one.mean, one.spread)
        if one.note:
            here = f"{here} ({one.note})" if here else f"not run: {one.note}"
        level = (one.product or "–", one.level or "–", str(len(one.runs)))
        published = _format(None if one.level == "region" else one.row.published) or "–"  # only images are published
        lines.append(f"| {one.row.name} | {' | '.join(level)} | {here} | {published} |")
    return "\n".join([*lines, "", f"```sh\n{command}\n```", ""])


def as_csv(measured: Sequence[Measured]) -> str:
    """Format results as CSV."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([*_COLUMNS, "published_nmi", "published_ari", "published_f1"])
    writer.writerows(_csv_rows(measured))
    return out.getvalue()


def _csv_rows(measured: Sequence[Measured]) -> Iterator[list[Any]]:
    empty = ("", "", "")
    for one in measured:
        figures = (*(one.mean or empty), *(one.spread or empty))
        yield [
            *(one.product, one.level, one.row.name, len(one.runs)),
            *(f"{value:.4f}" if value != "" else "" for value in figures),
            one.note,
            *(empty if one.level == "region" else one.row.published or empty),
        ]


def _by_column(runs: Sequence[Figures], of: Callable[[Sequence[float]], float]) -> Figures:
    nmi, ari, f1 = (of(column) for column in zip(*runs, strict=True))
    return nmi, ari, f1


def _format(mean: Figures | None, spread: Figures | None = None) -> str:
    """Format metrics as `.123 ± .010 / …`; empty if there are none."""
    if mean is None:
        return ""
    figures = [f"{value:.3f}".replace("0.", ".") for value in mean]
    if spread:
        return " / ".join(
            f"{figure} ± {f'{sd:.3f}'.replace('0.', '.')}" for figure, sd in zip(figures, spread, strict=True)
        )
    return " / ".join(figures)
