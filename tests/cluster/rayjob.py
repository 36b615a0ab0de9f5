"""A RayJob as the emulation of KubeRay sees it: its definition, and the lines that run in its pods."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tests.cluster.api import Api, until

FINALIZER = "ray.io/rayjob-finalizer"
"""A RayJob that is deleted stays until the operator has had Ray stop its job."""
ANYTHING = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
VERSION: dict[str, Any] = {
    "name": "v1",
    "served": True,
    "storage": True,
    "schema": {"openAPIV3Schema": ANYTHING},
    "subresources": {"status": {}},
}
TAGS = "RAY_USAGE_STATS_EXTRA_TAGS"
"""Environment of a head: the operator tells its version there."""


def definition(kind: str) -> dict[str, Any]:
    """What a kind of the group ray.io is, as far as nothing in it is refused."""
    singular = kind.lower()
    names = {"kind": kind, "plural": f"{singular}s", "singular": singular}
    spec = {"group": "ray.io", "scope": "Namespaced", "names": names, "versions": [VERSION]}
    return {"metadata": {"name": f"{singular}s.ray.io"}, "spec": spec}


def define(api: Api, kinds: Sequence[str]) -> None:
    """Teach the API server what a RayJob is, and the kinds beside it."""
    for kind in kinds:
        api.create("CustomResourceDefinition", None, definition(kind))

    def served() -> bool:
        try:
            return api.list("RayJob", "default") == []
        except OSError:
            return False

    until("RayJobs on the API server", served, 60)


@dataclass
class Run:
    """One RayJob on its way."""

    made: dict[str, Any]
    attempt: int = 0
    started: float = 0.0
    submitted: bool = False
    clearing: bool = False
    ended: float = 0.0
    submitter_ended: float = 0.0
    silent: float = 0.0
    job_ended: float = 0.0
    known: str = ""
    state: str = "Initializing"

    def begin(self, now: float) -> None:
        """The next attempt."""
        self.attempt, self.submitted, self.clearing, self.started = self.attempt + 1, False, False, now
        self.submitter_ended = self.silent = self.job_ended = 0.0
        self.known = ""

    @property
    def name(self) -> str:
        """Of the RayJob."""
        return str(self.made["metadata"]["name"])

    @property
    def cluster(self) -> str:
        """A name for this attempt's pods."""
        return f"{self.name}-{self.attempt}"

    @property
    def head(self) -> str:
        """The service by which workers and the submitter find the head."""
        return f"{self.cluster}-head-svc"

    @property
    def job(self) -> str:
        """The Ray job's id."""
        return f"{self.cluster}-job"

    @property
    def spec(self) -> dict[str, Any]:
        """Of the RayJob."""
        return dict(self.made["spec"])

    def owned(self, name: str, template: dict[str, Any]) -> dict[str, Any]:
        """Metadata of an object that goes when the RayJob goes."""
        meta = copy.deepcopy(template.get("metadata", {}))
        owner = {"apiVersion": "ray.io/v1", "kind": "RayJob", "name": self.name, "controller": True}
        owner["uid"] = self.made["metadata"]["uid"]
        return {**meta, "name": name, "ownerReferences": [owner]}


def start_line(run: Run, group: dict[str, Any], kind: str) -> str:
    """What KubeRay makes of a group's rayStartParams; a worker waits for the head in an init container there."""
    labels = ",".join(f"{name}={value}" for name, value in group["labels"].items())
    given = {**group["rayStartParams"], "labels": labels}
    words = " ".join(f"--{name}" if value == "true" else f"--{name}={value}" for name, value in given.items())
    if kind == "head":
        return f"ulimit -n 65536; ray start --head {words} --block"
    wait = f"until (exec 3<>/dev/tcp/{run.head}/6379) 2>/dev/null; do sleep 1; done"
    return f"{wait}; ulimit -n 65536; ray start {words} --address={run.head}:6379 --block"


def behind(container: dict[str, Any], line: str) -> str:
    """KubeRay runs a container's own command and arguments, joined by spaces, in front of its line."""
    own = "".join(f" {word} " for word in [*container.get("command", []), *container.get("args", [])])
    return f"{own} && {line}" if own else line


def submit_line(run: Run, *, waits: bool) -> str:
    """What the submitter's Job runs: a pod that is started again follows the job instead of submitting it twice.

    Args:
        run: whose.
        waits: for a head that answers (KubeRay 1.7).
    """
    head = f"http://{run.head}:8265"
    address = f"--address {head}"
    asked = f"python -c \"import urllib.request as r; r.urlopen('{head}/api/gcs_healthz', timeout=5)\""
    return (f"until {asked} >/dev/null 2>&1 ; do sleep 2 ; done ; " if waits else "") + (
        f"if ! ray job status {address} {run.job} >/dev/null 2>&1 ; "
        f"then ray job submit {address} --no-wait --submission-id {run.job} -- {run.spec['entrypoint']} ; "
        f"fi ; ray job logs {address} --follow {run.job}"
    )
