"""Results of a sweep: the table of all settings, and the best settings of each product compared with the defaults."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import cached_property
from typing import Any

import pyarrow as pa

from ancd_ray.config.load import dump_resolved
from ancd_ray.config.sections import BackboneConfig, ClassesConfig, MebinConfig, MergeConfig, TrainConfig
from ancd_ray.data.store import Folder
from ancd_ray.data.tables import conform, sweep_schema
from ancd_ray.engine.versions import read_versions
from ancd_ray.jobs.report import LostTrial, Point, SweepReport, SweptProduct, render_sweep
from ancd_ray.jobs.sweep.space import Space
from ancd_ray.jobs.sweep.trial import Record

STATUSES = ("done", "stopped", "failed")
FIGURES = ("nmi", "ari", "f1", "unsupervised")


@dataclass(frozen=True)
class Results:
    """Records of the trials of a sweep; `seconds` is the wall-clock time of this run."""

    space: Space
    records: Sequence[Record]
    seconds: float

    @cached_property
    def rows(self) -> list[dict[str, Any]]:
        """One row per trial and setting of merging, or one row without figures for a trial that has none."""
        found = [row for record in self.records for row in self._make_rows(record)]
        order = [plan.name for plan in self.space.plan.products]
        return sorted(
            found, key=lambda row: (order.index(row["product"]), *(_sort_key(row[k]) for k in self.space.keys))
        )

    def _make_rows(self, record: Record) -> list[dict[str, Any]]:
        every = dict.fromkeys(self.space.keys) | dict(record.settings)
        common = {
            "product": record.product,
            "trial": record.id,
            "seconds": record.seconds,
            "status": record.status,
            "reason": record.reason,
            "classes_low": record.low,
            "classes_high": record.high,
        }
        if not record.rows:
            return [{**common, **every, **dict.fromkeys(FIGURES)}]
        return [{**common, **every, **row["settings"], **row["figures"]} for row in record.rows]

    def table(self) -> pa.Table:
        """Return the rows as a table."""
        kinds = {key: _infer_type([row[key] for row in self.rows]) for key in self.space.keys}
        rows = [
            {
                **row,
                **{key: str(row[key]) for key, kind in kinds.items() if kind == pa.string() and row[key] is not None},
            }
            for row in self.rows
        ]
        return conform(rows, sweep_schema(kinds))

    def best(self, product: str) -> dict[str, Any] | None:
        """Return the row with the highest metric, of equal ones the nearest to the defaults; None without figures."""
        metric = self.space.metric
        return max(
            self.scored(product), key=lambda row: (float(row[metric]), -self._distance_to_defaults(row)), default=None
        )

    def scored(self, product: str) -> list[dict[str, Any]]:
        """Return the rows of a product that have the metric."""
        return [row for row in self.rows if row["product"] == product and row[self.space.metric] is not None]

    def nearest_default(self, product: str) -> dict[str, Any] | None:
        """Return the row whose settings are nearest to the defaults of the job file, which are the paper's."""
        return min(self.scored(product), key=self._distance_to_defaults, default=None)

    def _distance_to_defaults(self, row: Mapping[str, Any]) -> float:
        return sum(_distance(row[key], default) for key, default in self.defaults.items())

    @cached_property
    def defaults(self) -> dict[str, Any]:
        """Defaults by key, for keys that have one."""
        return {key: value for key in self.space.keys if (value := _read_default(key)) is not None}

    def summary(self) -> dict[str, Any]:
        """Make the content of `summary.json`."""
        metric = self.space.metric
        products = []
        for plan in self.space.plan.products:
            best, default = self.best(plan.name), self.nearest_default(plan.name)
            products.append(
                {
                    "product": plan.name,
                    "best": best and {key: best[key] for key in self.space.keys},
                    "figures": best and {name: best[name] for name in FIGURES},
                    "default": default and {key: default[key] for key in self.space.keys},
                    "default_figures": default and {name: default[name] for name in FIGURES},
                    "distance": best and default and round(best[metric] - default[metric], 6),
                    "trials": self.counts(plan.name),
                }
            )
        return {
            "sweep": self.space.job.name,
            "metric": metric,
            "keys": self.space.keys,
            "products": products,
            "trials": len(self.records),
            "left": self.left,
            "seconds": self.seconds,
        }

    def report(self, created_at: datetime) -> SweepReport:
        """Make the content of the report."""
        space, libraries = self.space, read_versions()
        lost = [
            LostTrial(record.product, record.settings, record.status, record.reason or "", record.seconds)
            for record in self.records
            if record.status != "done"
        ]
        return SweepReport(
            name=space.job.name,
            created_at=created_at,
            version=libraries.get("ancd-ray", ""),
            libraries=libraries,
            config=dump_resolved(space.job),
            metric=space.metric,
            trained=space.trained,
            merged=space.merged,
            defaults=self.defaults,
            products=[self._make_product(plan.name) for plan in space.plan.products],
            lost=sorted(lost, key=lambda trial: (trial.product, str(trial.settings))),
            trials=len(self.records),
            left=self.left,
            seconds=self.seconds,
            trial_seconds=sum(record.seconds for record in self.records),
        )

    @property
    def left(self) -> int:
        """Number of trials that are left for the next run."""
        return max(0, self.space.n_trials - len(self.records))

    def _make_product(self, product: str) -> SweptProduct:
        def point(row: Mapping[str, Any] | None) -> Point | None:
            if row is None:
                return None
            return Point({key: row[key] for key in self.space.keys}, {name: row[name] for name in FIGURES})

        points = [found for row in self.scored(product) if (found := point(row))]
        best, default = point(self.best(product)), point(self.nearest_default(product))
        return SweptProduct(product, points, best, default, self.counts(product))

    def counts(self, product: str) -> dict[str, int]:
        """Count the trials of a product by status."""
        mine = [record.status for record in self.records if record.product == product]
        return {status: mine.count(status) for status in STATUSES}


def write(results: Results, folder: Folder) -> None:
    """Write the table as Parquet and CSV, the summary, and the report."""
    table = results.table()
    folder.write_table("sweep.parquet", table)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(table.column_names)
    writer.writerows([["" if value is None else value for value in row.values()] for row in table.to_pylist()])
    folder.write("sweep.csv", text.getvalue().encode())
    folder.write("report.html", render_sweep(results.report(datetime.now(timezone.utc))).encode())
    folder.write_json("summary.json", results.summary())


def _read_default(key: str) -> Any:
    """Return the default of a key, which is the paper's value if the paper has one; None for an unknown key."""
    sections = {
        "mebin": MebinConfig(),
        "backbone": BackboneConfig(),
        "train": TrainConfig(),
        "merge": MergeConfig(),
        "classes": ClassesConfig(),
    }
    node: Any = {name: section.model_dump(mode="json", by_alias=True) for name, section in sections.items()}
    for part in key.split("."):
        node = node.get(part) if isinstance(node, dict) else None
    return node


def _distance(value: Any, default: Any) -> float:
    """Return |log ratio| of positive numbers, |difference| of other numbers, and 0 or 1 for other values."""
    numbers = [isinstance(x, int | float) and not isinstance(x, bool) for x in (value, default)]
    if not all(numbers):
        return 0.0 if value == default else 1.0
    if value > 0 and default > 0:
        return abs(math.log(value / default))
    return abs(float(value - default))


def _infer_type(values: Sequence[Any]) -> pa.DataType:
    known = [value for value in values if value is not None]
    if all(isinstance(value, bool) for value in known):
        return pa.bool_() if known else pa.string()
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in known):
        return pa.float64()
    return pa.string()


def _sort_key(value: Any) -> tuple[bool, float, str]:
    number = isinstance(value, int | float)
    return (value is not None, float(value) if number else 0.0, "" if number else str(value))
