"""Stages: what they hash is what they execute, how they are wired, and that a change of code raises their version."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import FrozenInstanceError, dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest

from ancd_ray.config.job import Job
from ancd_ray.engine.artifacts import Figures, Table
from ancd_ray.engine.outputs import Result
from ancd_ray.engine.stage import Flow, Stage, unhashed
from ancd_ray.jobs.plan import make
from tests.conftest import REPO
from tests.engine.digests import RECORD, bare, current


def test_a_stage_whose_source_changed_has_a_new_version() -> None:
    recorded, found = json.loads(RECORD.read_text()), current()
    assert set(recorded) == set(found), "record the stages: python -m tests.engine.digests"
    for name, (version, digest) in found.items():
        before, of_source = recorded[name]
        if digest != of_source:
            assert version != before, (
                f"the source of stage {name} changed: raise its `version` if results change, then record it with "
                "`python -m tests.engine.digests`"
            )
        assert [version, digest] == [before, of_source], f"record stage {name}: python -m tests.engine.digests"


def test_prose_is_no_change() -> None:
    code = 'def f(x):\n    """Doc."""\n    # why\n    return x  # that\n'
    assert bare(code) == bare('def f(x):\n    """Other\n    doc."""\n\n    return x\n') == "def f(x):\n    return x"
    assert bare(code) != bare(code.replace("return x", "return 2 * x"))


@dataclass(frozen=True)
class _Source(Stage):
    name: ClassVar[str] = "source"
    version: ClassVar[int] = 1

    @dataclass(frozen=True)
    class In:
        pass

    class Out:
        images: Table

    size: int
    speed: int = unhashed(1)

    def run(self, context: Any, inputs: Any) -> Result:
        return Result({})


@dataclass(frozen=True)
class _Sink(Stage):
    name: ClassVar[str] = "sink"
    version: ClassVar[int] = 1

    @dataclass(frozen=True)
    class In:
        images: Table
        more: Table | None = None

    class Out:
        figures: Figures

    def run(self, context: Any, inputs: Any) -> Result:
        return Result({})


def test_fields_are_hashed_unless_declared_otherwise() -> None:
    def fingerprint(stage: Stage, product: str = "p") -> str:
        return Flow(product).add(stage).fingerprint

    assert fingerprint(_Source(1)) == fingerprint(_Source(1, speed=9))
    assert len({fingerprint(_Source(1)), fingerprint(_Source(2)), fingerprint(_Source(1), "q")}) == 3
    with pytest.raises(FrozenInstanceError):
        _Source(1).size = 2  # type: ignore[misc]


def test_artifacts_are_wired_by_role() -> None:
    flow = Flow("p")
    source = flow.add(_Source(1))
    sink = flow.add(_Sink())
    assert {role: ref.step for role, ref in sink.inputs.items()} == {"images": source}
    assert set(flow.artifacts) == {"images", "figures"}
    with pytest.raises(AssertionError, match="made twice"):
        flow.add(_Source(2))
    with pytest.raises(AssertionError, match="sink needs images"):
        Flow("q").add(_Sink())
    other = Flow("q")
    other.add(_Source(1))
    assert other.add(_Sink(), more=flow.artifacts["images"]).fingerprint != sink.fingerprint
    with pytest.raises(AssertionError, match="reads more as table"):
        Flow("r").add(_Sink(), images=flow.artifacts["images"], more=flow.artifacts["figures"])


def test_a_step_that_travels_has_no_listing_and_the_same_fingerprint(
    small_job: Callable[..., Job], tmp_path: Path
) -> None:
    for step in make(small_job(tmp_path)).steps:
        travelling = step.for_travel()
        assert travelling.fingerprint == step.fingerprint
        assert "demo" not in repr(travelling)


def test_plans_and_errors_come_without_heavy_imports(demo_root: Path, tmp_path: Path) -> None:
    job = tmp_path / "job.yaml"
    job.write_text(
        f"name: light\ndata:\n  root: {demo_root}\n  products: [{{name: tile, layout: mvtec, path: tile}}]\n"
        f"detector: {{name: patchcore}}\noutput: {tmp_path}/out\n"
    )
    program = (
        "import sys\n"
        "from click.testing import CliRunner\n"
        "from ancd_ray.cli.main import main\n"
        "for arguments, code in ((['plan', JOB], 0), (['plan', JOB, 'train.lamda=1'], 2), "
        "(['submit', JOB, 'train.lamda=1'], 2), (['submit', JOB, 'data.root=/nowhere'], 2), (['schema'], 0)):\n"
        "    result = CliRunner().invoke(main, arguments)\n"
        "    assert result.exit_code == code, (arguments, result.output, result.exception)\n"
        "    heavy = [m for m in ('torch', 'scipy', 'sklearn', 'ray', 'mlflow') if m in sys.modules]\n"
        "    assert not heavy, (arguments, heavy)\n"
    )
    command = [sys.executable, "-c", program.replace("JOB", repr(str(job)))]
    ended = subprocess.run(command, cwd=REPO, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 0, ended.stderr
