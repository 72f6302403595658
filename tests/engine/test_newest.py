"""Why a step has to run is said by the newest result of its product, found without reading the others."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from ancd_ray.config.job import Job
from ancd_ray.data.store import Folder
from ancd_ray.engine import newest
from ancd_ray.engine.newest import History, record_newest
from ancd_ray.engine.outputs import Output
from ancd_ray.engine.stage import Step
from ancd_ray.engine.status import plan_status
from ancd_ray.jobs.plan import make

MakeJob = Callable[..., Job]


def _finish(root: Folder, step: Step, created_at: str, **changed: object) -> dict[str, object]:
    """Leave a manifest as a run does, in a folder of its own."""
    manifest = {
        "step": step.name,
        "product": step.product,
        "fingerprint": f"{hash(created_at) & 0xFFFFFFFF:016x}",
        "version": step.stage.version,
        "config": step.stage.hashed,
        "inputs": {role: {"fingerprint": ref.step.fingerprint} for role, ref in step.inputs.items()},
        "tables": {},
        "values": {},
        "created_at": created_at,
        **changed,
    }
    (root / "steps" / step.name / f"{step.product}-{manifest['fingerprint']}").write_json("manifest.json", manifest)
    return manifest


def _step(job: Job, name: str) -> Step:
    return next(step for step in make(job).steps if (step.product, step.name) == ("tile", name))


def _why(job: Job, name: str) -> str:
    (status,) = plan_status([_step(job, name)], make(job).root)
    return status.why


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The folders whose manifests were read for an explanation."""
    folders: list[str] = []

    class Counted:
        @staticmethod
        def find(folder: Folder) -> Output | None:
            folders.append(folder.uri)
            return Output.find(folder)

    monkeypatch.setattr(newest, "Output", Counted)
    return folders


def test_the_newest_is_found_without_reading_manifests(small_job: MakeJob, tmp_path: Path, asked: list[str]) -> None:
    job = small_job(tmp_path / "out")
    root = make(job).root
    for night in range(9):
        record_newest(root, _finish(root, _step(job, "merge"), f"2026-01-0{night + 1}"))
    assert _why(small_job(tmp_path / "out", "merge.tau_alpha=10"), "merge") == "merge.tau_alpha changed"
    assert not asked
    assert _why(job, "merge") == "its result was deleted"


@pytest.mark.parametrize("damage", [None, b"", b"{}", b"[1]", b'{"config": '])
def test_without_it_all_manifests_are_read(
    small_job: MakeJob, tmp_path: Path, asked: list[str], damage: bytes | None
) -> None:
    job, other = small_job(tmp_path / "out"), small_job(tmp_path / "out", "merge.rule=score")
    root = make(job).root
    record_newest(root, _finish(root, _step(other, "merge"), "2026-01-02"))
    _finish(root, _step(job, "merge"), "2026-01-01")
    file = tmp_path / "out" / "newest" / "merge" / "tile.json"
    if damage is None:
        file.unlink()
    else:
        file.write_bytes(damage)
    assert _why(job, "merge") == "merge.rule changed", "compared with the newest of both"
    assert len(asked) == 2


def test_a_product_whose_name_starts_like_another_one_is_not_taken_for_it(small_job: MakeJob, tmp_path: Path) -> None:
    job = small_job(tmp_path / "out")
    root = make(job).root
    _finish(root, _step(job, "merge"), "2026-01-01")
    assert History(root).find("merge", "tile") is not None
    assert History(root).find("merge", "til") is None
    assert History(root).find("merge", "tile-1") is None


def test_every_step_of_a_run_leaves_one(finished: tuple[Job, object]) -> None:
    root = Path(finished[0].output_root)
    for manifest in root.glob("steps/*/*/manifest.json"):
        document = json.loads(manifest.read_text())
        pointer = json.loads((root / "newest" / document["step"] / f"{document['product']}.json").read_text())
        assert pointer == {key: document[key] for key in ("fingerprint", "version", "config", "inputs")}
        assert document["sizes"].keys() >= document["files"].keys()
        assert all((manifest.parent / name).stat().st_size == size for name, size in document["sizes"].items())
