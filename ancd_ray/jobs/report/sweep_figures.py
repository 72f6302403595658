"""The Plotly figures of a sweep's report: heat maps, sensitivity curves and parallel coordinates.

All figures are SVG. Plotly's own parallel coordinates generate code at run time, which the content security policy
blocks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.colors import sample_colorscale

from ancd_ray.jobs.report.figures import AXIS, LAYOUT, LEGEND, class_colour
from ancd_ray.jobs.report.sweep_model import METRICS, Point, SweepReport, SweptProduct

SCALE = "Viridis"
BANDS = 10  # colors of the lines of the parallel coordinates, one trace each
WRITTEN_CELLS = 250  # heat maps with more cells show no numbers in them


def axes(report: SweepReport) -> tuple[str, str] | None:
    """Choose the keys of the rows and columns of the heat maps.

    Only keys with more than one value are used: preferably one that needs trainings and one of merging, else two of
    the same kind.

    Returns
    -------
    tuple of str, or None
        None if fewer than two keys have more than one value.
    """
    trained, merged = (
        [key for key in keys if len(values_of(report, key)) > 1] for keys in (report.trained, report.merged)
    )
    pairs = [(a, b) for a in trained for b in merged] or [(a, b) for a in trained for b in trained if a != b]
    return next(iter(pairs), next(iter([(a, b) for a in merged for b in merged if a != b]), None))


def values_of(report: SweepReport, key: str) -> list[Any]:
    """List the values of a key over all points, sorted."""
    return _in_order({point.settings[key] for product in report.products for point in product.points})


def mean_product(report: SweepReport) -> SweptProduct | None:
    """Average the metric over products for the settings that all products have; None for a single product."""
    if len(report.products) < 2:
        return None
    by_settings: dict[tuple[str, ...], list[Point]] = {}
    for product in report.products:
        for point in product.points:
            by_settings.setdefault(tuple(map(str, point.settings.values())), []).append(point)
    n = sum(bool(product.points) for product in report.products)
    points = [
        Point(some[0].settings, {report.metric: float(np.mean([value(point, report.metric) for point in some]))})
        for some in by_settings.values()
        if len(some) == n > 1
    ]
    if not points:
        return None
    best = max(points, key=lambda point: value(point, report.metric))
    default = next((p.default for p in report.products if p.default), None)
    same = [point for point in points if default and point.settings == default.settings]
    return SweptProduct("mean", points, best, same[0] if same else None)


def value(point: Point, metric: str) -> float:
    """Return the metric of a point, which must have a value."""
    found = point.figures[metric]
    assert found is not None
    return found


def heat_map(report: SweepReport, product: SweptProduct) -> go.Figure:
    """Draw the metric over two keys, the best over all others, with frames around the best and the paper's cell."""
    found = axes(report)
    assert found is not None
    rows, columns = (values_of(report, key) for key in found)
    z = np.full((len(rows), len(columns)), np.nan)
    for point in product.points:
        i, j = rows.index(point.settings[found[0]]), columns.index(point.settings[found[1]])
        z[i, j] = np.nanmax([z[i, j], value(point, report.metric)])
    written = z.size <= WRITTEN_CELLS
    figure = go.Figure()
    figure.add_heatmap(
        z=[[None if np.isnan(cell) else round(float(cell), 4) for cell in row] for row in z],
        customdata=[[[row, column] for column in _texts(columns)] for row in _texts(rows)],
        colorscale=SCALE,
        texttemplate="%{z:.3f}" if written else None,
        textfont={"size": 11},
        xgap=1,
        ygap=1,
        colorbar={"title": {"text": METRICS[report.metric]}, "thickness": 12, "outlinewidth": 0},
        hovertemplate=f"{_short(found[0])} %{{customdata[0]}}, {_short(found[1])} %{{customdata[1]}}: %{{z:.4f}}"
        "<extra></extra>",
    )
    for framed, name, colour in ((product.default, "the paper's", "#ffffff"), (product.best, "best", "#d64550")):
        if framed:
            _frame(figure, framed, found, rows, columns, name, colour)
    figure.update_layout({**LAYOUT, "legend": LEGEND, "margin": {"l": 60, "r": 12, "t": 28, "b": 48}})
    return figure.update_layout(xaxis=_create_axis(found[1], columns), yaxis=_create_axis(found[0], rows))


def _create_axis(key: str, values: Sequence[Any]) -> dict[str, Any]:
    """Create an axis with positions 0, 1, … that are labeled with values."""
    every = -(-len(values) // 30)
    ticks = {"tickvals": list(range(0, len(values), every)), "ticktext": _texts(values[::every])}
    return {**AXIS, **ticks, "showgrid": False, "range": [-0.5, len(values) - 0.5], "title": {"text": key}}


def _frame(
    figure: go.Figure, point: Point, keys: Sequence[str], rows: list[Any], columns: list[Any], name: str, colour: str
) -> None:
    """Draw a frame around a cell, with an entry in the legend."""
    y, x = rows.index(point.settings[keys[0]]), columns.index(point.settings[keys[1]])
    corners = [(x - 0.46, y - 0.44), (x + 0.46, y - 0.44), (x + 0.46, y + 0.44), (x - 0.46, y + 0.44)]
    line = {"color": colour, "width": 3.5, "dash": "solid" if name == "best" else "dot"}
    figure.add_scatter(
        x=[a for a, _ in [*corners, corners[0]]],
        y=[b for _, b in [*corners, corners[0]]],
        mode="lines",
        line=line,
        showlegend=False,
        hoverinfo="skip",
    )
    legend = {**line, "color": "#8a94a3"} if colour == "#ffffff" else line
    figure.add_scatter(x=[None], y=[None], mode="lines", line=legend, name=name)


def sensitivity(report: SweepReport, key: str) -> go.Figure:
    """Draw the metric over one key, one line per product.

    For a key of merging, the training is the best one of the product. For other keys, the value is the best over all
    other keys.
    """
    figure = go.Figure()
    for index, product in enumerate(report.products):
        if not product.best:
            continue
        held = report.trained if key in report.merged else ()
        mine = [p for p in product.points if all(p.settings[k] == product.best.settings[k] for k in held)]
        best: dict[Any, float] = {}
        for point in mine:
            best[point.settings[key]] = max(best.get(point.settings[key], -np.inf), value(point, report.metric))
        x = _in_order(set(best))
        figure.add_scatter(
            x=x if _numeric(x) else _texts(x),
            y=[round(best[v], 4) for v in x],
            mode="lines+markers",
            name=escape(product.name, quote=False),
            line={"color": class_colour(index), "width": 2},
            marker={"size": 7},
            hovertemplate=f"{_short(key)} %{{x}}: %{{y:.4f}}<extra>{_safe(product.name)}</extra>",
        )
    values = values_of(report, key)
    if _numeric(values) and (default := report.defaults.get(key)) is not None:
        line = {"color": "#8a94a3", "dash": "dot"}
        figure.add_shape(type="line", x0=default, x1=default, y0=0, y1=1, yref="paper", line=line)
        figure.add_scatter(x=[None], y=[None], mode="lines", line=line, name="the paper's")
    spread = _numeric(values) and min(values) > 0 and max(values) > 8 * min(values)
    margin = {"l": 60, "r": 12, "t": 28, "b": 48}
    figure.update_layout({**LAYOUT, "legend": LEGEND, "margin": margin, "showlegend": True})
    ticks = {"tickvals": values, "ticktext": _texts(values)} if _numeric(values) and len(values) <= 15 else {}
    return figure.update_layout(
        xaxis={**AXIS, "title": {"text": key}, "type": "log" if spread else None, **ticks},
        yaxis={**AXIS, "title": {"text": METRICS[report.metric]}},
    )


def parallel(report: SweepReport) -> go.Figure:
    """Draw every setting as a line over parallel axes, one per key and one for the metric, colored by the metric."""
    keys = [key for key in report.keys if len(values_of(report, key)) > 1]
    names = [product.name for product in report.products]
    points = [(product.name, point) for product in report.products for point in product.points]
    scores = np.array([value(point, report.metric) for _, point in points])
    low, high = float(scores.min()), float(scores.max())
    columns = [("product", _places([name for name, _ in points], names))] if len(names) > 1 else []
    columns += [(key, _places([p.settings[key] for _, p in points], values_of(report, key))) for key in keys]
    columns.append((METRICS[report.metric], (scores - low) / max(high - low, 1e-12)))
    figure = go.Figure()
    bands = np.minimum((columns[-1][1] * BANDS).astype(int), BANDS - 1)
    for band in sorted(set(bands.tolist())):  # the best on top
        mine = np.flatnonzero(bands == band)
        figure.add_scatter(
            x=[x for _ in mine for x in (*range(len(columns)), None)],
            y=[y for row in mine for y in (*(round(float(places[row]), 4) for _, places in columns), None)],
            mode="lines",
            line={"color": sample_colorscale(SCALE, (band + 0.5) / BANDS)[0], "width": 1 + 2 * (band == BANDS - 1)},
            opacity=0.35 + 0.6 * (band + 1) / BANDS,
            hoverinfo="skip",
            showlegend=False,
        )
    _ticks(figure, 0, names) if len(names) > 1 else None
    for i, key in enumerate(keys, int(len(names) > 1)):
        _ticks(figure, i, values_of(report, key))
    _ticks(figure, len(columns) - 1, [round(float(tick), 3) for tick in np.linspace(low, high, 6)])
    x = {**AXIS, "tickvals": list(range(len(columns))), "ticktext": [escape(name) for name, _ in columns]}
    figure.update_layout({**LAYOUT, "margin": {"l": 60, "r": 70, "t": 12, "b": 48}})
    return figure.update_layout(
        xaxis={**x, "gridcolor": "#8a94a3", "range": [-0.25, len(columns) - 0.6]}, yaxis={"visible": False}
    )


def _ticks(figure: go.Figure, x: int, values: Sequence[Any]) -> None:
    """Label an axis with its values, at most 14 of them."""
    shown = range(0, len(values), -(-len(values) // 14))
    for i in shown:
        y = i / max(len(values) - 1, 1)
        text = escape(_text(values[i]), quote=False)
        figure.add_annotation(
            x=x,
            y=y,
            text=text,
            showarrow=False,
            xanchor="left",
            xshift=4,
            font={"size": 11},
            bgcolor="rgba(255,255,255,.75)",
        )


def _places(values: Sequence[Any], among: Sequence[Any]) -> np.ndarray[Any, Any]:
    """Compute the positions of values on an axis, evenly spaced in 0..1."""
    return np.array([among.index(v) / max(len(among) - 1, 1) for v in values])


def _in_order(values: set[Any]) -> list[Any]:
    return sorted(values) if _numeric(list(values)) else sorted(values, key=str)


def _numeric(values: Sequence[Any]) -> bool:
    return all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)


def _texts(values: Sequence[Any]) -> list[str]:
    return [escape(_text(v), quote=False) for v in values]


def _text(v: Any) -> str:
    return f"{v:.4g}" if isinstance(v, float) else str(v)


def _short(key: str) -> str:
    return _safe(key.rpartition(".")[2])


def _safe(text: str) -> str:
    """Escape text for use in a Plotly template."""
    return escape(text, quote=False).replace("{", "&#123;").replace("%", "&#37;")


def settings_text(settings: Mapping[str, Any], keys: Sequence[str]) -> str:
    """Format settings as one line."""
    return ", ".join(f"{key} {_text(settings[key])}" for key in keys if settings.get(key) is not None)
