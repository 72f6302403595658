"""Errors that users can fix; the command line shows them without a traceback."""

from __future__ import annotations


class AncdError(Exception):
    """An error that a user can fix; the message has one line per problem."""

    exit_code = 1  # 1: the run failed; 2: invalid input
