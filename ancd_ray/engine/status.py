"""Status of the steps of a plan: what a run would do with each of them, and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ancd_ray.data.store import Folder
from ancd_ray.engine.integrity import glance_at_folder
from ancd_ray.engine.newest import History
from ancd_ray.engine.stage import Step


@dataclass(frozen=True)
class PlanStatus:
    """Status of a step: `cached`, `continue` or `run`, why, and how many shards of an unfinished one are done."""

    step: Step
    state: str
    why: str
    shards: int = 0


def plan_status(steps: Sequence[Step], root: Folder) -> list[PlanStatus]:
    """Determine what a run would do with each step, and why; results are looked at, not read."""
    found: list[PlanStatus] = []
    history = History(root)
    for step in steps:
        earlier = glance_at_folder(step.folder(root))
        if earlier.output:
            found.append(PlanStatus(step, "cached", ""))
            continue
        damage = [f"{earlier.damage[0]}{' (and others)' if earlier.damage[1:] else ''}"] if earlier.damage else []
        if earlier.shards:
            why = "; ".join([*damage, f"{len(earlier.shards)} shards are done"])
            found.append(PlanStatus(step, "continue", why, len(earlier.shards)))
        else:
            found.append(PlanStatus(step, "run", damage[0] if damage else _explain(history, step)))
    return found


def list_unfinished(steps: Sequence[Step], root: Folder) -> list[Step]:
    """List the steps that have no result, or one with missing files."""
    return [step for step in steps if not glance_at_folder(step.folder(root)).output]


def _explain(history: History, step: Step) -> str:
    """Explain why a step runs, by comparison with the newest result of the same step and product."""
    made = history.find(step.name, step.product)
    if made is None:
        return "never done"
    if made["version"] != step.stage.version:
        return f"this version of ancd-ray does {step.name} differently"
    if changed := _list_differences(made["config"], step.stage.hashed):
        return f"{', '.join(changed)} changed"
    sources = [
        role
        for role, ref in step.inputs.items()
        if made["inputs"].get(role, {}).get("fingerprint") != ref.step.fingerprint
    ]
    return f"{', '.join(sources)} changed" if sources else "its result was deleted"


def _list_differences(old: Any, new: Any, where: str = "") -> list[str]:
    """List the keys in which two configs differ."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys: Sequence[str] = sorted({*old, *new})
        return [
            line for key in keys for line in _list_differences(old.get(key), new.get(key), f"{where}.{key}".strip("."))
        ]
    same = old == new or (isinstance(old, list | tuple) and isinstance(new, list | tuple) and list(old) == list(new))
    return [] if same else [where]
