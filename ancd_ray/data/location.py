"""Locations of files: local paths, and URIs of object stores, parsed once.

A location is a scheme, a host (the bucket) and a path that is taken as it is written: `#`, `%`, `?` and spaces are
characters of file names. Credentials (`s3://KEY:SECRET@bucket`) and options (`?endpoint_override=...&scheme=http`) are
kept apart; they are neither part of the text of a location nor inherited by tables. Tables hold bare locations, and
the process remembers how to access a host: `remember` on the driver, and again in each worker.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlencode

import pyarrow as pa
import pyarrow.fs as pafs

from ancd_ray.config.errors import AncdError, first_line

CONNECT_TIMEOUT_S, ATTEMPTS = 5.0, 10  # of requests to S3; the waits between them grow from 50 ms and add up to 26 s
_S3_OPTIONS = frozenset(
    {
        *("access_key", "secret_key", "session_token", "anonymous", "role_arn", "session_name", "external_id"),
        *("region", "scheme", "endpoint_override", "proxy_options", "force_virtual_addressing", "tls_ca_file_path"),
        "allow_bucket_creation",
    }
)


class StoreError(AncdError):
    """A folder or file cannot be used; the message is one line."""


@dataclass(frozen=True)
class Location:
    """A file or folder.

    Parameters
    ----------
    path
        Absolute local path, or the path below the host.
    scheme
        Empty for local files; `s3`, `gs`, `abfs`, `hdfs`, ... otherwise.
    host
        Bucket or server.
    user
        Credentials, percent-encoded as in a URI; not printed.
    options
        Options of the filesystem; not printed.
    """

    path: str
    scheme: str = ""
    host: str = ""
    user: str = field(default="", repr=False, compare=False)
    options: tuple[tuple[str, str], ...] = field(default=(), repr=False, compare=False)

    @classmethod
    def parse(cls, text: str) -> Location:
        """Parse a path or URI; relative paths become absolute.

        Raises
        ------
        StoreError
            The text is empty, has a NUL character, or is a URI without a bucket.
        """
        if not text or "\0" in text:
            raise StoreError(f"{text!r} is not a path")
        scheme, separator, rest = text.partition("://")
        if not separator or "/" in scheme:
            return cls(os.path.abspath(os.path.expanduser(text)))  # noqa: PTH100, PTH111  (of millions of names)
        if scheme == "file":
            return cls(_decode_file_uri(rest))
        authority, _, path = rest.partition("/")
        path, options = _split_options(path)
        if not path and "?" in authority:  # s3://bucket?region=...
            authority, options = _split_options(authority)
        user, _, host = authority.rpartition("@")
        if not host:
            raise StoreError(f"{scheme}://: a bucket or server is missing")
        return cls(path.strip("/"), scheme.lower(), host, user, options)

    def __str__(self) -> str:
        if not self.scheme:
            return self.path
        return f"{self.scheme}://{self.host}/{self.path}" if self.path else f"{self.scheme}://{self.host}"

    def __truediv__(self, relative: str) -> Location:
        if relative in ("", "."):
            return self
        return replace(self, path=f"{self.path.rstrip('/')}/{relative}" if self.path else relative)

    @property
    def is_local(self) -> bool:
        """Whether it is a path of this machine."""
        return not self.scheme

    @property
    def parent(self) -> Location:
        """The folder that contains it."""
        return replace(self, path=self.path.rpartition("/")[0] or ("/" if self.is_local else ""))

    @property
    def place(self) -> str:
        """The path in its filesystem, as `pyarrow.fs` takes it."""
        if self.scheme in ("", "hdfs", "viewfs"):
            return self.path if self.is_local else f"/{self.path}"
        return f"{self.host}/{self.path}" if self.path else self.host

    def open(self) -> tuple[pafs.FileSystem, str]:
        """Return its filesystem and the path in it.

        Raises
        ------
        StoreError
            Unknown scheme or option, or the filesystem is unavailable.
        """
        if self.is_local:
            return _LOCAL, self.path
        known = self if self.user or self.options else _ACCESS.get((self.scheme, self.host), self)
        try:
            return _make_filesystem(self.scheme, self.host, known.user, known.options), self.place
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError, ValueError) as error:
            raise StoreError(f"{self}: {_describe(error, known)}") from None


def locate(text: str, root: Location) -> Location:
    """Return the location that a text names: a URI or absolute path as it is, other paths below the root."""
    if text in ("", "."):
        return root
    if "://" in text or text.startswith(("/", "~")):
        return Location.parse(text)
    return root / text.strip("/")


def describe_outage(error: OSError) -> str:
    """Describe in one line an error of a store that does not answer."""
    return f"storage does not answer or refuses: {first_line(error)}; the same command continues when it does"


def join(root: str, relative: str) -> str:
    """Join a relative path to the text of a location."""
    return f"{root.rstrip('/')}/{relative}"


# --- access to hosts --------------------------------------------------------------------------------------------

_ACCESS: dict[tuple[str, str], Location] = {}  # credentials and options by scheme and host; in memory only
_LOCAL = pafs.LocalFileSystem()


def remember(locations: Iterable[Location]) -> None:
    """Remember the credentials and options of locations, for bare locations of the same host."""
    for location in locations:
        if location.user or location.options:
            _ACCESS[location.scheme, location.host] = replace(location, path="")


def remembered() -> tuple[Location, ...]:
    """Return what is remembered, to be passed to another process."""
    return tuple(_ACCESS.values())


@cache
def _make_filesystem(scheme: str, host: str, user: str, options: tuple[tuple[str, str], ...]) -> pafs.FileSystem:
    if scheme == "s3":
        return _make_s3(host, user, dict(options))
    query = f"?{urlencode(options)}" if options else ""
    authority = f"{user}@{host}" if user else host
    return pafs.FileSystem.from_uri(f"{scheme}://{quote(authority, safe='@:')}/{query}")[0]


def _make_s3(bucket: str, user: str, options: Mapping[str, str]) -> pafs.FileSystem:
    """Make a filesystem of S3 whose requests are repeated with exponential backoff, and fail in the end."""
    if unknown := sorted(options.keys() - _S3_OPTIONS):
        raise ValueError(f"unknown option {unknown[0]!r}; there are {', '.join(sorted(_S3_OPTIONS))}")
    key, _, secret = user.partition(":")
    arguments: dict[str, Any] = {"access_key": unquote(key), "secret_key": unquote(secret)} if key else {}
    arguments |= {name: {"true": True, "false": False}.get(value.lower(), value) for name, value in options.items()}
    known = ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3")
    if not arguments.keys() & {"region", "endpoint_override"} and not any(map(os.environ.get, known)):
        arguments["region"] = pafs.resolve_s3_region(bucket)
    # the "standard" strategy has a budget of 100 repeats, which Arrow never fills up again: a long job would exhaust it
    retry = pafs.AwsDefaultS3RetryStrategy(max_attempts=ATTEMPTS)
    return pafs.S3FileSystem(connect_timeout=CONNECT_TIMEOUT_S, retry_strategy=retry, **arguments)


# --- parsing ----------------------------------------------------------------------------------------------------


def _decode_file_uri(rest: str) -> str:
    """Return the path of `file://...`: as it is written if such a file exists, else percent-decoded."""
    path = rest if rest.startswith("/") else f"/{rest.partition('/')[2]}"  # file://localhost/...
    if "%" in path and not Path(path).exists():
        decoded = unquote(path, errors="strict") if _is_encoded(path) else path
        return os.path.abspath(decoded)  # noqa: PTH100
    return os.path.abspath(path)  # noqa: PTH100


def _is_encoded(path: str) -> bool:
    try:
        return "\0" not in unquote(path, errors="strict")
    except UnicodeDecodeError:
        return False


def _split_options(text: str) -> tuple[str, tuple[tuple[str, str], ...]]:
    """Split `path?key=value&key=value`; another `?` is a character of the path."""
    path, mark, query = text.rpartition("?")
    try:
        options = parse_qsl(query, strict_parsing=True, keep_blank_values=True) if mark else []
    except ValueError:
        options = []
    if not options or not all(name.isidentifier() for name, _ in options):
        return text, ()
    return path, tuple(options)


def _describe(error: BaseException, secret: Location) -> str:
    """Return the first line of an error without the secrets of a location."""
    line = first_line(error)
    for part in (secret.user, *secret.user.split(":"), *(value for _, value in secret.options)):
        line = line.replace(part, "***") if len(part) > 3 else line
    return line
