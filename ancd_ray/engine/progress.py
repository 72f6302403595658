"""Progress of a running job on stderr: a live table of steps on a terminal, otherwise plain lines."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

_LINE_EVERY_S = 10.0  # minimum interval between plain lines of a step
_ROWS = 24  # of the table, which has to fit the terminal; others are counted


class Progress(Protocol):
    """Interface of the progress of a step."""

    def total(self, n: int) -> None:
        """Set the number of units (images, regions, epochs) of the step."""

    def advance(self, n: int) -> None:
        """Add n completed units."""

    def note(self, text: str) -> None:
        """Set the message about the current activity."""


_COLORS = {"runs": "cyan", "done": "green", "cached": "dim", "failed": "red", "stopped": "yellow"}


@dataclass
class StepProgress:
    """Progress of a step that is shown."""

    name: str
    product: str
    units: int = 0
    handled: int = 0
    said: str = ""
    state: str = "runs"  # runs | done | cached | failed | stopped
    started: float = field(default_factory=time.monotonic)
    ended: float | None = None
    resumed: int = 0
    quiet: bool = True
    _last_line: float = field(default_factory=time.monotonic)

    def total(self, n: int) -> None:
        """Set the number of units of the step."""
        self.units = n

    def advance(self, n: int) -> None:
        """Add n completed units."""
        if not self.handled and n and self.seconds < 0.5:
            self.resumed = n  # committed by an earlier run: excluded from the rate
        self.handled += n
        if not self.quiet and time.monotonic() - self._last_line > _LINE_EVERY_S:
            self._last_line = time.monotonic()
            _write_line(f"{self.label}  {self.handled}/{self.units}  {self.rate}  {self.said}".rstrip())

    def note(self, text: str) -> None:
        """Set the message about the current activity."""
        self.said = text

    def finish(self, n: int, said: str) -> None:
        """Set all of n units as completed, by another process that had this to say."""
        self.units = self.handled = n
        self.said = said

    def cached(self) -> None:
        """Mark the step as cached."""
        self.state = "cached"

    @property
    def label(self) -> str:
        """Product and step."""
        return f"{self.product} · {self.name}"

    @property
    def seconds(self) -> float:
        """Wall-clock time in seconds, so far or in total."""
        return (self.ended or time.monotonic()) - self.started

    @property
    def rate(self) -> str:
        """Units per second in this run."""
        fresh = self.handled - self.resumed
        return f"{fresh / self.seconds:.1f}/s" if fresh > 0 and self.seconds > 1 else ""


class Display:
    """Shows the steps of a job while they run; a quiet one shows warnings alone."""

    def __init__(self, title: str, console: Console | None = None, quiet: bool = False) -> None:
        self._console = console or Console(stderr=True)
        self._title = title
        self._steps: list[StepProgress] = []
        self._quiet = quiet
        self._live = self._console.is_terminal and not quiet

    @contextmanager
    def running(self) -> Iterator[Display]:
        """Show the table while the body runs; it remains on the screen afterwards."""
        if not self._live:
            yield self
            return
        with Live(get_renderable=self._table, console=self._console, refresh_per_second=4, transient=False):
            yield self

    @contextmanager
    def step(self, name: str, product: str) -> Iterator[StepProgress]:
        """Show a step while the body runs."""
        progress = self.begin(name, product)
        try:
            yield progress
        except BaseException:
            self.end(progress, "failed")
            raise
        self.end(progress)

    def begin(self, name: str, product: str) -> StepProgress:
        """Show a step until its `end`; several may be under way."""
        progress = StepProgress(name, product, quiet=self._live or self._quiet)
        self._steps.append(progress)
        return progress

    def end(self, progress: StepProgress, state: str = "done", seconds: float | None = None) -> None:
        """End a step, which took so many seconds if that is not all of the time since its beginning."""
        progress.ended = time.monotonic() if seconds is None else progress.started + seconds
        if progress.state == "runs":
            progress.state = state
        if (
            not self._live and not self._quiet and state != "stopped"
        ):  # there may be hundreds; the line of the error says enough
            _write_line(f"{progress.label}  {_format_state(progress)}  {progress.said}".rstrip())

    def warn(self, text: str) -> None:
        """Print a permanent line that calls for attention."""
        self._print(text, "yellow")

    def say(self, text: str) -> None:
        """Print a permanent line."""
        if not self._quiet:
            self._print(text, "default")

    def _print(self, text: str, style: str) -> None:
        if self._live:
            self._console.print(f"[{style}]{escape(text)}[/{style}]")
        else:
            _write_line(text)

    def _table(self) -> Table:
        table = Table(title=escape(self._title), title_justify="left", box=None, pad_edge=False)
        for column, justify in (
            ("product", "left"),
            ("step", "left"),
            ("", "left"),
            ("done", "right"),
            ("rate", "right"),
            ("time", "right"),
        ):
            table.add_column(column, justify=justify, no_wrap=True)  # type: ignore[arg-type]
        table.add_column("note", overflow="fold", style="dim")
        shown = _choose_rows(self._steps)
        for step in shown:
            color = _COLORS[step.state]
            done = f"{step.handled:,}/{step.units:,}" if step.units else ""
            cells = (
                step.product,
                step.name,
                f"[{color}]{step.state}[/{color}]",
                done,
                step.rate,
                _format_time(step.seconds),
            )
            table.add_row(*(cell if cell.startswith("[") else escape(cell) for cell in cells), escape(step.said))
        if len(shown) < len(self._steps):
            states = Counter(step.state for step in self._steps)
            table.caption = f"of {len(self._steps):,} steps: " + ", ".join(
                f"{n:,} {each}" for each, n in states.items()
            )
            table.caption_justify = "left"
        return table


def _choose_rows(steps: Sequence[StepProgress]) -> list[StepProgress]:
    """Return the steps that the table shows: if there are many, those under way or failed, and the last ones."""
    rank = {"failed": 0, "runs": 1}
    by_interest = sorted(range(len(steps)), key=lambda i: (rank.get(steps[i].state, 2), -i))
    return [steps[i] for i in sorted(by_interest[:_ROWS])]


def _format_state(step: StepProgress) -> str:
    if step.state == "cached":
        return "cached"
    count = f" {step.handled:,}" if step.handled else ""
    return f"{step.state}{count} in {_format_time(step.seconds)} {step.rate}".rstrip()


def _format_time(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 60 else f"{int(seconds // 60)}:{int(seconds % 60):02d} min"


def _write_line(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()
