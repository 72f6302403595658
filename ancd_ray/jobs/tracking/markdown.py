"""Texts of users in Markdown, so that none of them is markup, and Markdown as text for a terminal."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Sequence

_MARKUP = re.compile(r"([\\`*_\[\]|~])")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # such as the escape sequences of terminals


def escape(text: str) -> str:
    r"""Escape a text for a line of Markdown: neither Markdown nor HTML in it has an effect.

    >>> print(escape("a_b <img src=x> | c"))
    a\_b &lt;img src=x&gt; \| c
    """
    line = " ".join(_CONTROL.sub(" ", text).split())
    return _MARKUP.sub(r"\\\1", html.escape(line, quote=False))


def make_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Make the lines of a table; its cells are escaped."""
    yield f"| {' | '.join(map(escape, head))} |"
    yield f"|{' --- |' * len(head)}"
    for cells in rows:
        yield f"| {' | '.join(map(escape, cells))} |"


def to_text(markdown: str) -> str:
    """Turn Markdown into what a terminal shows: without escapes, and without control characters."""
    return _CONTROL.sub(" ", html.unescape(re.sub(r"\\([\\`*_\[\]|~])", r"\1", markdown)))
