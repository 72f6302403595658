"""Errors that people can put right: the command line shows them without a traceback."""

from __future__ import annotations


class AncdError(Exception):
    """Something that a user can change; its message is one line, or one line for each thing that is wrong."""

    exit_code = 1  # the work failed; 2 stands for an input that cannot be worked with
