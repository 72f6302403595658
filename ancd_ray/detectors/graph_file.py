"""Files of a graph: what is one is told by its first bytes, since files that can run code must not be opened."""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

from ancd_ray.config.errors import AncdError, first_line

MAX_BYTES = 1 << 30  # it is part of every model
_EXTERNAL = (".data", "_data")  # what exporters add to the name of an ONNX file for that with its weights
_SAVED_BY_PYTHON = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")  # torch.save, pickle
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the time of packed files: the same graph is the same state


class GraphError(AncdError):
    """A graph cannot be used; the message is one line."""


@dataclass(frozen=True)
class GraphFiles:
    """A graph: the content of its files by name; the first one is the graph, a second one has its weights."""

    files: Mapping[str, bytes]

    @property
    def name(self) -> str:
        """Name of the file with the graph."""
        return next(iter(self.files))

    @property
    def is_onnx(self) -> bool:
        """Whether it is ONNX rather than OpenVINO IR."""
        return not self.name.endswith(".xml")

    @cached_property
    def digest(self) -> str:
        """The sha256 of its files, one after another; graphs with the same digest are equal."""
        total = hashlib.sha256()
        for data in self.files.values():
            total.update(data)
        return total.hexdigest()

    def __hash__(self) -> int:
        return hash(self.digest)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, GraphFiles) and self.digest == other.digest

    def pack(self) -> bytes:
        """Pack the files into one."""
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_STORED) as archive:
            for name, data in self.files.items():
                archive.writestr(zipfile.ZipInfo(name, _EPOCH), data)
        return packed.getvalue()

    @classmethod
    def unpack(cls, packed: bytes) -> GraphFiles:
        """Unpack what `pack` returned.

        Raises
        ------
        GraphError
            It is damaged.
        """
        try:
            with zipfile.ZipFile(io.BytesIO(packed)) as archive:
                return cls({Path(name).name: archive.read(name) for name in archive.namelist()})
        except (zipfile.BadZipFile, OSError, EOFError) as error:
            raise GraphError(f"the graph of this model is damaged: {first_line(error)}") from error

    def write(self, folder: Path) -> Path:
        """Write the files into a folder; returns the path of the graph."""
        for name, data in self.files.items():
            (folder / name).write_bytes(data)
        return folder / self.name


def read_graph(file: str) -> GraphFiles:
    """Read the files of a graph.

    Raises
    ------
    GraphError
        There is no such file, it is no graph, or it is too large.
    """
    path = Path(file).expanduser()
    try:
        companions = _find_companions(path)
        stamps = [(each.stat().st_size, each.stat().st_mtime_ns) for each in (path, *companions)]
        if (size := sum(each for each, _ in stamps)) > MAX_BYTES:
            raise GraphError(f"detector.file: {file} has {size:,} bytes; a graph has {MAX_BYTES:,} at most")
        return _read(path, companions, tuple(stamps))
    except FileNotFoundError as error:
        raise GraphError(f"detector.file: {error.filename}: no such file") from error
    except OSError as error:
        raise GraphError(f"detector.file: {file} cannot be read: {first_line(error)}") from error


@lru_cache(maxsize=2)
def _read(path: Path, companions: tuple[Path, ...], stamps: tuple[tuple[int, int], ...]) -> GraphFiles:  # noqa: ARG001
    data = path.read_bytes()
    _check_form(path, data)
    return GraphFiles({path.name: data} | {each.name: each.read_bytes() for each in companions})


def _find_companions(path: Path) -> tuple[Path, ...]:
    """Find the file with the weights, if it is another one; that of OpenVINO IR must exist."""
    if path.suffix == ".xml":
        return (path.with_suffix(".bin"),)
    candidates = (path.with_name(path.name + ending) for ending in _EXTERNAL)
    return tuple(each for each in candidates if each.is_file())


def _check_form(path: Path, data: bytes) -> None:
    """Check that a file is a graph by its first bytes, and by the suffix that OpenVINO goes by."""
    if data.startswith(_SAVED_BY_PYTHON):
        raise GraphError(
            f"detector.file: {path} is a pickle or a checkpoint of PyTorch, which can run code when it is opened; "
            "export the detector as ONNX or OpenVINO IR (docs/detectors.md)"
        )
    is_onnx = path.suffix == ".onnx" and data.startswith(b"\x08")  # ir_version, the first field of a model
    is_ir = path.suffix == ".xml" and data.lstrip(b"\xef\xbb\xbf \r\n\t").startswith(b"<")
    if not is_onnx and not is_ir:
        raise GraphError(f"detector.file: {path} is neither ONNX (.onnx) nor OpenVINO IR (.xml with its .bin)")
