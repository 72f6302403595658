"""Renders nights as self-contained HTML files: the report of a night, and the list of all nights.

The pages share style, macros and rules with the report of a run: file names and product names are untrusted input, and
a content security policy allows no script but the one of the list. The report of a night has no script at all, and no
night makes it larger than `LIMIT`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import jinja2
from markupsafe import Markup

from ancd_ray.jobs.nights import charts, wording
from ancd_ray.jobs.nights.extents import LIMIT, fitting_extents
from ancd_ray.jobs.nights.index import count_products, describe_night, name_products, tell_script
from ancd_ray.jobs.nights.model import Night, ProductNight
from ancd_ray.jobs.report.render import environment, hash_script, read_source

LONGEST = 300  # characters of a name, file or reason that are shown
OPEN_PRODUCTS = 8  # with more products, those without anything new are folded up
NIGHTS = 400  # nights that the list shows


def render(night: Night) -> str:
    """Render the report of a night as HTML of at most `LIMIT` bytes; products with something new come first.

    Raises
    ------
    ValueError
        The image or the mask of a region cannot be decoded.
    """
    templates = _environment()
    template = templates.get_template("night.html.j2")
    alerted = {alert.product for alert in night.alerts}
    judged = sorted(((each, has_news(each, alerted)) for each in night.products), key=lambda pair: not pair[1])
    for extent in fitting_extents(night):
        shown = judged[: extent.products]
        parts = template.generate(
            night=night,
            products=shown,
            anchors={product.product: f"p{number}" for number, (product, _) in enumerate(shown, 1)},
            is_folding=len(judged) > OPEN_PRODUCTS,
            extent=extent,
            gallery=extent.gallery,
            style=_style(templates),
            script_hashes="",
        )
        html = _join(parts, LIMIT)
        if html is not None:
            return html
    raise AssertionError("the smallest extent is larger than the limit")  # its texts and lists are cut


def render_index(nights: Sequence[Mapping[str, Any]]) -> str:
    """Render the list of nights as HTML, the newest first.

    Parameters
    ----------
    nights
        What `Night.describe` returns of each, with the relative link of its report as `href`, or None without one.
    """
    templates = _environment()
    newest = sorted(nights, key=lambda night: datetime.fromisoformat(night["started_at"]).timestamp(), reverse=True)
    shown = newest[:NIGHTS]
    rows = [describe_night(night) for night in shown]
    names = name_products(shown)
    script = read_source(templates, "nights.js")
    return templates.get_template("nights.html.j2").render(
        rows=rows,
        total=len(nights),
        products=count_products(shown, rows, names),
        index={name: i for i, name in enumerate(names)},
        line=charts.draw_line([row.numbers[0] for row in reversed(rows)]),
        data=tell_script(shown, names),
        script=Markup(script),
        style=_style(templates),
        script_hashes=Markup(hash_script(script)),
    )


def has_news(product: ProductNight, alerted: set[str]) -> bool:
    """Decide whether somebody should look at a product: something is new in it, outside of limits, or unusable."""
    return bool(
        product.product in alerted
        or product.candidates
        or product.unknown
        or product.quarantined
        or any(each.chart.is_outside for each in product.classes)
        or any(each.is_outside for each in product.drift)
    )


def _environment() -> jinja2.Environment:
    templates = environment()
    templates.globals.update(charts=charts, wording=wording)
    templates.filters.update(clip=_clip)
    return templates


def _style(templates: jinja2.Environment) -> Markup:
    return Markup(read_source(templates, "report.css") + read_source(templates, "night.css"))


def _join(parts: Iterable[str], limit: int) -> str | None:
    """Join the parts of a page; None, without making the rest, once they have more bytes than the limit."""
    joined, size = [], 0
    for part in parts:
        joined.append(part)
        size += len(part.encode())
        if size > limit:
            return None
    return "".join(joined)


def _clip(text: str) -> str:
    """Cut a text that no one would read to its end."""
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"
