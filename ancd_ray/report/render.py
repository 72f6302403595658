"""`RunReport` to one self-contained HTML file.

Everything is inline: style, scripts, plotly.js (once, 4.8 MB) and pictures as data URIs. File names and labels come
from outside, so templates escape all that they print, and a content security policy allows only the two scripts
whose digests it names: a script smuggled in by a label would not run, and the page cannot reach any network.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import jinja2
import numpy as np
import plotly.graph_objects as go
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from ancd_ray.report import figures
from ancd_ray.report.model import EXAMPLES_PER_REASON, ClassReport, ClusterScores, GalleryItem, ProductReport, RunReport
from ancd_ray.report.thumbnails import thumbnail

THUMBNAIL_SIDE = 168  # pixels; shown at 112 so that it stays crisp on a dense screen

NEEDS_LABELS = "needs labels"
NEEDS_MASKS = "needs masks"
NOT_MEASURED = "not measured"


@dataclass(frozen=True)
class Figure:
    """A figure of a card; `missing` is shown in the place of a value that does not exist."""

    name: str
    value: float | None
    missing: str
    hint: str
    below: float | None = None  # the same figure at region level


def render(run: RunReport) -> str:
    """The report of a run as HTML text; classes are ordered by size, the largest first.

    Raises:
        ValueError: a region of a gallery cannot be decoded.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("ancd_ray.report"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters.update(
        figure=_show, count=lambda n: f"{n:,}", percent=lambda x: f"{x:.0%}", duration=_duration, image=_data_uri
    )
    environment.globals.update(
        plotly=_plot, colour=figures.class_colour, cards=_cards, by_size=_by_size, per_row=_share_of_row
    )
    scripts = {"plotly_js": get_plotlyjs(), "report_js": _source(environment, "report.js")}
    return environment.get_template("report.html.j2").render(
        run=run,
        overview=_overview(run.products),
        examples_per_reason=EXAMPLES_PER_REASON,
        script_hashes=Markup(" ".join(map(_csp_hash, scripts.values()))),
        **{name: Markup(text) for name, text in scripts.items()},  # our own and plotly's: nothing from a run is in it
    )


def _source(environment: jinja2.Environment, name: str) -> str:
    assert environment.loader is not None
    return environment.loader.get_source(environment, name)[0]


def _csp_hash(script: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"


def _cards(product: ProductReport) -> list[Figure]:
    image, region = product.image_level, product.region_level
    clustering = [
        Figure("NMI", image.nmi, NEEDS_LABELS, "Normalised mutual information of classes and labels", region.nmi),
        Figure("ARI", image.ari, NEEDS_LABELS, "Adjusted Rand index of classes and labels", region.ari),
        Figure("F1", image.f1, NEEDS_LABELS, "Micro F1 after matching each class with one label", region.f1),
    ]
    return clustering + [
        Figure("Normal precision", product.normal_precision, NEEDS_LABELS, "Of images called normal, those that are"),
        Figure("Normal recall", product.normal_recall, NEEDS_LABELS, "Of normal images, those called so"),
        Figure("Map AUROC", product.map_auroc, NEEDS_MASKS, "Pixels of the anomaly maps against the masks"),
        Figure("Map AUPRO", product.map_aupro, NEEDS_MASKS, "Overlap with each defect, up to 30 % false positives"),
        Figure("Silhouette", product.silhouette, NOT_MEASURED, "How far apart the classes lie, −1 to 1; no labels used"),
        Figure("Confidence", product.mean_confidence, NOT_MEASURED, "Mean probability of the chosen class"),
        Figure("Head agreement", product.head_agreement, NOT_MEASURED, "Agreement of the classifier heads"),
    ]


def _by_size(classes: Iterable[ClassReport]) -> list[ClassReport]:
    return sorted(classes, key=lambda c: (-c.images, -c.regions, c.index))


def _overview(products: Sequence[ProductReport]) -> ClusterScores:
    """Mean of the image-level figures over the products that have them, with the number of all predictions."""

    def mean(values: Iterable[float | None]) -> float | None:
        known = [value for value in values if value is not None]
        return sum(known) / len(known) if known else None

    levels = [product.image_level for product in products]
    return ClusterScores(
        sum(level.n for level in levels),
        mean(level.nmi for level in levels),
        mean(level.ari for level in levels),
        mean(level.f1 for level in levels),
    )


def _share_of_row(matrix: np.ndarray) -> list[list[tuple[int, float]]]:
    """Each count of a confusion matrix beside its share of the row (0 in an empty row)."""
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    return [list(zip(*row, strict=True)) for row in zip(matrix.tolist(), shares.tolist(), strict=True)]


def _plot(kind: str, product: ProductReport) -> Markup:
    """A figure as JSON that is safe inside a script element: no character of it can end the element."""
    figure: go.Figure
    if kind == "tokens":
        assert product.token_map is not None
        figure = figures.token_map(product.token_map, {c.index: c.name for c in product.classes})
    elif kind == "losses":
        figure = figures.loss_curves(product.losses)
    else:
        figure = figures.score_histogram(product.scores)
    text = str(figure.update_layout(template="none").to_json())
    return Markup(text.replace("&", r"\u0026").replace("<", r"\u003c").replace(">", r"\u003e"))


def _data_uri(item: GalleryItem) -> str:
    jpeg = thumbnail(item.image, item.mask, THUMBNAIL_SIDE)
    return "data:image/jpeg;base64," + base64.b64encode(jpeg).decode()


def _show(value: float | None, missing: str = "–") -> str:
    """Three decimals as in the paper's tables, without the leading zero; what it needs where there is no value."""
    if value is None or not np.isfinite(value):
        return missing
    return f"{value:.3f}".replace("-0.", "−.").removeprefix("0")


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"
