"""Describes exceptions that no user has made: full disks, dead servers, lack of memory, faults of Ray, and bugs."""

from __future__ import annotations

import errno
from collections.abc import Iterator

from ancd_ray.config.errors import first_line
from ancd_ray.data.location import describe_outage

_FULL = {errno.ENOSPC, errno.EDQUOT}
_FULL_SIGNS = ("No space left on device", "os error 28")  # of libraries that keep no errno
_CLOSED = {errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR}


def describe(error: BaseException) -> str:
    """Describe an exception in one line, by the first known kind among it and its causes."""
    causes = sorted(_list_causes(error), key=_is_of_ray)  # what a worker raised says more than Ray's wrapper of it
    for cause in causes:
        if text := _describe_known(cause):
            return text
    for cause in causes:
        if not _is_of_ray(cause):
            return f"{type(cause).__name__}: {first_line(cause)} (unforeseen; please report it)"
    return f"Ray: {type(error).__name__}: {first_line(error)}"


def _list_causes(error: BaseException | None) -> Iterator[BaseException]:
    """List an exception and what it was raised from, also in a worker of Ray."""
    seen: set[int] = set()
    while isinstance(error, BaseException) and id(error) not in seen:
        seen.add(id(error))
        yield error
        implicit = None if error.__suppress_context__ else error.__context__
        error = getattr(error, "cause", None) or error.__cause__ or implicit


def _describe_known(error: BaseException) -> str | None:
    """Describe an exception of a known kind; None for any other."""
    message, place = first_line(error), _place(error)
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":  # the latter of torch and Ray
        return f"out of memory ({message}); take a machine with more, or a smaller train.batch_size or resources.cpus"
    if getattr(error, "errno", None) in _FULL or any(sign in str(error) for sign in _FULL_SIGNS):
        return f"{place}no space is left on the disk; the same command continues when there is some"
    if type(error).__name__ == "SafetensorError":
        return f"a weights file is damaged: {message}"
    return _describe_os(error) if isinstance(error, OSError) and not _is_of_ray(error) else None


def _describe_os(error: OSError) -> str | None:
    message, place = first_line(error), _place(error)
    if error.errno in _CLOSED or isinstance(error, FileExistsError):
        return f"{place}cannot be used ({error.strerror or message}); set another output="
    if place:
        return f"{place}{error.strerror}"
    if type(error) is OSError:  # pyarrow's, of object stores
        return describe_outage(error)
    return None


def _place(error: BaseException) -> str:
    name = getattr(error, "filename", None)
    return f"{name}: " if name else ""


def _is_of_ray(error: BaseException) -> bool:
    return type(error).__module__.partition(".")[0] == "ray"
