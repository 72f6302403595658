"""Renders a `SweepReport` as a self-contained HTML file, like `render`."""

from __future__ import annotations

from markupsafe import Markup

from ancd_ray.jobs.report import sweep_figures
from ancd_ray.jobs.report.render import environment, inlined
from ancd_ray.jobs.report.sweep_model import METRICS, SweepReport


def render_sweep(sweep: SweepReport) -> str:
    """Render the report of a sweep as HTML."""
    templates = environment()
    templates.globals.update(figures=sweep_figures)
    return templates.get_template("sweep.html.j2").render(
        sweep=sweep,
        metric=METRICS[sweep.metric],
        mean=sweep_figures.mean_product(sweep),
        axes=sweep_figures.axes(sweep),
        curves=[key for key in (*sweep.merged, *sweep.trained) if len(sweep_figures.values_of(sweep, key)) > 1],
        **{name: Markup(text) for name, text in inlined(templates).items()},
    )
