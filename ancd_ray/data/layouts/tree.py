"""Files of a product's folder, listed once; used by all layouts."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path

import pyarrow.fs as pafs

from ancd_ray.data.images import is_image
from ancd_ray.data.layouts.base import LayoutError
from ancd_ray.data.location import Location, join, locate, remember
from ancd_ray.data.roles import ListedImage, Role
from ancd_ray.data.walk import Entry, Files, Walk, walk


class Tree:
    """All files below `root/path` on any filesystem, with sizes and times, by relative path."""

    def __init__(self, root: str, path: str) -> None:
        self.root = Location.parse(root)
        self.location = locate(path, self.root)
        remember([self.root, self.location])
        self.uri = str(self.location)
        self.prefix = "" if path in ("", ".") else f"{path.rstrip('/')}/" if "://" not in path else f"{self.uri}/"
        self.notes: list[str] = []  # what a person should know before any work

    @cached_property
    def walk(self) -> Walk:
        """The files, and what is left out.

        Raises
        ------
        LayoutError
            The folder does not exist or cannot be read.
        """
        try:
            return walk(self.location, [self.root])
        except FileNotFoundError:
            raise LayoutError(f"{self.uri}: no such folder") from None
        except OSError as error:
            raise LayoutError(f"{self.uri}: {str(error).splitlines()[0]}") from error

    @property
    def files(self) -> Files:
        """Files by relative path; those that are images, or go with images, are taken."""
        return self.walk.files

    def restrict_to(self, relatives: Sequence[str]) -> None:
        """Restrict `files` to the given paths, without listing the folder, which may have millions of other files."""
        system, base = self.location.open()
        infos = system.get_file_info([f"{base.rstrip('/')}/{relative}" for relative in relatives])
        files = Files()
        for name, info in zip(relatives, infos, strict=True):
            if info.type not in (pafs.FileType.NotFound, pafs.FileType.Directory):
                files.add(name, Entry(info.size, info.mtime_ns))
        self.walk = Walk(files)

    def make(
        self,
        relative: str,
        role: Role,
        label: str | None = None,
        masks: Sequence[str] = (),
        shapes: str | None = None,
        captured_at: str | None = None,
        problem: str | None = None,
        path: str | None = None,
    ) -> ListedImage:
        """Make the image of a file, with its masks; `path` is the name it is known by, if that is another one."""
        entry, *others = [self.files.take(name) for name in (relative, *masks)]
        return ListedImage(
            path or self.path_of(relative),
            self.uri_of(relative),
            role,
            label,
            tuple(self.uri_of(mask) for mask in masks),
            shapes,
            captured_at,
            _join_stamps((entry, *others)) + (f" {shapes}" if shapes else ""),
            problem or (entry.problem if entry else None),
        )

    def stamp(self, *relatives: str | None) -> str:
        """Return sizes and modification times of the files that exist."""
        return _join_stamps(self.files.get(relative) for relative in relatives if relative)

    def uri_of(self, relative: str) -> str:
        """Return the path or URI of a file."""
        return join(self.uri, relative)

    def path_of(self, relative: str) -> str:
        """Return the path of a file relative to the archive's root."""
        return f"{self.prefix}{relative}"

    def images(self, below: str = "") -> list[str]:
        """Return the relative paths of the image files below a folder, sorted."""
        start = f"{below.rstrip('/')}/" if below else ""
        return sorted(name for name in self.files if name.startswith(start) and is_image(name))

    def find(self, *suffixes: str) -> list[str]:
        """Return the relative paths of the files with a suffix, in any case, sorted."""
        return sorted(name for name in self.files if name.lower().endswith(suffixes))

    def folders(self) -> list[str]:
        """Return the names of the folders that have files at any depth, sorted."""
        return sorted({name.partition("/")[0] for name in self.files if "/" in name})

    def read(self, relative: str) -> bytes:
        """Read a file."""
        system, base = self.location.open()
        with system.open_input_stream(f"{base.rstrip('/')}/{relative}") as stream:
            return bytes(stream.read())

    def read_text(self, relative: str) -> str:
        """Read a text file.

        Raises
        ------
        LayoutError
            The file does not exist, or is not text in UTF-8.
        """
        try:
            return self.read(relative).decode("utf-8")
        except FileNotFoundError:
            raise LayoutError(f"{self.uri_of(relative)}: no such file") from None
        except UnicodeDecodeError:
            raise LayoutError(f"{self.uri_of(relative)}: is not a text file in UTF-8") from None

    def contains(self, relative: str) -> bool:
        """Whether a local file is in the archive after links are followed; always True on other filesystems."""
        if not self.location.is_local:
            return True
        return Path(self.location.path, relative).resolve().is_relative_to(Path(self.root.path).resolve())


def _join_stamps(entries: Iterable[Entry | None]) -> str:
    return " ".join(f"{entry.size}@{entry.time_ns}" for entry in entries if entry)


def stem(path: str) -> str:
    """Return the path without the suffix of its file."""
    return posixpath.splitext(path)[0]


def find_twins(paths: Iterable[str]) -> set[str]:
    """Find paths that differ from another one only in the suffix; files paired by name are ambiguous for them."""
    first: dict[str, str] = {}
    twins: set[str] = set()
    for path in paths:
        other = first.setdefault(stem(path), path)
        if other is not path:
            twins.update((other, path))
    return twins


TWINS = "another image has the same name up to the suffix: its mask or map cannot be told apart"
