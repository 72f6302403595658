"""The tracking store of a job: its URI and credentials, whether it answers, and the connection to it.

A server that stays silent is given up after half a minute, and whatever MLflow and its libraries raise is a
`TrackingProblem`: tracking comes last, and never ends a job whose results are complete.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import logging
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

from ancd_ray.config.errors import AncdError
from ancd_ray.config.job import Job
from ancd_ray.config.secrets import HIDDEN, hide_secrets
from ancd_ray.data.store import Folder
from ancd_ray.engine.progress import Display

# MLflow's own defaults wait for minutes, and for as long as a server asks. Here a request that is tried twice takes
# half a minute at most.
_DEADLINES = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "14",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_RESPECT_RETRY_AFTER_HEADER": "false",
}
_QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "GIT_PYTHON_REFRESH": "quiet",
}
_SHOWN_AFTER_S = 5.0  # tracking that takes longer is told
_LINE = 600  # characters of an error of MLflow that are shown


class TrackingProblem(AncdError):
    """The tracking store cannot be used; the message is one line."""


class RegistryAway(TrackingProblem):
    """The registry of models does not answer; the message is one line."""


@dataclass(frozen=True)
class TrackingStore:
    """Where the runs of a job are tracked."""

    uri: str  # without credentials
    artifacts: str | None = None  # location of the artifacts of new experiments; None: the server decides
    credentials: Mapping[str, str] = field(default_factory=dict, repr=False)  # as environment variables of MLflow
    note: str | None = None  # what is unusual about the place

    @property
    def is_server(self) -> bool:
        """Whether the store is behind HTTP."""
        return self.uri.startswith(("http://", "https://"))

    def __str__(self) -> str:
        return hide_secrets(self.uri.replace("sqlite+pysqlite:", "sqlite:"))

    def check(self) -> None:
        """Check that a server answers and takes the credentials, before hours of work.

        Raises
        ------
        TrackingProblem
            It does not.
        """
        if not self.is_server:
            return
        with self._translate_errors():
            from mlflow.utils.credentials import get_default_host_creds
            from mlflow.utils.rest_utils import http_request

            answer = http_request(
                get_default_host_creds(self.uri), "/health", "GET", max_retries=0, timeout=10, raise_on_status=False
            )
            if answer.status_code == 401:
                raise TrackingProblem(
                    f"tracking.uri {self}: asks for other credentials (401); give http://user:password@host, or set "
                    "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
                )

    @contextmanager
    def connect(self) -> Iterator[Any]:
        """Connect to the store; yields an `MlflowClient`.

        Raises
        ------
        TrackingProblem
            The store cannot be used, or the body raised an exception.
        """
        with self._translate_errors():
            import mlflow

            if not self.is_server and "://" in self.uri:
                _check_database(self.uri)
            yield mlflow.MlflowClient(tracking_uri=self.uri)

    @contextmanager
    def _translate_errors(self) -> Iterator[None]:
        with prepare_mlflow(self.credentials):
            try:
                yield
            except TrackingProblem:
                raise
            except Exception as error:
                raise TrackingProblem(f"tracking.uri {self}: {explain(error)}") from error


def find_store(job: Job, root: Folder) -> TrackingStore | None:
    """Return the store at `tracking.uri`, or else an sqlite file in the output folder; None if that is not local."""
    if job.tracking.uri:
        uri, credentials = split_credentials(job.tracking.uri)
        return TrackingStore(uri, credentials=credentials)
    return _find_file_store(root.path) if root.is_local else None


def open_store(uri: str | None, output: str | None) -> TrackingStore:
    """Return the store at a URI, or else in an output folder, or else at `MLFLOW_TRACKING_URI`; a server answers.

    Raises
    ------
    TrackingProblem
        None of them is given, the folder has none, or the server does not answer.
    """
    if not uri and output:
        folder = Folder(output)
        store = _find_file_store(folder.path) if folder.is_local else None
        if store is None or not _has_database(store):
            raise TrackingProblem(
                f"{output}: no run is tracked in this output folder (it has no mlflow.db); give --uri of the server "
                "that its jobs have in tracking.uri"
            )
        return store
    uri = uri or os.environ.get("MLFLOW_TRACKING_URI")
    if not uri:
        raise TrackingProblem(
            "which registry? give --output of the jobs, or --uri of a tracking server, or set MLFLOW_TRACKING_URI"
        )
    uri, credentials = split_credentials(uri)
    store = TrackingStore(uri, credentials=credentials)
    store.check()
    return store


def attempt(
    display: Display,
    store: TrackingStore | None,
    name: str,
    run_folder: Folder,
    work: Callable[[TrackingStore], object],
) -> None:
    """Track a run as a step of its own, if there is a store; what cannot be tracked is a warning of one line."""
    if store is None:
        return
    with display.step("track", name) as progress:
        waiting = f"tracking in {store}, which takes its time; a server that stays silent is given up after 30 s"
        timer = threading.Timer(_SHOWN_AFTER_S, display.warn, [waiting])
        timer.daemon = True
        if store.is_server:
            timer.start()
        if store.note:
            display.warn(store.note)
        try:
            work(store)
        except TrackingProblem as error:
            progress.note("not tracked")
            display.warn(f"not tracked: {error}; later: ancd-ray track {hide_secrets(str(run_folder))}")
        finally:
            timer.cancel()


@contextmanager
def prepare_mlflow(credentials: Mapping[str, str] | None = None) -> Iterator[None]:
    """Give MLflow credentials, deadlines and silence: it and alembic report every table that they create."""
    defaults = {key: value for key, value in {**_QUIET, **_DEADLINES}.items() if key not in os.environ}
    loggers = [logging.getLogger(name) for name in ("mlflow", "alembic", "urllib3")]
    levels = [logger.level for logger in loggers]
    with _set_environment({**defaults, **(credentials or {})}):
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


def explain(error: Exception) -> str:
    """Return the first line of an exception of MLflow or its libraries, without secrets."""
    lines = hide_secrets(str(error)).strip().splitlines()
    line = lines[0] if lines else type(error).__name__
    return line if len(line) <= _LINE else f"{line[:_LINE]}..."


@contextmanager
def _set_environment(variables: Mapping[str, str]) -> Iterator[None]:
    before = {key: os.environ.get(key) for key in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for key, value in before.items():
            if value is None:
                os.environ.pop(key, None)
            else:
                os.environ[key] = value


def split_credentials(uri: str) -> tuple[str, dict[str, str]]:
    """Split the credentials off the URI of a server, which would repeat them in its messages."""
    parts = urlsplit(uri)
    if parts.scheme not in ("http", "https") or "@" not in parts.netloc:
        return uri, {}
    user, _, host = parts.netloc.rpartition("@")
    clean = urlunsplit(parts._replace(netloc=host))
    if user == HIDDEN:  # of a stored job; the environment has them, or nobody
        return clean, {}
    name, _, password = user.partition(":")
    return clean, {"MLFLOW_TRACKING_USERNAME": unquote(name), "MLFLOW_TRACKING_PASSWORD": unquote(password)}


def _find_file_store(folder: Path) -> TrackingStore:
    """Return an sqlite store in a folder, or, if its path does not survive in a URL, in the user's cache."""
    note = None
    if not _is_kept(folder / "mlflow.db"):
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        place = cache / "ancd-ray" / "mlflow" / hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]
        note = f"{folder}: MLflow cannot keep its database in a folder of this name; it is {place}/mlflow.db"
        folder = place
    return TrackingStore(_make_url(folder / "mlflow.db"), (folder / "mlflow").as_uri(), note=note)


def _has_database(store: TrackingStore) -> bool:
    from sqlalchemy.engine import make_url

    return Path(make_url(store.uri).database or "").is_file()


def _make_url(database: Path) -> str:
    """Return the URL of an sqlite file; its driver is named, or else MLflow makes a folder of the quoted path too."""
    from sqlalchemy.engine import URL

    return URL.create("sqlite+pysqlite", database=str(database)).render_as_string(hide_password=False)


def _is_kept(database: Path) -> bool:
    """Tell whether a path is the same after it was written to a URL and read again, as MLflow does."""
    from sqlalchemy.engine import make_url

    try:
        return make_url(_make_url(database)).database == str(database)
    except ValueError:  # bytes that are no text
        return False


def _check_database(uri: str) -> None:
    """Read a database once; MLflow would try one that cannot be read for two minutes, and say nothing."""
    from sqlalchemy import create_engine, inspect
    from sqlalchemy.engine import make_url

    url = make_url(uri)
    if url.get_backend_name() == "sqlite" and url.database:
        Path(url.database).parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(url)
    try:
        inspect(engine).get_table_names()
    finally:
        engine.dispose()
