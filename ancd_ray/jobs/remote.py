"""Jobs on a cluster, over HTTP: Ray's Jobs API runs `ancd-ray submit` on the cluster.

The job is passed as text in an environment variable, which works with and without a container image. This package is
uploaded with it, unless `submit.image` is set. Images, weights and results are not uploaded: `data.root` and `output`
must be paths or URIs that all nodes can access.
"""

from __future__ import annotations

import logging
import os
import re
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ancd_ray
from ancd_ray.config.errors import AncdError
from ancd_ray.config.job import Job
from ancd_ray.config.load import JobError, dump_resolved
from ancd_ray.config.secrets import hide_secrets

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

JOB_VARIABLE = "ANCD_RAY_JOB"
_ENTRYPOINT = f"printenv {JOB_VARIABLE} | python -m ancd_ray submit - --address auto"
_POLL_S = 1.0
_PATIENCE_S = 120.0  # maximum time without an answer of the dashboard
_STOPPED_EXIT = 130


class SubmitError(AncdError):
    """The cluster cannot be reached or refuses a request; the message is one line."""


class Detached(SubmitError):
    """Ctrl-C while following a job, which keeps running."""

    exit_code = 130


@dataclass(frozen=True)
class RemoteJob:
    """A submitted job and its status on the cluster."""

    id: str
    status: str  # PENDING | RUNNING | STOPPED | SUCCEEDED | FAILED
    seconds: float | None  # run time so far, or in total
    message: str | None
    exit_code: int | None

    @property
    def is_over(self) -> bool:
        """Whether the job has ended."""
        return self.status in ("STOPPED", "SUCCEEDED", "FAILED")


def send(address: str, job: Job) -> str:
    """Submit a job to a cluster.

    Parameters
    ----------
    address
        URL of Ray's dashboard, such as http://host:8265.
    job
        The job.

    Returns
    -------
    str
        Submission id, the argument of the other functions.

    Raises
    ------
    JobError
        The job refers to relative paths or contains credentials.
    SubmitError
        The cluster cannot be reached or refuses the job.
    """
    text = _serialize(job)
    runtime_env: dict[str, Any] = {"env_vars": {JOB_VARIABLE: text, "PYTHONUNBUFFERED": "1"}}
    if job.submit.image:
        runtime_env["image_uri"] = job.submit.image
    else:
        runtime_env["py_modules"] = [str(Path(ancd_ray.__file__).parent)]
    submission_id = f"{job.name}-{datetime.now():%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
    with _translate_errors(address), _client(address) as client:
        _submit(client, entrypoint=_ENTRYPOINT, runtime_env=runtime_env, submission_id=submission_id)
    return submission_id


def _submit(client: JobSubmissionClient, **job: Any) -> None:
    """Submit a job; retry while the cluster starts, because its dashboard answers before it accepts jobs."""
    silent_until = time.monotonic() + _PATIENCE_S
    while True:
        try:
            client.submit_job(**job)
            return
        except RuntimeError as error:
            if "No available agent" not in str(error) or time.monotonic() > silent_until:
                raise
            time.sleep(_POLL_S)


def follow(address: str, submission_id: str, write: Callable[[str], None]) -> int:
    """Stream the log of a job until it ends.

    The whole log is polled and the new part is written. Unlike a websocket this continues when the dashboard restarts,
    and the logs have only some hundred lines.

    Parameters
    ----------
    address
        URL of Ray's dashboard.
    submission_id
        Result of `send`.
    write
        Is called with each new part of the log.

    Returns
    -------
    int
        Exit code of the job.

    Raises
    ------
    Detached
        Ctrl-C; the job keeps running.
    SubmitError
        There is no such job, or the cluster has not answered for too long.
    """
    shown = 0
    silent_since: float | None = None
    try:
        with _translate_errors(address), _client(address) as client:
            while True:
                try:
                    job = _convert(client.get_job_info(submission_id))
                    log = client.get_job_logs(submission_id)
                    silent_since = None
                except OSError:  # exceptions of requests are OSErrors
                    silent_since = silent_since or time.monotonic()
                    if time.monotonic() - silent_since > _PATIENCE_S:
                        raise
                    time.sleep(_POLL_S)
                    continue
                write(log[shown:])
                shown = len(log)
                if job.is_over:
                    break
                time.sleep(_POLL_S)
    except KeyboardInterrupt:
        raise Detached(
            f"{submission_id} keeps running; `ancd-ray logs -f {submission_id}` follows its log, "
            f"`ancd-ray stop {submission_id}` stops it"
        ) from None
    return _exit_code(job, write)


def status(address: str, submission_id: str) -> RemoteJob:
    """Return the status of a job."""
    with _translate_errors(address), _client(address) as client:
        return _convert(client.get_job_info(submission_id))


def logs(address: str, submission_id: str) -> str:
    """Return the log of a job so far."""
    with _translate_errors(address), _client(address) as client:
        return str(client.get_job_logs(submission_id))


def stop(address: str, submission_id: str) -> bool:
    """Request that a job stops; returns False if it had ended already."""
    with _translate_errors(address), _client(address) as client:
        return bool(client.stop_job(submission_id))


def list_jobs(address: str) -> list[RemoteJob]:
    """List the submitted jobs of a cluster, the newest first."""
    with _translate_errors(address), _client(address) as client:
        submitted = [job for job in client.list_jobs() if job.submission_id]
    return [_convert(job) for job in sorted(submitted, key=lambda job: job.start_time or 0, reverse=True)]


def _serialize(job: Job) -> str:
    """Convert a job to YAML for another machine.

    Raises
    ------
    JobError
        The job refers to relative paths or contains credentials.
    """
    problems = [
        f"{key}: {value!r} is relative; a job on a cluster needs a location that all nodes can access "
        f"({key}=s3://... or an absolute path on shared storage)"
        for key, value in (("data.root", job.data.root), ("output", job.output_root))
        if "://" not in value and not Path(value).is_absolute()
    ]
    document = job.model_dump_json()
    if hide_secrets(document) != document:
        problems.append("a URI of the job has a password or key, which the cluster would show; set it on the nodes")
    if problems:
        raise JobError(*problems)
    return dump_resolved(job)


@contextmanager
def _client(address: str) -> Iterator[JobSubmissionClient]:
    os.environ["RAY_API_SERVER_ADDRESS"] = address  # otherwise RAY_ADDRESS takes precedence over the argument
    if "RAY_AUTH_TOKEN" in os.environ or "RAY_AUTH_TOKEN_PATH" in os.environ:
        os.environ.setdefault("RAY_AUTH_MODE", "token")
    from ray.job_submission import JobSubmissionClient

    for module in ("dashboard.modules.job.sdk", "dashboard.modules.dashboard_sdk", "_private.runtime_env.packaging"):
        logging.getLogger(f"ray.{module}").setLevel(logging.WARNING)  # they log every uploaded package
    yield JobSubmissionClient(address)


@contextmanager
def _translate_errors(address: str) -> Iterator[None]:
    """Convert exceptions of Ray's client to `SubmitError` with a message of one line."""
    from ray.exceptions import AuthenticationError

    try:
        yield
    except AuthenticationError as error:
        raise SubmitError(
            f"{address} requires a token, and got none or a wrong one: set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN "
            "(or RAY_AUTH_TOKEN_PATH)"
        ) from error
    except OSError as error:
        raise SubmitError(f"{address} does not answer; is it the address of Ray's dashboard?") from error
    except (RuntimeError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        if missing := re.search(r"[Jj]ob \S+ does not exist", reason):
            reason = f"{missing[0]}; `ancd-ray list` shows the existing ones"
        raise SubmitError(f"{address}: {reason}") from error


def _convert(job: Any) -> RemoteJob:
    """Convert Ray's record of a job; its times are in milliseconds."""
    end = job.end_time or time.time() * 1000
    seconds = (end - job.start_time) / 1000 if job.start_time else None
    state = str(getattr(job.status, "value", job.status))
    message = (job.message or "").strip().splitlines()
    return RemoteJob(job.submission_id, state, seconds, message[0] if message else None, job.driver_exit_code)


def _exit_code(job: RemoteJob, write: Callable[[str], None]) -> int:
    """Return the exit code of the driver; without one, an exit code for the status, whose reason is written."""
    if job.status == "SUCCEEDED":
        return 0
    if job.exit_code:
        return job.exit_code
    write(f"{job.id}: {job.status.lower()}: {job.message or 'no reason was given'}\n")
    return _STOPPED_EXIT if job.status == "STOPPED" else 1
