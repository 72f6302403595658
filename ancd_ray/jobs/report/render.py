"""Renders a `RunReport` as a self-contained HTML file.

Everything is inline: style, scripts, plotly.js (once, 4.8 MB), and pictures as data URIs. File names and labels are
untrusted input: templates escape everything they print, and a content security policy allows only the two scripts with
the given hashes. A script injected through a label does not run, and the page has no access to the network.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

import jinja2
import numpy as np
import plotly.graph_objects as go
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from ancd_ray.jobs.report import detector, figures, gallery, wording
from ancd_ray.jobs.report.model import (
    EXAMPLES_PER_REASON,
    ClassReport,
    ClusterScores,
    Confusion,
    ProductReport,
    RunReport,
    StageTime,
    count_points,
)

CONFUSION_COLUMNS = 24  # the largest classes; the others are summed in one more column


def render(run: RunReport) -> str:
    """Render the report of a run as HTML; classes are ordered by size, the largest first.

    Raises
    ------
    ValueError
        The image or the mask of a region cannot be decoded.
    """
    templates = environment()
    templates.globals.update(
        figures=figures,
        wording=wording,
        words=detector,
        colour=figures.class_colour,
        split=_split_empty,
        token_map=_token_map,
        confusion_table=_confusion_table,
    )
    return templates.get_template("report.html.j2").render(
        run=run,
        mean=_mean_scores(run.products),
        gallery=gallery.fitting(run.products),
        worst_pictures=detector.count_pictures([each.detector for each in run.products if each.detector]),
        points=count_points(len(run.products)),
        examples_per_reason=EXAMPLES_PER_REASON,
        stages=[(name, list(rows)) for name, rows in groupby(run.stages, key=lambda stage: stage.product)],
        seconds=_seconds(run.stages),
        **{name: Markup(text) for name, text in inlined(templates).items()},
    )


def environment() -> jinja2.Environment:
    """Create the Jinja environment of the templates, with automatic escaping and the filters for numbers."""
    templates = jinja2.Environment(
        loader=jinja2.PackageLoader("ancd_ray.jobs.report"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    templates.filters.update(
        figure=_figure,
        number=_number,
        share=_share,
        duration=_duration,
        plot=_plot_json,
        data=_data_json,
        basename=_basename,
    )
    return templates


def inlined(templates: jinja2.Environment) -> dict[str, str]:
    """Load the parts of a page that do not depend on the run.

    Returns
    -------
    dict
        Style, plotly.js, our script, and the hashes of both scripts for the content security policy.
    """
    ours = "\n".join(read_source(templates, name) for name in ("report.js", "tree.js"))
    scripts = {"plotly_js": get_plotlyjs(), "report_js": ours}
    hashes = " ".join(map(hash_script, scripts.values()))
    return {**scripts, "style": read_source(templates, "report.css"), "script_hashes": hashes}


def read_source(templates: jinja2.Environment, name: str) -> str:
    """Read a style sheet or script that lies beside the templates."""
    assert templates.loader is not None
    return templates.loader.get_source(templates, name)[0]


def hash_script(script: str) -> str:
    """Compute the hash by which the content security policy of a page allows an inline script."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"


def _split_empty(classes: Iterable[ClassReport]) -> tuple[list[ClassReport], list[ClassReport]]:
    """Split classes into those with members, the largest first, and empty ones."""
    order = sorted(classes, key=lambda c: (-c.images, -c.regions, c.index))
    return [c for c in order if c.images or c.regions], [c for c in order if not (c.images or c.regions)]


def _seconds(stages: Sequence[StageTime]) -> float:
    """Sum the time that this run took; cached stages are not counted."""
    return sum(stage.seconds for stage in stages if not stage.cached)


def _mean_scores(products: Sequence[ProductReport]) -> tuple[ClusterScores, ClusterScores]:
    """Average the metrics of images and of regions over the products for which they are defined."""

    def mean(values: Iterable[float | None]) -> float | None:
        known = [value for value in values if value is not None]
        return sum(known) / len(known) if known else None

    def of(levels: Sequence[ClusterScores]) -> ClusterScores:
        n = sum(level.n for level in levels)
        return ClusterScores(n, *(mean(getattr(level, name) for level in levels) for name in ("nmi", "ari", "f1")))

    return of([product.image_level for product in products]), of([product.region_level for product in products])


@dataclass(frozen=True)
class ConfusionTable:
    """A confusion matrix for printing: for each label (name, [(count, fraction of the row)], total)."""

    columns: Sequence[str]
    rows: Sequence[tuple[str, Sequence[tuple[int, float]], int]]


def _token_map(product: ProductReport, points: int) -> go.Figure:
    assert product.token_map is not None
    return figures.token_map(product.token_map, {c.index: c.name for c in product.classes}, points)


def _confusion_table(confusion: Confusion) -> ConfusionTable:
    """Order columns by size, the largest first; those beyond `CONFUSION_COLUMNS` are summed in a last column."""
    matrix = np.asarray(confusion.matrix)
    order = np.argsort(-matrix.sum(axis=0), kind="stable")
    shown, rest = order[:CONFUSION_COLUMNS], order[CONFUSION_COLUMNS:]
    columns, counts = [confusion.classes[i] for i in shown], matrix[:, shown]
    if len(rest):
        columns.append(f"{len(rest)} smaller classes")
        counts = np.hstack([counts, matrix[:, rest].sum(axis=1, keepdims=True)])
    totals = counts.sum(axis=1)
    shares = counts / np.maximum(totals, 1)[:, None]
    rows = [
        (label, list(zip(c, s, strict=True)), total)
        for label, c, s, total in zip(confusion.labels, counts.tolist(), shares.tolist(), totals.tolist(), strict=True)
    ]
    return ConfusionTable(columns, rows)


def _plot_json(figure: go.Figure) -> Markup:
    return _escape_json(str(figure.to_json()))


def _data_json(values: object) -> Markup:
    return _escape_json(json.dumps(values, ensure_ascii=False))


def _escape_json(text: str) -> Markup:
    """Escape JSON so that no character sequence can end the surrounding script element."""
    return Markup(text.replace("&", r"\u0026").replace("<", r"\u003c").replace(">", r"\u003e"))


def _figure(value: float | None, missing: str = "–") -> str:
    """Format a metric with three decimals; `missing` if there is no value."""
    if value is None or not np.isfinite(value):
        return missing
    return f"{value:.3f}".replace("-0.000", "0.000").replace("-", "−")


def _number(n: int) -> str:
    return f"{n:,}"


def _share(x: float) -> str:
    """Format a fraction as a percentage; 100 % and 0 % are written only if exact."""
    percent = round(100 * x)
    if percent == 100 and x < 1:
        return ">\N{NBSP}99\N{NBSP}%"
    return "<\N{NBSP}1\N{NBSP}%" if percent == 0 and x > 0 else f"{percent}\N{NBSP}%"


def _basename(uri: str) -> str:
    return uri.rstrip("/").rpartition("/")[2] or uri


def _duration(seconds: float) -> str:
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"
