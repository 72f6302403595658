"""What a RayJob of KubeRay (ray.io/v1) may hold, as far as our manifest uses it; unknown fields are errors.

Written after KubeRay's API reference. The pods inside are checked against Kubernetes' own schema, not here.
"""

from __future__ import annotations

from typing import Any


def _closed(required: list[str], **properties: Any) -> dict[str, Any]:
    return {"type": "object", "additionalProperties": False, "required": required, "properties": properties}


_TEXT, _WHOLE, _FLAG = {"type": "string"}, {"type": "integer", "minimum": 0}, {"type": "boolean"}
_START_PARAMS = {"type": "object", "additionalProperties": _TEXT}
_TEMPLATE = {"type": "object", "required": ["spec"]}

_CLUSTER = _closed(
    ["headGroupSpec"],
    rayVersion=_TEXT,
    enableInTreeAutoscaling=_FLAG,
    autoscalerOptions={"type": "object"},
    authOptions=_closed(["mode"], mode={"enum": ["disabled", "token"]}, secretName=_TEXT),
    headGroupSpec=_closed(
        ["template"],
        template=_TEMPLATE,
        rayStartParams=_START_PARAMS,
        serviceType={"enum": ["ClusterIP", "NodePort", "LoadBalancer"]},
        enableIngress=_FLAG,
    ),
    workerGroupSpecs={
        "type": "array",
        "items": _closed(
            ["groupName", "template"],
            groupName=_TEXT,
            replicas=_WHOLE,
            minReplicas=_WHOLE,
            maxReplicas=_WHOLE,
            numOfHosts=_WHOLE,
            idleTimeoutSeconds=_WHOLE,
            rayStartParams=_START_PARAMS,
            template=_TEMPLATE,
        ),
    },
)

RAY_JOB = _closed(
    ["apiVersion", "kind", "metadata", "spec"],
    apiVersion={"const": "ray.io/v1"},
    kind={"const": "RayJob"},
    metadata=_closed(["name"], name=_TEXT, namespace=_TEXT, labels={"type": "object"}, annotations={"type": "object"}),
    spec=_closed(
        ["entrypoint", "rayClusterSpec"],
        entrypoint=_TEXT,
        runtimeEnvYAML=_TEXT,
        submissionMode={"enum": ["K8sJobMode", "HTTPMode", "SidecarMode", "InteractiveMode"]},
        backoffLimit=_WHOLE,
        activeDeadlineSeconds={"type": "integer", "minimum": 1},
        shutdownAfterJobFinishes=_FLAG,
        ttlSecondsAfterFinished=_WHOLE,
        suspend=_FLAG,
        jobId=_TEXT,
        entrypointNumCpus={"type": "number"},
        entrypointNumGpus={"type": "number"},
        submitterPodTemplate=_TEMPLATE,
        rayClusterSpec=_CLUSTER,
    ),
)
