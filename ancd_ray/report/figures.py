"""The interactive figures of a report as Plotly JSON, and the plane that class tokens are drawn on.

Colours that depend on light or dark mode are left out here: the page's script sets them from its style sheet.
Labels and file names go through `html.escape`, since Plotly reads its texts as a kind of HTML.
"""

from __future__ import annotations

import colorsys
from collections.abc import Mapping, Sequence
from html import escape

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray
from sklearn.manifold import TSNE

from ancd_ray.report.model import ImageScores, TokenMap

TSNE_RANGE = range(10, 2001)  # fewer points have no neighbourhoods, more take minutes
MAX_POINTS = 4000  # drawn as SVG; a browser gets slow beyond
BINS = 40
NO_LABEL = "no label"
# Readable on white and on near-black, apart for colour-blind readers as far as ten hues can be.
PALETTE = (
    "#4e8ef7", "#f28e2b", "#2fb380", "#e15759", "#a774e0", "#e3b505", "#19b5c9", "#e377b4", "#9c755f", "#8a94a6",
)  # fmt: skip


def class_colour(index: int) -> str:
    """Colour of a class by its index, the same in every figure; hues repeat in other shades after the palette's ten."""
    if index < len(PALETTE):
        return PALETTE[index]
    red, green, blue = colorsys.hls_to_rgb(index * 0.618 % 1, 0.55, 0.55)
    return f"#{round(red * 255):02x}{round(green * 255):02x}{round(blue * 255):02x}"


def embedding_2d(tokens_ND: NDArray[np.floating], seed: int) -> NDArray[np.float64]:
    """Tokens (N, D) on a plane (N, 2): PCA to at most 50 components, then t-SNE for 10 <= N <= 2000, else PCA alone."""
    n = len(tokens_ND)
    components_NK = _principal_components(tokens_ND, 50)
    if n not in TSNE_RANGE or not components_NK.any():
        return components_NK[:, :2]
    tsne = TSNE(2, perplexity=min(30.0, (n - 1) / 3), init=_unit_scale(components_NK[:, :2]), random_state=seed)
    return np.asarray(tsne.fit_transform(components_NK), np.float64)


def _principal_components(x_ND: NDArray[np.floating], k: int) -> NDArray[np.float64]:
    """Scores (N, max(2, min(k, D))) by descending variance; columns that do not exist are zero."""
    x_ND = np.asarray(x_ND, np.float64)
    n, d = x_ND.shape
    scores = np.zeros((n, max(2, min(k, d))))
    if n and d:
        centred = x_ND - x_ND.mean(0)
        _, axes = np.linalg.eigh(centred.T @ centred)  # D x D, however many tokens there are
        kept = axes[:, ::-1][:, :k]
        kept = kept * np.sign(kept[np.abs(kept).argmax(0), np.arange(kept.shape[1])])  # a sign that does not flip
        scores[:, : kept.shape[1]] = centred @ kept
    return scores


def _unit_scale(xy_N2: NDArray[np.float64]) -> NDArray[np.float32]:
    """The small start that t-SNE converges from (deviation 1e-4 along the first axis)."""
    return np.asarray(xy_N2 / max(xy_N2[:, 0].std(), 1e-12) * 1e-4, np.float32)


def token_map(tokens: TokenMap, names: Mapping[int, str]) -> go.Figure:
    """Scatter of the tokens: a trace a class and, hidden at first, a trace a label (`meta` says which)."""
    step = -(-len(tokens.cls) // MAX_POINTS) or 1
    kept = np.arange(0, len(tokens.cls), step)
    figure = go.Figure()
    for index in np.unique(tokens.cls[kept]):
        name = names.get(int(index), f"class {index}")
        _scatter(figure, tokens, kept[tokens.cls[kept] == index], name, class_colour(int(index)), "class")
    if tokens.labels is not None:
        labels = np.array([NO_LABEL if label is None else label for label in tokens.labels], dtype=object)
        for i, label in enumerate(sorted(set(labels[kept]))):
            _scatter(figure, tokens, kept[labels[kept] == label], label, class_colour(i), "label")
    axis = {"showticklabels": False, "zeroline": False, "title": None}
    figure.update_layout(xaxis=axis, yaxis={**axis, "scaleanchor": "x"}, hovermode="closest")
    return figure


def _scatter(
    figure: go.Figure, tokens: TokenMap, rows: NDArray[np.integer], name: str, colour: str, by: str
) -> None:
    figure.add_scatter(
        x=tokens.xy[rows, 0].astype(np.float32),
        y=tokens.xy[rows, 1].astype(np.float32),
        mode="markers",
        name=escape(name),
        meta=by,
        visible=by == "class",
        showlegend=True,
        text=[escape(tokens.hover[row]).replace("\n", "<br>") for row in rows],
        hovertemplate="%{text}<extra>" + escape(name).replace("{", "&#123;") + "</extra>",
        marker={"color": colour, "size": 7, "opacity": 0.8},
    )


def loss_curves(losses: Mapping[str, Sequence[float]]) -> go.Figure:
    """One line a loss over epochs, counted from 1."""
    figure = go.Figure()
    for i, (name, values) in enumerate(losses.items()):
        epochs = list(range(1, len(values) + 1))
        line = {"color": class_colour(i), "width": 3 if name == "total" else 1.8}
        figure.add_scatter(x=epochs, y=list(values), mode="lines", name=escape(name), line=line, showlegend=True)
    figure.update_layout(xaxis={"title": "epoch"}, yaxis={"title": "loss"}, hovermode="x unified")
    return figure


def score_histogram(scores: ImageScores) -> go.Figure:
    """Images by anomaly score, binned here so that a million images weigh no more than ten."""
    values = np.asarray(scores.values, np.float64)
    edges = np.histogram_bin_edges(values[np.isfinite(values)], BINS)
    if scores.is_anomalous is None:
        groups = [("images", "#4e8ef7", np.ones(len(values), bool))]
    else:
        groups = [("normal", "#2fb380", ~scores.is_anomalous), ("anomalous", "#e15759", scores.is_anomalous)]
    figure = go.Figure()
    for name, colour, chosen in groups:
        counts, _ = np.histogram(values[chosen], edges)
        figure.add_bar(
            x=(edges[:-1] + edges[1:]) / 2,
            y=counts,
            width=np.diff(edges),
            name=name,
            marker={"color": colour, "opacity": 0.65, "line": {"width": 0}},
            hovertemplate="score %{x:.3f}: %{y} images<extra>" + name + "</extra>",
        )
    axes = {"xaxis": {"title": "anomaly score of the image"}, "yaxis": {"title": "images"}}
    figure.update_layout(barmode="overlay", bargap=0, showlegend=scores.is_anomalous is not None, **axes)
    return figure
