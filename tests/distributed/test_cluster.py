"""A pass with a model over a cluster of three nodes that loses one of them midway."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from ancd_ray.config.job import Job
from ancd_ray.config.load import dump_resolved
from ancd_ray.data.demo.generate import generate
from tests.conftest import REPO, Ran
from tests.nights import TABLES, make_job, read_published, run_night

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
IMAGES = 120  # eight shards: more than the nodes have CPUs


@pytest.fixture
def cluster() -> Iterator[Any]:
    """A cluster of three nodes of this machine, a CPU each."""
    from ray.cluster_utils import Cluster

    node = {"num_cpus": 1, "num_gpus": 0, "object_store_memory": 80 << 20}
    started = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
    try:
        for _ in range(2):
            started.add_node(**node)
        yield started
    finally:
        started.shutdown()


def _list_processes(node: Any) -> list[psutil.Process]:
    """The raylet of a node, and its workers."""
    raylet = psutil.Process(node.all_processes["raylet"][0].process.pid)
    return [raylet, *raylet.children(recursive=True)]


def _is_working(node: Any) -> bool:
    for process in _list_processes(node):
        with suppress(psutil.NoSuchProcess):
            if any("ray::Map" in part or "ray::_map_task" in part for part in process.cmdline()):
                return True
    return False


def test_a_node_is_lost_midway(clustered: tuple[Job, Ran], cluster: Any, tmp_path: Path) -> None:
    archive, output, file = tmp_path / "archive", tmp_path / "out", tmp_path / "job.yaml"
    generate(archive, images=IMAGES, normals=1, base=5, seed=1, size=96)
    job = make_job(archive, output, clustered[1].folder, resources={"in_process_below": 0})
    file.write_text(dump_resolved(job))
    command = [sys.executable, "-m", "ancd_ray", "submit", str(file), "--address", cluster.address]
    process = subprocess.Popen(command, cwd=REPO, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 400
    while not (list(output.glob("steps/*/*/shards/*.json")) and any(map(_is_working, cluster.worker_nodes))):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    lost = next(node for node in cluster.worker_nodes if _is_working(node))
    for each in _list_processes(lost):  # as a machine that loses its power
        with suppress(psutil.NoSuchProcess):
            each.kill()
    assert not list(output.glob("steps/*/*/manifest.json")), "the pass was over too soon"
    said, shown = process.communicate(timeout=600)
    assert process.returncode == 0, shown
    cluster.remove_node(lost, allow_graceful=False)

    alone = make_job(archive, tmp_path / "alone", clustered[1].folder)
    folder, summary = run_night(alone)
    assert summary["images"] == IMAGES
    assert Path(said.strip().splitlines()[-1]).name == folder.path.name
    for table in TABLES:
        assert read_published(output, table) == read_published(tmp_path / "alone", table)
