"""Paths of tables that were written on another machine: backslashes, drive letters, network shares."""

from __future__ import annotations

import re

from pydantic import Field

from ancd_ray.config.base import Section
from ancd_ray.data.layouts.text import clip

_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_DRIVE = re.compile(r"[A-Za-z]:")
_REPEATED = re.compile(r"(?<!^)//+")  # at the beginning two slashes are a network share
_PLAIN = re.compile(r"[^\\:/.][^\\:]*")


class PathPrefix(Section):
    """What the paths of another machine begin with, and what takes its place; relative to the archive's root."""

    from_: str = Field(alias="from", min_length=1)
    to: str = ""

    def replace(self, path: str) -> str | None:
        """Replace the prefix of a path; None if the path does not begin with it."""
        path, start = _unify(path), _unify(self.from_).rstrip("/")
        if path != start and not path.startswith(f"{start}/"):
            return None
        rest, to = path[len(start) :].lstrip("/"), self.to.replace("\\", "/")
        return f"{to.rstrip('/')}/{rest}" if to else rest


def normalize_path(path: str, prefix: PathPrefix | None) -> str:
    r"""Return a path with `/` between its parts; `.\` and `./` at its beginning are left out.

    Raises
    ------
    ValueError
        The path has a drive letter or a network share, and no prefix says where that is; or it names no file. The
        message is one line.
    """
    if prefix is None and _PLAIN.fullmatch(path) and "//" not in path and "/./" not in path:
        return path  # almost all paths; the rest takes five times as long
    if prefix is not None and (replaced := prefix.replace(path)) is not None:
        path = replaced
    elif _URI.match(path):
        return path
    unified = _unify(path)
    if _DRIVE.match(unified) or unified.startswith("//"):
        example = unified.rpartition("/")[0] or unified
        wrong = f"does not begin with path_prefix.from, {prefix.from_!r}" if prefix else "is of another machine"
        raise ValueError(f"{clip(path)!r} {wrong}; set path_prefix: {{from: '{clip(example)}', to: ''}}")
    root = "/" if unified.startswith("/") else ""
    relative = "/".join(part for part in unified.split("/") if part not in ("", "."))
    if not relative:
        raise ValueError(f"{clip(path)!r} is a folder; write the path of a file")
    return root + relative


def _unify(path: str) -> str:
    """Return a path with slashes and its drive letter in upper case; URIs keep their two slashes."""
    if _URI.match(path):
        return path
    unified = _REPEATED.sub("/", path.replace("\\", "/"))
    return unified[0].upper() + unified[1:] if _DRIVE.match(unified) else unified
