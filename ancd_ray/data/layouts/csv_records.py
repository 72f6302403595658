"""Records of a CSV text with the line that each begins at; separators, comments and Excel's `sep=` are recognized."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

SEPARATORS = (",", ";", "\t", "|")
_SEPARATOR_LINE = re.compile(r'\s*"?sep=(.)"?\s*')  # written by and for Excel, as the first line


class Record(NamedTuple):
    """Cells of a record without surrounding blanks, and the line of the text, from 1, that it begins at."""

    row: int
    cells: list[str]


class CsvRecords:
    """Iterates over the records of a CSV text; blank records and comment lines are left out.

    A line that begins with `#`, outside of quotes, is a comment unless `is_row` says that its cells are a row's.

    Raises
    ------
    ValueError
        While iterating: the quotes of a record do not match, or a value is too long; the message is one line.
    """

    def __init__(self, text: str, count_names: Callable[[list[str]], int]) -> None:
        self._lines = io.StringIO(text, newline="")  # keeps line ends within quotes, and counts CRLF and CR as one
        self.separator = _find_separator(text, count_names)
        self.is_row: Callable[[list[str]], bool] = lambda _: False
        self.comments: list[int] = []
        self._line = self._start = 0
        self._in_record = False

    def __iter__(self) -> Iterator[Record]:
        reader = csv.reader(self._read_lines(), delimiter=self.separator, skipinitialspace=True, strict=True)
        try:
            for cells in reader:
                self._in_record = False
                stripped = [cell.strip() for cell in cells]
                if any(stripped):
                    yield Record(self._start, stripped)
        except csv.Error as error:
            reason = "a quoted value does not end, or more follows its closing quote; write a quote in a value twice"
            reason = "a value is too long" if "field limit" in str(error) else reason
            raise ValueError(f"row {self._start}: {reason}") from None

    def _read_lines(self) -> Iterator[str]:
        for line in self._lines:
            self._line += 1
            if not self._in_record:  # a line within quotes is no comment, whatever it begins with
                if self._is_comment(line):
                    continue
                self._start, self._in_record = self._line, True
            yield line

    def _is_comment(self, line: str) -> bool:
        if self._line == 1 and _SEPARATOR_LINE.fullmatch(line):
            return True
        text = line.lstrip()
        if not text.startswith("#"):
            return False
        if not text[1:2].isspace() and self.is_row(_split(line, self.separator)):
            return False
        self.comments.append(self._line)
        return True


def _find_separator(text: str, count_names: Callable[[list[str]], int]) -> str:
    """Find the separator by which most of the header's cells are names of columns, then the one with most cells."""
    header = ""
    for number, line in enumerate(io.StringIO(text, newline=""), 1):
        said = _SEPARATOR_LINE.fullmatch(line) if number == 1 else None
        if said and said[1] in SEPARATORS:
            return said[1]
        if line.strip() and not line.lstrip().startswith("#") and not said:
            header = line
            break
    by_separator = {separator: _split(header, separator) for separator in SEPARATORS}
    return max(SEPARATORS, key=lambda separator: (count_names(by_separator[separator]), len(by_separator[separator])))


def _split(line: str, separator: str) -> list[str]:
    """Split one line; an unmatched quote is left to the reader of records, which names its row."""
    try:
        return [cell.strip() for cell in next(csv.reader([line], delimiter=separator, skipinitialspace=True), [])]
    except csv.Error:
        return []
