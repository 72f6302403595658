"""Renders the flow of regions between the classes of two models as a self-contained HTML file, like `render`."""

from __future__ import annotations

from html import escape

import plotly.graph_objects as go
from markupsafe import Markup

from ancd_ray.jobs.report.figures import LAYOUT, class_colour
from ancd_ray.jobs.report.render import environment, inlined
from ancd_ray.jobs.tracking.flow import ClassFlow

_ROW = 34  # pixels a class
_LABEL = 16  # characters of a name in the figure: two of them are side by side on a phone
_MARGIN = 12  # pixels


def render_flow(flow: ClassFlow) -> str:
    """Render a Sankey diagram and the table of its numbers as HTML."""
    templates = environment()
    return templates.get_template("flow.html.j2").render(
        flow=flow,
        figure=draw_flow(flow) if flow.counts else None,
        **{name: Markup(text) for name, text in inlined(templates).items()},
    )


def draw_flow(flow: ClassFlow) -> go.Figure:
    """Draw a Sankey diagram: classes of the first model at the left, of the second at the right, the largest first.

    A class has the same color on both sides; a link has that of the class it comes from. Long names are cut, and whole
    when the pointer is on them.
    """
    sides = [list(dict.fromkeys(one for one, _, _ in flow.counts))]
    sides.append(list(dict.fromkeys(other for _, other, _ in flow.counts)))
    colours = {class_id: class_colour(i) for i, class_id in enumerate(dict.fromkeys([*sides[0], *sides[1]]))}
    at = [{class_id: i for i, class_id in enumerate(sides[0])}, {}]
    at[1] = {class_id: len(sides[0]) + i for i, class_id in enumerate(sides[1])}
    names = [flow.names[side][class_id] for side in (0, 1) for class_id in sides[side]]
    figure = go.Figure()
    figure.add_sankey(
        arrangement="snap",
        node={
            "label": [escape(_shorten(name)) for name in names],
            "customdata": [escape(name) for name in names],
            "color": [colours[class_id] for side in (0, 1) for class_id in sides[side]],
            "hovertemplate": "%{customdata}: %{value:,} regions<extra></extra>",
        },
        link={
            "source": [at[0][one] for one, _, _ in flow.counts],
            "target": [at[1][other] for _, other, _ in flow.counts],
            "value": [count for _, _, count in flow.counts],
            "color": [f"{colours[one]}66" for one, _, _ in flow.counts],
            "hovertemplate": "%{source.customdata} → %{target.customdata}: %{value:,} regions<extra></extra>",
        },
    )
    margin = dict.fromkeys("lrtb", _MARGIN)
    return figure.update_layout({**LAYOUT, "margin": margin, "height": max(240, _ROW * max(map(len, sides)))})


def _shorten(name: str) -> str:
    return name if len(name) <= _LABEL else name[: _LABEL - 1] + "…"
