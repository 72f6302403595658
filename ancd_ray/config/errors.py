"""Errors that users can fix; the command line shows them without a traceback."""

from __future__ import annotations


class AncdError(Exception):
    """An error that a user can fix; the message has one line per problem."""

    exit_code = 1  # 1: the run failed; 2: invalid input


def first_line(error: BaseException) -> str:
    """Return the first line of a message, or the name of the exception if it has none."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
