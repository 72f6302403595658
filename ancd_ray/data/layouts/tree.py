"""Files of a product's folder, listed once; used by all layouts."""

from __future__ import annotations

import posixpath
from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path

import pyarrow.fs as pafs

from ancd_ray.data.images import is_image
from ancd_ray.data.layouts.base import LayoutError
from ancd_ray.data.store import filesystem


class Tree:
    """All files below `root/path` on any filesystem, with sizes and times, by relative path."""

    def __init__(self, root: str, path: str) -> None:
        self.root = root.rstrip("/") or "/"
        self.uri = _join_paths(self.root, path)
        self._system, self._base = filesystem(self.uri)
        self.prefix = "" if path in ("", ".") else f"{path.rstrip('/')}/"

    @cached_property
    def files(self) -> dict[str, pafs.FileInfo]:
        """Files by relative path.

        Raises
        ------
        LayoutError
            The folder does not exist or cannot be read.
        """
        try:
            found = self._system.get_file_info(pafs.FileSelector(self._base, recursive=True))
        except FileNotFoundError:
            raise LayoutError(f"{self.uri}: no such folder") from None
        except (OSError, NotADirectoryError) as error:
            raise LayoutError(f"{self.uri}: {str(error).splitlines()[0]}") from error
        base = self._base.rstrip("/") + "/"
        return {info.path.removeprefix(base): info for info in found if info.type == pafs.FileType.File}

    def restrict_to(self, relatives: Sequence[str]) -> None:
        """Restrict `files` to the given paths, without listing the folder, which may have millions of other files."""
        paths = [f"{self._base.rstrip('/')}/{relative}" for relative in relatives]
        infos = self._system.get_file_info(paths)
        self.files = {
            name: info for name, info in zip(relatives, infos, strict=True) if info.type == pafs.FileType.File
        }

    def stamp(self, *relatives: str | None) -> str:
        """Return sizes and modification times of the files that exist."""
        infos = [self.files.get(relative) for relative in relatives if relative]
        return " ".join(f"{info.size}@{info.mtime_ns}" for info in infos if info)

    def uri_of(self, relative: str) -> str:
        """Return the URI of a file."""
        return f"{self.uri.rstrip('/')}/{relative}"

    def path_of(self, relative: str) -> str:
        """Return the path of a file relative to the archive's root."""
        return f"{self.prefix}{relative}"

    def images(self, below: str = "") -> list[str]:
        """Return the relative paths of the image files below a folder, sorted."""
        start = f"{below.rstrip('/')}/" if below else ""
        return sorted(name for name in self.files if name.startswith(start) and is_image(name))

    def read_text(self, relative: str) -> str:
        """Read a text file.

        Raises
        ------
        LayoutError
            The file does not exist, or is not text in UTF-8.
        """
        try:
            with self._system.open_input_stream(f"{self._base.rstrip('/')}/{relative}") as stream:
                return bytes(stream.read()).decode("utf-8")
        except FileNotFoundError:
            raise LayoutError(f"{self.uri_of(relative)}: no such file") from None
        except UnicodeDecodeError:
            raise LayoutError(f"{self.uri_of(relative)}: is not a text file in UTF-8") from None

    def contains(self, relative: str) -> bool:
        """Whether a local file is in the archive after links are followed; always True on other filesystems."""
        if not isinstance(self._system, pafs.LocalFileSystem):
            return True
        _, root = filesystem(self.root)
        return Path(self._base, relative).resolve().is_relative_to(Path(root).resolve())


def _join_paths(root: str, path: str) -> str:
    """Join a path to the root; an absolute path or URI is returned unchanged."""
    if path in ("", "."):
        return root
    return path.rstrip("/") if "://" in path or path.startswith("/") else f"{root}/{path.strip('/')}"


def stem(path: str) -> str:
    """Return the path without the suffix of its file."""
    return posixpath.splitext(path)[0]


def find_twins(paths: Iterable[str]) -> set[str]:
    """Find paths that differ from another one only in the suffix; files paired by name are ambiguous for them."""
    by_stem: dict[str, list[str]] = defaultdict(list)
    for path in paths:
        by_stem[stem(path)].append(path)
    return {path for same in by_stem.values() if len(same) > 1 for path in same}


TWINS = "another image has the same name up to the suffix: its mask or map cannot be told apart"
