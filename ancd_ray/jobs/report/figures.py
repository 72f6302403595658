"""The Plotly figures of a run's report, and the 2-D embedding of class tokens.

Labels and file names are escaped with `html.escape`, because Plotly interprets a subset of HTML in its texts.
"""

from __future__ import annotations

import colorsys
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray
from sklearn.manifold import TSNE
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from ancd_ray.jobs.report.model import MAX_POINTS, TokenMap

TSNE_RANGE = range(10, MAX_POINTS + 1)  # t-SNE: fewer points have no neighborhoods, more take minutes
LEGEND_ENTRIES = 12  # more classes get no legend; the hover text names the class anyway
NO_LABEL = "no label"
NORMAL, ANOMALOUS, NEUTRAL, INK = "#2f9e6e", "#d64550", "#3f78d0", "#1c2430"
# Distinct on white; for color-blind readers as far as ten hues can be.
PALETTE = (
    "#3f78d0", "#e07b16", "#2f9e6e", "#d64550", "#8f5fd0", "#b58900", "#139eb0", "#d05aa8", "#8a6148", "#6f7a8a",
)  # fmt: skip
AXIS = {"gridcolor": "#e6eaef", "linecolor": "#b6bfca", "zeroline": False, "automargin": True}
LEGEND = {"orientation": "h", "yanchor": "bottom", "y": 1.01, "x": 0}
LAYOUT = {
    "template": "none",
    "font": {"family": "system-ui, sans-serif", "size": 13, "color": INK},
    "margin": {"l": 48, "r": 12, "t": 12, "b": 44},
    "paper_bgcolor": "rgba(0,0,0,0)",
    "plot_bgcolor": "rgba(0,0,0,0)",
}


def class_colour(index: int) -> str:
    """Return the color of a class, the same in every figure: the palette first, then generated hues."""
    if index < len(PALETTE):
        return PALETTE[index]
    red, green, blue = colorsys.hls_to_rgb(index * 0.618 % 1, 0.45, 0.55)
    return f"#{round(red * 255):02x}{round(green * 255):02x}{round(blue * 255):02x}"


def embedding_2d(tokens_ND: NDArray[np.floating], seed: int = 0) -> NDArray[np.float64]:
    """Embed tokens in two dimensions: PCA to at most 50 components, then t-SNE.

    The result is deterministic. 2,000 tokens take about 7 s on one core.

    Parameters
    ----------
    tokens_ND
        Class tokens.
    seed
        Seed of t-SNE.

    Returns
    -------
    ndarray
        Positions (N, 2). For fewer than 10 or more than 2,000 tokens, or if all tokens are equal, the first two
        principal components.
    """
    n = len(tokens_ND)
    components_NK = _principal_components(tokens_ND, 50)
    if n not in TSNE_RANGE or not components_NK.any():
        return components_NK[:, :2]
    start_N2 = _unit_scale(components_NK[:, :2])
    tsne = TSNE(2, perplexity=min(30.0, (n - 1) / 3), init=start_N2, max_iter=500, random_state=seed)
    with threadpool_limits(1):  # the order of summation varies between threads, and t-SNE amplifies the difference
        return np.asarray(tsne.fit_transform(components_NK), np.float64)


def _principal_components(x_ND: NDArray[np.floating], k: int) -> NDArray[np.float64]:
    """Compute scores (N, max(2, min(k, D))) by descending variance; missing components are zero."""
    x_ND = np.asarray(x_ND, np.float64)
    n, d = x_ND.shape
    scores = np.zeros((n, max(2, min(k, d))))
    if n and d:
        centred = x_ND - x_ND.mean(0)
        if d <= n:
            kept = np.linalg.eigh(centred.T @ centred)[1][:, ::-1][:, :k]  # D x D
        else:
            axes = centred.T @ np.linalg.eigh(centred @ centred.T)[1][:, ::-1][:, :k]  # from the N x N Gram matrix
            length = np.linalg.norm(axes, axis=0)
            kept = np.divide(axes, length, out=np.zeros_like(axes), where=length > 1e-9 * max(length[0], 1e-300))
        kept = kept * np.sign(kept[np.abs(kept).argmax(0), np.arange(kept.shape[1])])  # fixes the sign
        scores[:, : kept.shape[1]] = centred @ kept
    return scores


def _unit_scale(xy_N2: NDArray[np.float64]) -> NDArray[np.float32]:
    """Scale to a standard deviation of 1e-4 along the first axis, as initialization of t-SNE."""
    return np.asarray(xy_N2 / max(xy_N2[:, 0].std(), 1e-12) * 1e-4, np.float32)


def token_map(tokens: TokenMap, names: Mapping[int, str], max_points: int = MAX_POINTS) -> go.Figure:
    """Draw a scatter plot of class tokens, by class and by label.

    Parameters
    ----------
    tokens
        Positions, classes, labels and hover texts.
    names
        Name of each class; the default is `class <index>`.
    max_points
        Maximum number of points; more are subsampled evenly.

    Returns
    -------
    Figure
        One trace per class (`meta` is "class") and, hidden at first, one per label (`meta` is "label").
    """
    n = len(tokens.cls)
    kept = np.unique(np.linspace(0, n - 1, min(n, max_points)).astype(int))
    figure = go.Figure()
    present = np.unique(tokens.cls[kept])
    for index in present:
        name = names.get(int(index), f"class {index}")
        rows = kept[tokens.cls[kept] == index]
        legend = len(present) <= LEGEND_ENTRIES
        _scatter(figure, tokens, rows, name, colour=class_colour(int(index)), by="class", legend=legend)
    if tokens.labels is not None:
        labels = np.array([NO_LABEL if label is None else label for label in tokens.labels], dtype=object)
        found = sorted(set(labels[kept]))
        for i, label in enumerate(found):
            rows, legend = kept[labels[kept] == label], len(found) <= LEGEND_ENTRIES
            _scatter(figure, tokens, rows, label, colour=class_colour(i), by="label", legend=legend)
    axis = {**AXIS, "showticklabels": False, "showgrid": False, "showline": True, "mirror": True}
    figure.update_layout(LAYOUT, margin={"l": 8, "r": 8, "t": 8, "b": 8}, hovermode="closest", legend=LEGEND)
    return figure.update_layout(xaxis=axis, yaxis=axis)


def _scatter(
    figure: go.Figure, tokens: TokenMap, rows: NDArray[np.integer], name: str, *, colour: str, by: str, legend: bool
) -> None:
    figure.add_scatter(
        x=tokens.xy[rows, 0].astype(np.float32),
        y=tokens.xy[rows, 1].astype(np.float32),
        mode="markers",
        name=_plain(name),
        meta=by,
        visible=by == "class",
        showlegend=legend,
        text=[_plain(tokens.hover[row]).replace("\n", "<br>") for row in rows],
        hovertemplate="%{text}<extra>" + _plain(name).replace("{", "&#123;") + "</extra>",
        marker={"color": colour, "size": 6, "opacity": 0.75},
    )


def _plain(text: str) -> str:
    """Escape text so that Plotly shows it unchanged; it does not decode `&quot;`."""
    return escape(text, quote=False)


def loss_curve(name: str, values: Sequence[float]) -> go.Figure:
    """Draw a loss term over epochs, counted from 1."""
    figure = go.Figure()
    figure.add_scatter(
        x=list(range(1, len(values) + 1)),
        y=list(values),
        mode="lines" if len(values) > 1 else "markers",
        line={"color": INK if name == "total" else NEUTRAL, "width": 2},
        hovertemplate="epoch %{x}: %{y:.4g}<extra></extra>",
    )
    return with_axes(figure, "epoch", "", showlegend=False, margin={"l": 40, "r": 8, "t": 8, "b": 40})


def with_axes(figure: go.Figure, x: str, y: str, **layout: Any) -> go.Figure:
    """Give a figure the layout of all figures, and titles to its axes."""
    xaxis, yaxis = ({**AXIS, "title": {"text": text}} for text in (x, y))
    return figure.update_layout({**LAYOUT, **layout}, xaxis=xaxis, yaxis=yaxis)
