"""Tracking in MLflow: a run per job, with a child run per product; only the driver writes.

`store.py` is where runs go, `runs.py` what is logged of a discovery, `served.py` its models, `classifications.py` what
is logged of a job of `mode: classify`. `registry.py` has the registered models, `card.py` what is said about them, and
`compared.py` two of them side by side, `flow.py` where the regions of one are in the other.
"""

from ancd_ray.jobs.tracking.card import COLUMNS, Card, make_card
from ancd_ray.jobs.tracking.classifications import log_classification
from ancd_ray.jobs.tracking.discovery import open_discovery, read_card
from ancd_ray.jobs.tracking.registry import Version, add_version
from ancd_ray.jobs.tracking.runs import (
    find_logged,
    get_experiment,
    log,
    log_figures,
    start_child_run,
    start_parent_run,
)
from ancd_ray.jobs.tracking.served import LoggedModel, download_model, log_model, save_pyfunc
from ancd_ray.jobs.tracking.store import RegistryAway, TrackingProblem, TrackingStore, attempt, find_store, open_store

__all__ = [
    "COLUMNS",
    "Card",
    "LoggedModel",
    "RegistryAway",
    "TrackingProblem",
    "TrackingStore",
    "Version",
    "add_version",
    "attempt",
    "download_model",
    "find_logged",
    "find_store",
    "get_experiment",
    "log",
    "log_classification",
    "log_figures",
    "log_model",
    "make_card",
    "open_discovery",
    "open_store",
    "read_card",
    "save_pyfunc",
    "start_child_run",
    "start_parent_run",
]
