"""Tracking in MLflow: a run per job, with a child run per product; only the driver writes.

`store.py` is where runs go, `runs.py` what is logged of a discovery, `served.py` its models, `classifications.py` what
is logged of a job of `mode: classify`.
"""

from ancd_ray.jobs.tracking.classifications import log_classification
from ancd_ray.jobs.tracking.runs import log, log_figures, start_child_run, start_parent_run
from ancd_ray.jobs.tracking.served import download_model, log_model, register, save_pyfunc
from ancd_ray.jobs.tracking.store import RegistryAway, TrackingProblem, TrackingStore, attempt, find_store

__all__ = [
    "RegistryAway",
    "TrackingProblem",
    "TrackingStore",
    "attempt",
    "download_model",
    "find_store",
    "log",
    "log_classification",
    "log_figures",
    "log_model",
    "register",
    "save_pyfunc",
    "start_child_run",
    "start_parent_run",
]
