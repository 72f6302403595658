"""The cluster files, checked without a cluster: against Ray's, Kubernetes' and KubeRay's schemas, and each other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import ray
import yaml
from dockerfile_parse import DockerfileParser

from ancd_ray import __version__
from ancd_ray.config.load import load
from tests.cluster.kuberay import RAY_JOB
from tests.conftest import REPO

CLUSTER = REPO / "cluster"


def _yaml(name: str) -> Any:
    return yaml.safe_load((CLUSTER / name).read_text("utf-8"))


def _pods() -> list[tuple[str, Any]]:
    cluster = _yaml("rayjob.yaml")["spec"]["rayClusterSpec"]
    groups = {"head": cluster["headGroupSpec"], **{group["groupName"]: group for group in cluster["workerGroupSpecs"]}}
    return [(name, group["template"]) for name, group in groups.items()]


def test_ray_up_file() -> None:
    schema = json.loads((Path(ray.__file__).parent / "autoscaler" / "ray-schema.json").read_text("utf-8"))
    config = _yaml("ray-cluster.yaml")
    jsonschema.validate(config, schema)
    assert config["head_node_type"] in config["available_node_types"]
    starts = [*config["head_start_ray_commands"], *config["worker_start_ray_commands"]]
    assert all(command.startswith("RAY_AUTH_MODE=token ray ") for command in starts)
    assert "--dashboard-host=127.0.0.1" in config["head_start_ray_commands"][-1]
    assert any("auth_token" in source for source in config["file_mounts"])


def test_ray_job() -> None:
    manifest = _yaml("rayjob.yaml")
    jsonschema.validate(manifest, RAY_JOB)
    cluster = manifest["spec"]["rayClusterSpec"]
    assert cluster["authOptions"] == {"mode": "token"}
    for group in cluster["workerGroupSpecs"]:
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]


@pytest.mark.parametrize(("name", "template"), _pods(), ids=[name for name, _ in _pods()])
def test_pods_of_the_ray_job(name: str, template: Any) -> None:
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": template["spec"]}
    kubernetes_validate.validate(pod, kubernetes_validate.latest_version(), strict=True)
    mounted = {mount["name"] for box in pod["spec"]["containers"] for mount in box["volumeMounts"]}
    assert mounted <= {volume["name"] for volume in pod["spec"]["volumes"]}


def test_a_wrong_field_would_be_noticed() -> None:
    manifest = _yaml("rayjob.yaml")
    manifest["spec"]["backofLimit"] = 2
    with pytest.raises(jsonschema.ValidationError, match="backofLimit"):
        jsonschema.validate(manifest, RAY_JOB)
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": {"containers": [{"nam": "b"}]}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(pod, kubernetes_validate.latest_version(), strict=True)


def test_the_job_that_the_ray_job_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = _yaml("rayjob.yaml")["spec"]
    for name, value in yaml.safe_load(spec["runtimeEnvYAML"])["env_vars"].items():
        monkeypatch.setenv(name, value)
    program, verb, path, *options = spec["entrypoint"].split()
    assert [program, verb, *options] == ["ancd-ray", "submit", "--address", "auto"]
    job = load(REPO / "jobs" / Path(path).name)
    assert job.output_root.startswith("s3://")
    assert job.data.root.startswith("s3://")


def test_dockerfile() -> None:
    parsed = DockerfileParser(fileobj=(CLUSTER / "Dockerfile").open("rb"))
    steps = [step for step in parsed.structure if step["instruction"] != "COMMENT"]
    known = {"ARG", "FROM", "WORKDIR", "COPY", "RUN", "ENV", "USER"}
    assert {step["instruction"] for step in steps} <= known
    assert [step["value"] for step in steps if step["instruction"] == "USER"][-1] == "ray"
    for step in steps:
        if step["instruction"] == "COPY":
            *sources, _ = [word for word in step["value"].split() if not word.startswith("--")]
            assert all((REPO / source).exists() for source in sources), step["value"]
    assert parsed.envs["RAY_AUTH_MODE"] == "token"


def test_everything_names_one_ray_and_one_image() -> None:
    dockerfile = (CLUSTER / "Dockerfile").read_text("utf-8")
    job, launcher = _yaml("rayjob.yaml"), _yaml("ray-cluster.yaml")
    version = job["spec"]["rayClusterSpec"]["rayVersion"]
    assert f"rayproject/ray:{version}-" in dockerfile
    assert f'"ray[default]=={version.rpartition(".")[0]}.*"' in dockerfile
    images = {box["image"] for _, template in _pods() for box in template["spec"]["containers"]}
    assert images == {launcher["docker"]["image"]}
    assert images == {f"registry.example.com/ancd-ray:{__version__}"}
