"""Tables of the command line."""

from __future__ import annotations

from collections.abc import Sequence


def align(rows: Sequence[Sequence[str]], sides: str) -> str:
    """Make lines of rows of cells; `sides` has `<` or `>` for each column, and a column without content is left out.

    Characters that terminals obey are blanks.
    """
    rows = [["".join(each if each.isprintable() else " " for each in cell) for cell in row] for row in rows]
    columns = [column for column in zip(*rows, sides, strict=True) if any(column[:-1])]
    widths = [f"{column[-1]}{max(map(len, column[:-1]))}" for column in columns]
    lines = zip(*(column[:-1] for column in columns), strict=True)
    return "\n".join(
        "  ".join(f"{cell:{width}}" for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )
