"""Jobs on a cluster, over HTTP: Ray's Jobs API runs `ancd-ray submit` beside the cluster's Ray.

The job travels as text in an environment variable, which works with and without a container image; this very package
travels with it unless an image has it. What the images, the results and the model are is the cluster's to read, so
`data.root` and `output` must be places that its nodes see.
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
from ancd_ray.config.load import CREDENTIALS, JobError, resolved

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

JOB_VARIABLE = "ANCD_RAY_JOB"
_ENTRYPOINT = f"printenv {JOB_VARIABLE} | python -m ancd_ray submit - --address auto"
_POLL_S = 1.0
_PATIENCE_S = 120.0  # for a dashboard that does not answer while we follow a job
_STOPPED_EXIT = 130


class SubmitError(AncdError):
    """The cluster cannot be reached, or refuses; one line."""


class Detached(SubmitError):
    """The person at the terminal has left; the job goes on."""

    exit_code = 130


@dataclass(frozen=True)
class RemoteJob:
    """A submitted job as a cluster knows it."""

    id: str
    status: str  # PENDING | RUNNING | STOPPED | SUCCEEDED | FAILED
    seconds: float | None  # of its run so far, or in all
    message: str | None
    exit_code: int | None

    @property
    def is_over(self) -> bool:
        """Whether nothing will change any more."""
        return self.status in ("STOPPED", "SUCCEEDED", "FAILED")


def send(address: str, job: Job) -> str:
    """Submits a job; returns the submission id, under which it is asked for.

    Raises:
        JobError: the job names places that only this machine has.
        SubmitError: the cluster cannot be reached, or refuses.
    """
    text = _travelling(job)
    runtime_env: dict[str, Any] = {"env_vars": {JOB_VARIABLE: text, "PYTHONUNBUFFERED": "1"}}
    if job.submit.image:
        runtime_env["image_uri"] = job.submit.image
    else:
        runtime_env["py_modules"] = [str(Path(ancd_ray.__file__).parent)]
    submission_id = f"{job.name}-{datetime.now():%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
    with _explained(address), _client(address) as client:
        _hand_over(client, entrypoint=_ENTRYPOINT, runtime_env=runtime_env, submission_id=submission_id)
    return submission_id


def _hand_over(client: JobSubmissionClient, **job: Any) -> None:
    """Submits, patiently: a cluster that has just started answers before it can take a job."""
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
    """Streams a job's log to `write` until it ends; returns its exit code.

    The whole log is asked for again and again, and what is new of it is written: unlike a websocket this outlives a
    dashboard that restarts, and our logs are some hundred lines.

    Raises:
        Detached: Ctrl-C; the job goes on.
        SubmitError: there is no such job, or the cluster has been silent for too long.
    """
    shown = 0
    silent_since: float | None = None
    try:
        with _explained(address), _client(address) as client:
            while True:
                try:
                    job = _of(client.get_job_info(submission_id))
                    log = client.get_job_logs(submission_id)
                    silent_since = None
                except OSError:  # requests' errors are OSErrors
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
            f"{submission_id} goes on; `ancd-ray logs -f {submission_id}` follows it, "
            f"`ancd-ray stop {submission_id}` ends it"
        ) from None
    return _exit_code(job, write)


def status(address: str, submission_id: str) -> RemoteJob:
    """How a job is doing."""
    with _explained(address), _client(address) as client:
        return _of(client.get_job_info(submission_id))


def logs(address: str, submission_id: str) -> str:
    """All that a job has printed so far."""
    with _explained(address), _client(address) as client:
        return str(client.get_job_logs(submission_id))


def stop(address: str, submission_id: str) -> bool:
    """Asks a job to end; False if it was over already."""
    with _explained(address), _client(address) as client:
        return bool(client.stop_job(submission_id))


def list_jobs(address: str) -> list[RemoteJob]:
    """The submitted jobs of a cluster, the newest first."""
    with _explained(address), _client(address) as client:
        submitted = [job for job in client.list_jobs() if job.submission_id]
    return [_of(job) for job in sorted(submitted, key=lambda job: job.start_time or 0, reverse=True)]


def _travelling(job: Job) -> str:
    """The job as text, its places being such that another machine can read them.

    Raises:
        JobError: they are not, or carry a password.
    """
    problems = [
        f"{key}: {value!r} is relative; a job that is sent to a cluster names places that all nodes see "
        f"({key}=s3://... or an absolute path on shared storage)"
        for key, value in (("data.root", job.data.root), ("output", job.output_root))
        if "://" not in value and not Path(value).is_absolute()
    ]
    if CREDENTIALS.search(job.model_dump_json()):
        problems.append("a URI of the job has a password in it, which the cluster would show; give it to its nodes")
    if problems:
        raise JobError(*problems)
    return resolved(job)


@contextmanager
def _client(address: str) -> Iterator[JobSubmissionClient]:
    os.environ["RAY_API_SERVER_ADDRESS"] = address  # otherwise Ray lets RAY_ADDRESS overrule what it is told
    if "RAY_AUTH_TOKEN" in os.environ or "RAY_AUTH_TOKEN_PATH" in os.environ:
        os.environ.setdefault("RAY_AUTH_MODE", "token")
    from ray.job_submission import JobSubmissionClient

    for module in ("dashboard.modules.job.sdk", "dashboard.modules.dashboard_sdk", "_private.runtime_env.packaging"):
        logging.getLogger(f"ray.{module}").setLevel(logging.WARNING)  # they tell of every package they upload
    yield JobSubmissionClient(address)


@contextmanager
def _explained(address: str) -> Iterator[None]:
    """Turns what Ray's client raises into one line."""
    from ray.exceptions import AuthenticationError

    try:
        yield
    except AuthenticationError as error:
        raise SubmitError(
            f"{address} wants a token, and has got none or a wrong one: set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN "
            "(or RAY_AUTH_TOKEN_PATH)"
        ) from error
    except OSError as error:
        raise SubmitError(f"{address} does not answer; is it the address of Ray's dashboard?") from error
    except (RuntimeError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        if missing := re.search(r"[Jj]ob \S+ does not exist", reason):
            reason = f"{missing[0]}; `ancd-ray list` shows which do"
        raise SubmitError(f"{address}: {reason}") from error


def _of(job: Any) -> RemoteJob:
    """Ray's own record of a job, whose times are in milliseconds."""
    end = job.end_time or time.time() * 1000
    seconds = (end - job.start_time) / 1000 if job.start_time else None
    state = str(getattr(job.status, "value", job.status))
    message = (job.message or "").strip().splitlines()
    return RemoteJob(job.submission_id, state, seconds, message[0] if message else None, job.driver_exit_code)


def _exit_code(job: RemoteJob, write: Callable[[str], None]) -> int:
    """The driver's exit code; where it has none, one that says how it ended."""
    if job.status == "SUCCEEDED":
        return 0
    if job.exit_code:
        return job.exit_code
    write(f"{job.id}: {job.status.lower()}: {job.message or 'no reason was given'}\n")
    return _STOPPED_EXIT if job.status == "STOPPED" else 1
