"""Creates a RayJob in Kubernetes, waits for its end, and exits with the exit code of its driver.

    python run_rayjob.py rayjob.yaml

It is what the pod of `cronjob.yaml` runs: while it waits, the CronJob knows that the night is not over. The name of a
RayJob is that of the Job of this pod, in which the CronJob has put the date, and the number of the try. The Job owns
it, so that both are deleted together.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import ssl
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
POLL_S, SILENT_S = 15.0, 600.0  # a server that does not answer for so long is given up
_EXIT_CODE = re.compile(r"failed with exit code (\d+)")  # in the message of Ray
ENDED = ("Complete", "Failed")  # values of jobDeploymentStatus
_REFUSED = (400, 401, 403, 404, 409, 422)


@dataclass(frozen=True)
class Cluster:
    """The API of Kubernetes, as a pod reaches it.

    Parameters
    ----------
    server
        Address.
    namespace
        Namespace of the pod.
    token
        File with the token of the service account, which changes every hour.
    authority
        File with the certificates that the server is checked with; None without TLS.
    """

    server: str
    namespace: str
    token: Path
    authority: Path | None

    @classmethod
    def find(cls) -> Cluster:
        """Find the cluster that this pod runs in."""
        server = f"https://{os.environ['KUBERNETES_SERVICE_HOST']}:{os.environ['KUBERNETES_SERVICE_PORT']}"
        return cls(server, (ACCOUNT / "namespace").read_text().strip(), ACCOUNT / "token", ACCOUNT / "ca.crt")

    def create(self, document: dict[str, Any]) -> None:
        """Create a RayJob."""
        self._request("POST", "", document)

    def read_status(self, name: str) -> dict[str, Any]:
        """Read the status of a RayJob; empty until KubeRay has seen it."""
        return dict(self._request("GET", f"/{name}").get("status") or {})

    def _request(self, method: str, path: str, document: dict[str, Any] | None = None) -> dict[str, Any]:
        request = urllib.request.Request(
            f"{self.server}/apis/ray.io/v1/namespaces/{self.namespace}/rayjobs{path}",
            data=None if document is None else json.dumps(document).encode(),
            headers={"Authorization": f"Bearer {self.token.read_text().strip()}", "Content-Type": "application/json"},
            method=method,
        )
        context = ssl.create_default_context(cafile=str(self.authority)) if self.authority else None
        with urllib.request.urlopen(request, timeout=30, context=context) as answer:
            return dict(json.load(answer))


def make_rayjob(text: str, name: str, job: str, uid: str) -> dict[str, Any]:
    """Make the RayJob of a manifest, with a name, that belongs to a Job."""
    document: dict[str, Any] = yaml.safe_load(text)
    owner = {"apiVersion": "batch/v1", "kind": "Job", "name": job, "uid": uid}
    document["metadata"] |= {"name": name, "ownerReferences": [owner]}
    return document


def begin(cluster: Cluster, text: str, job: str, uid: str) -> str:
    """Create the RayJob of the next try of a Job and return its name.

    If the one before has not failed, this pod is in the place of one that was moved while it waited, and waits in turn.
    """
    for number in itertools.count(1):
        name = f"{job}-{number}"
        try:
            status = cluster.read_status(name)
        except urllib.error.HTTPError as error:
            if error.code != 404:
                raise
            cluster.create(make_rayjob(text, name, job, uid))
            print(f"{name}: created", flush=True)
            return name
        if not has_failed(status):
            return name
    raise AssertionError("numbers have no end")


def has_failed(status: dict[str, Any]) -> bool:
    """Whether a RayJob has come to an end that is not its success."""
    return status.get("jobDeploymentStatus") in ENDED and status.get("jobStatus") != "SUCCEEDED"


def wait(cluster: Cluster, name: str) -> int:
    """Wait for the end of a RayJob, say how it ended, and return its exit code."""
    heard = time.monotonic()
    while True:
        try:
            status = cluster.read_status(name)
        except (OSError, ValueError) as error:  # also of an API server that is restarted
            if _is_refused(error) or time.monotonic() - heard > SILENT_S:
                raise
            status = {}
        else:
            heard = time.monotonic()
        if status.get("jobDeploymentStatus") in ENDED:
            break
        time.sleep(POLL_S)
    if not has_failed(status):
        print(f"{name}: done")
        return 0
    message = str(status.get("message") or status.get("reason") or status.get("jobStatus"))
    print(f"{name}: {message}", file=sys.stderr)
    found = _EXIT_CODE.search(message)
    return int(found[1]) if found else 1


def _is_refused(error: Exception) -> bool:
    """Whether an answer of the server is a final one: no right to do this, no such RayJob, a wrong manifest."""
    return isinstance(error, urllib.error.HTTPError) and error.code in _REFUSED


def main() -> int:
    """Run the RayJob of the manifest that is named on the command line."""
    manifest = Path(sys.argv[1])
    try:
        cluster = Cluster.find()
        name = begin(cluster, manifest.read_text("utf-8"), os.environ["JOB_NAME"], os.environ["JOB_UID"])
        return wait(cluster, name)
    except (OSError, ValueError) as error:
        print(f"{manifest}: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
