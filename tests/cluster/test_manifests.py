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


def _documents(name: str) -> dict[str, Any]:
    """The documents of a file by kind."""
    return {document["kind"]: document for document in yaml.safe_load_all((CLUSTER / name).read_text("utf-8"))}


CRON = _documents("cronjob.yaml")
RAY_JOBS = {"once": _yaml("rayjob.yaml"), "nightly": yaml.safe_load(CRON["ConfigMap"]["data"]["rayjob.yaml"])}


def _pods() -> list[tuple[str, Any]]:
    pods = []
    for name, manifest in RAY_JOBS.items():
        cluster = manifest["spec"]["rayClusterSpec"]
        pods.append((f"{name}-head", cluster["headGroupSpec"]["template"]))
        pods += [(f"{name}-{group['groupName']}", group["template"]) for group in cluster["workerGroupSpecs"]]
    return pods


def test_ray_up_file() -> None:
    schema = json.loads((Path(ray.__file__).parent / "autoscaler" / "ray-schema.json").read_text("utf-8"))
    config = _yaml("ray-cluster.yaml")
    jsonschema.validate(config, schema)
    assert config["head_node_type"] in config["available_node_types"]
    starts = [*config["head_start_ray_commands"], *config["worker_start_ray_commands"]]
    assert all(command.startswith("RAY_AUTH_MODE=token ray ") for command in starts)
    assert "--dashboard-host=127.0.0.1" in config["head_start_ray_commands"][-1]
    assert any("auth_token" in source for source in config["file_mounts"])


@pytest.mark.parametrize("manifest", RAY_JOBS.values(), ids=RAY_JOBS)
def test_ray_job(manifest: Any) -> None:
    jsonschema.validate(manifest, RAY_JOB)
    cluster = manifest["spec"]["rayClusterSpec"]
    assert cluster["authOptions"] == {"mode": "token"}
    for group in cluster["workerGroupSpecs"]:
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]


@pytest.mark.parametrize(("name", "template"), _pods(), ids=[name for name, _ in _pods()])
def test_pods_of_ray_jobs(name: str, template: Any) -> None:
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
    copied = set()
    for step in steps:
        if step["instruction"] == "COPY":
            *sources, _ = [word for word in step["value"].split() if not word.startswith("--")]
            assert all((REPO / source).exists() for source in sources), step["value"]
            copied |= set(sources)
    assert {"jobs", "cluster/run_rayjob.py"} <= copied, "what manifests name"
    assert parsed.envs["RAY_AUTH_MODE"] == "token"


def test_everything_names_one_ray_and_one_image() -> None:
    dockerfile = (CLUSTER / "Dockerfile").read_text("utf-8")
    launcher = _yaml("ray-cluster.yaml")
    (version,) = {job["spec"]["rayClusterSpec"]["rayVersion"] for job in RAY_JOBS.values()}
    assert f"rayproject/ray:{version}-" in dockerfile
    assert f'"ray[default]=={version.rpartition(".")[0]}.*"' in dockerfile
    night = CRON["CronJob"]["spec"]["jobTemplate"]["spec"]["template"]
    templates = [night, *(template for _, template in _pods())]
    images = {box["image"] for template in templates for box in template["spec"]["containers"]}
    assert images == {launcher["docker"]["image"]}
    assert images == {f"registry.example.com/ancd-ray:{__version__}"}


@pytest.mark.parametrize("document", CRON.values(), ids=CRON)
def test_documents_of_the_cron_job(document: Any) -> None:
    kubernetes_validate.validate(document, kubernetes_validate.latest_version(), strict=True)
    assert document["metadata"]["name"] == "ancd-ray-night"


def test_nights_of_the_cron_job() -> None:
    spec, manifest = CRON["CronJob"]["spec"], RAY_JOBS["nightly"]
    job = spec["jobTemplate"]["spec"]
    pod = job["template"]["spec"]
    (container,) = pod["containers"]
    assert spec["concurrencyPolicy"] == "Forbid"
    assert job["activeDeadlineSeconds"] > manifest["spec"]["activeDeadlineSeconds"]
    assert manifest["spec"]["entrypoint"] == "ancd-ray submit /opt/ancd-ray/jobs/nightly.yaml --address auto"
    (failure, _) = job["podFailurePolicy"]["rules"]
    assert failure["onExitCodes"] == {"containerName": container["name"], "operator": "In", "values": [2, 3]}
    assert manifest["spec"]["backoffLimit"] == 0, "a RayJob would try again whatever the exit code is"
    _, script, mounted = container["command"]
    assert (CLUSTER / Path(script).name).is_file()
    assert mounted == f"{container['volumeMounts'][0]['mountPath']}/{next(iter(CRON['ConfigMap']['data']))}"
    assert pod["volumes"][0]["configMap"]["name"] == CRON["ConfigMap"]["metadata"]["name"]
    longest = f"{CRON['CronJob']['metadata']['name']}-29931240-10"
    assert len(longest) <= 47, "KubeRay's limit"


def test_rights_of_the_cron_job() -> None:
    assert CRON["Role"]["rules"] == [{"apiGroups": ["ray.io"], "resources": ["rayjobs"], "verbs": ["create", "get"]}]
    account = CRON["ServiceAccount"]["metadata"]["name"]
    assert CRON["RoleBinding"]["subjects"] == [{"kind": "ServiceAccount", "name": account}]
    assert CRON["RoleBinding"]["roleRef"]["name"] == CRON["Role"]["metadata"]["name"]
    assert CRON["CronJob"]["spec"]["jobTemplate"]["spec"]["template"]["spec"]["serviceAccountName"] == account
