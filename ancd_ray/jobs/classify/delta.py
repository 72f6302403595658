"""Delta tables in an output folder, on a disk or in an object store: opened, written, and searched for waste."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeGuard
from urllib.parse import unquote

import pyarrow as pa

from ancd_ray.config.errors import first_line
from ancd_ray.data.location import StoreError, describe_outage, remembered
from ancd_ray.data.store import FileStat, Folder

if TYPE_CHECKING:
    from deltalake import DeltaTable

FOLDER = "archive"  # of the tables, in an output folder
LOG = "_delta_log"
_TRIES = 10  # of a transaction that another writer gets ahead of
_DRAFT = re.compile(r".*(#\d+|\.tmp)")  # a file that a killed writer had not renamed yet


def open_table(folder: Folder) -> DeltaTable | None:
    """Open a table; None if there is none.

    Raises
    ------
    StoreError
        Its log is broken, or the store does not answer.
    """
    from deltalake import DeltaTable
    from deltalake.exceptions import TableNotFoundError

    with explain_broken_log(folder):
        try:
            return DeltaTable(folder.uri, storage_options=make_options(folder))
        except TableNotFoundError:
            return None


def read_columns(
    folder: Folder, schema: pa.Schema, columns: Sequence[str], where: Any = None, way_out: str = ""
) -> pa.Table:
    """Read some columns of a table, or of the rows that an expression selects; without rows if there is none.

    Raises
    ------
    StoreError
        The table cannot be read; the message ends with the way out.
    """
    table = open_table(folder)
    if table is None:
        return schema.empty_table().select(list(columns))
    try:
        return table.to_pyarrow_dataset(filesystem=folder.filesystem).to_table(list(columns), where)
    except (OSError, ValueError, KeyError) as error:
        raise StoreError(f"{folder}: cannot be read ({first_line(error)}){way_out}") from error


def create_table(folder: Folder, schema: pa.Schema, partition_by: Sequence[str] = ()) -> DeltaTable:
    """Open a table, and create it if there is none.

    Raises
    ------
    StoreError
        Its log is broken, or the store does not answer.
    """
    from deltalake import DeltaTable

    with explain_broken_log(folder):
        return DeltaTable.create(
            folder.uri, schema, mode="ignore", partition_by=list(partition_by), storage_options=make_options(folder)
        )


def write_rows(table: DeltaTable, folder: Folder, rows: pa.Table | pa.RecordBatchReader, **how: Any) -> None:
    """Write rows as a new version of a table; `how` has the mode, and the predicate of what is replaced.

    A table of an earlier version gets the columns that it lacks, which are null in the rows that it has.

    Raises
    ------
    StoreError
        They cannot be written; the table is what it was.
    """
    from deltalake import CommitProperties, write_deltalake
    from deltalake.exceptions import DeltaError

    properties = CommitProperties(max_commit_retries=_TRIES)
    try:
        write_deltalake(
            table, rows, storage_options=make_options(folder), commit_properties=properties, schema_mode="merge", **how
        )
        table.update_incremental()
    except (DeltaError, OSError, ValueError) as error:
        raise StoreError(f"{folder}: cannot be published: {first_line(error)}; submit the job again") from error


def relax(schema: pa.Schema) -> pa.Schema:
    """Return a schema without constraints, in which engines differ."""
    return pa.schema([field.with_nullable(True) for field in schema])


@contextmanager
def explain_broken_log(folder: Folder) -> Iterator[None]:
    """Turn what Delta says of a log that it cannot read into one line with the way out.

    Raises
    ------
    StoreError
        The body could not read the log, or the store does not answer.
    """
    from deltalake.exceptions import DeltaError, TableNotFoundError

    try:
        yield
    except TableNotFoundError:
        raise
    except DeltaError as error:
        raise StoreError(
            f"{folder}: the log of this table is broken ({first_line(error)}); delete this folder and submit the job "
            "again, which publishes the table anew"
        ) from error
    except OSError as error:
        if not is_outage(error, folder):
            raise
        raise StoreError(f"{folder}: {describe_outage(error)}") from error


def is_outage(error: BaseException, folder: Folder) -> TypeGuard[OSError]:
    """Whether an error says that a store does not answer, and nothing about its content."""
    return isinstance(error, OSError) and not isinstance(error, FileNotFoundError) and not folder.is_local


def measure_files(table: DeltaTable) -> dict[str, int]:
    """Return the bytes of the files of the newest version, by path in the folder of the table."""
    actions = pa.table(table.get_add_actions(flatten=True))
    return dict(zip(*(actions.column(name).to_pylist() for name in ("path", "size_bytes")), strict=True))


def list_expired(table: DeltaTable, folder: Folder, age: timedelta) -> dict[str, int]:
    """Return the bytes of files that were replaced at least `age` ago, or that are as old and in no version."""
    hours = int(age.total_seconds() // 3600)
    found = table.vacuum(hours, dry_run=True, enforce_retention_duration=False, full=True)
    present = folder.stats()  # Delta goes on listing files that are deleted
    return {name: present[name].size for name in found if name in present}


def list_orphans(table: DeltaTable, folder: Folder) -> dict[str, FileStat]:
    """List the files that no version has, of writers that were killed; the caller has the lock of the output."""
    replaced = table.vacuum(0, dry_run=True, enforce_retention_duration=False, full=False)
    known = {*measure_files(table), *replaced}
    return {
        name: stat
        for name, stat in folder.stats().items()
        if (_DRAFT.fullmatch(name) if name.startswith(f"{LOG}/") else name not in known)
    }


def make_options(folder: Folder) -> dict[str, str] | None:
    """Return the options of a store as Delta takes them; None on a disk."""
    place = folder.location
    if place.is_local:
        return None
    known = next((each for each in remembered() if (each.scheme, each.host) == (place.scheme, place.host)), place)
    options: dict[str, Any] = dict(known.options)
    key, _, secret = known.user.partition(":")
    names = {"region": "AWS_REGION", "session_token": "AWS_SESSION_TOKEN"}
    found = {names[name]: value for name, value in options.items() if name in names}
    if key or "access_key" in options:
        found["AWS_ACCESS_KEY_ID"] = unquote(key) or options["access_key"]
        found["AWS_SECRET_ACCESS_KEY"] = unquote(secret) or options.get("secret_key", "")
    if endpoint := options.get("endpoint_override"):
        scheme = options.get("scheme", "https")
        found |= {"AWS_ENDPOINT_URL": f"{scheme}://{endpoint.removeprefix(f'{scheme}://')}", "AWS_ALLOW_HTTP": "true"}
    return found
