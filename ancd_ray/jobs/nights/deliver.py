"""Delivers a night: files in the run folder, the index of all nights, and a webhook."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from http.client import HTTPException
from typing import Any

from ancd_ray.config.errors import first_line
from ancd_ray.config.secrets import hide_secrets
from ancd_ray.data.store import Folder
from ancd_ray.jobs.nights.model import Night
from ancd_ray.jobs.nights.render import render, render_index

NIGHT, PAGE = "night.json", "night.html"  # in the run folder
FOLDER, INDEX = "nights", "index.html"  # in the output folder
_TRIES, _TIMEOUT_S, _PAUSE_S = 3, 10.0, 1.0


def is_delivered(run_folder: Folder) -> bool:
    """Whether the night of a run is delivered; a job that finds nothing new has the run folder of the one before."""
    return run_folder.exists(NIGHT)


def deliver(night: Night, root: Folder, run_folder: Folder, webhook: str | None, warn: Callable[[str], None]) -> None:
    """Call the webhook, if there is one, and write the night; `night.json` last, which says that it is delivered.

    A job that is killed before delivers again: at least once.

    Parameters
    ----------
    night
        The night.
    root, run_folder
        Folders of the output, and of the run.
    webhook
        URL that gets the night as JSON if it has alerts.
    warn
        Is told in one line of a webhook that does not answer.

    Raises
    ------
    StoreError
        The files cannot be written.
    """
    document = night.describe()
    run_folder.write(PAGE, render(night).encode())
    (root / FOLDER).write_json(f"{night.run}.json", document)
    write_index(root)
    if webhook and night.alerts and (problem := _post(webhook, document)):
        warn(f"alerts.webhook: {hide_secrets(problem)}; the night is in {run_folder}/{NIGHT}")
    run_folder.write_json(NIGHT, document)


def write_index(root: Folder) -> None:
    """Write the list of nights of an output folder, if it has any; those whose run was cleaned away have no link.

    Raises
    ------
    StoreError
        The file cannot be written.
    """
    if nights := _read_nights(root):
        (root / FOLDER).write(INDEX, render_index(nights).encode())


def _read_nights(root: Folder) -> list[dict[str, Any]]:
    """Read all nights, with the links of their reports; files that are damaged are left out."""
    folder, runs = root / FOLDER, set((root / "runs").names())
    found: list[dict[str, Any]] = []
    for name in folder.names():
        if name.endswith(".json"):
            with suppress(ValueError, OSError):
                night = folder.read_json(name)
                if isinstance(night, dict) and {"started_at", "run", "products"} <= night.keys():
                    found.append({**night, "href": f"../runs/{night['run']}/{PAGE}" if night["run"] in runs else None})
    return found


def _post(url: str, document: object) -> str | None:
    """Post JSON; returns in one line why it was not taken, after three tries."""
    body = json.dumps(document).encode()
    problem = None
    for attempt in range(_TRIES):
        if attempt:
            time.sleep(_PAUSE_S * attempt)
        try:
            request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
            with urllib.request.urlopen(request, timeout=_TIMEOUT_S):
                return None
        except (urllib.error.URLError, HTTPException, OSError, ValueError) as error:
            problem = first_line(error)
    return problem
