"""An EMULATION of KubeRay's operator, as far as this chart uses it: no Go, no RayCluster object, no webhook.

It does with a RayJob what the operator's documents and source say (K8sJobMode): pods from the groups with a line that
starts Ray, a Job that submits and follows the Ray job, the Ray job's state asked of the head, a fresh cluster for a
retry, deadlines, and the deletion of the pods at the end. That the operator does the same is not tested here.
"""

from __future__ import annotations

import copy
import json
import time
import urllib.request
from types import TracebackType
from typing import Any, Self

from tests.chart.schemas import VERSIONS, problems
from tests.cluster.api import Api
from tests.cluster.loop import Loop
from tests.cluster.rayjob import NAME, Run, define, start_line, submit_line

ENDED = {"SUCCEEDED": "Complete", "FAILED": "Failed", "STOPPED": "Failed"}
LOST_S = 60.0
"""The head has not answered for this long: the attempt has failed."""


class KubeRay:
    """Use as a context manager beside a control plane."""

    def __init__(self, api: Api, namespace: str = "default") -> None:
        self.api, self.namespace = api, namespace
        self.runs: dict[str, Run] = {}
        self._loop = Loop(self._round, every_s=1.0)
        self.problems = self._loop.problems

    def __enter__(self) -> Self:
        define(self.api)
        self._loop.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.end()
        self._loop.join()
        self.api.delete("CustomResourceDefinition", None, NAME)

    def _round(self) -> None:
        listed = {made["metadata"]["uid"]: made for made in self.api.list("RayJob", self.namespace)}
        for uid in set(self.runs) - set(listed):
            del self.runs[uid]  # its pods go with their owner
        for uid, made in listed.items():
            if not made["metadata"].get("deletionTimestamp"):
                self._reconcile(self.runs.setdefault(uid, Run(made)))

    def _reconcile(self, run: Run) -> None:
        now = time.monotonic()
        if run.ended:
            if now - run.ended >= run.spec.get("ttlSecondsAfterFinished", 0):
                self._delete_pods(run)
            return
        if run.attempt == 0 or (run.clearing and not self._pods(run)):
            self._start(run)
            return
        if run.clearing:
            return
        if not run.submitted and self._all_ready(run):
            self._submit(run)
        elif run.submitted:
            self._follow(run)
        if run.ended:
            return
        waited = now - run.created
        if not run.submitted and waited > run.spec["preRunningDeadlineSeconds"]:
            self._end(run, "Failed", "PreRunningDeadlineExceeded")
        elif waited > run.spec["activeDeadlineSeconds"]:
            self._end(run, "Failed", "DeadlineExceeded")

    def _start(self, run: Run) -> None:
        """The pods of an attempt."""
        made = {**run.made, "metadata": {"name": run.name}}
        found = [problem for version in VERSIONS for problem in problems(made, version)]
        if found:
            self._end(run, "Failed", f"ValidationFailed: {found[0]}")
            return
        run.attempt, run.submitted, run.clearing = run.attempt + 1, False, False
        cluster = run.spec["rayClusterSpec"]
        selector = {"ray.io/cluster": run.cluster, "ray.io/node-type": "head"}
        service: dict[str, Any] = {
            "clusterIP": "None",
            "selector": selector,
            "ports": [{"name": "gcs", "port": 6379}],
        }
        service["publishNotReadyAddresses"] = True
        self.api.create("Service", self.namespace, {"metadata": run.owned(run.head, {}), "spec": service})
        self._pod(run, cluster["headGroupSpec"], "head", f"{run.cluster}-head")
        for group in cluster["workerGroupSpecs"]:
            for number in range(group["replicas"]):
                self._pod(run, group, "worker", f"{run.cluster}-{group['groupName']}-{number}")
        self._report(run, "Initializing")

    def _pod(self, run: Run, group: dict[str, Any], kind: str, name: str) -> None:
        meta = run.owned(name, group["template"])
        meta["labels"] = {
            **meta.get("labels", {}),
            "ray.io/cluster": run.cluster,
            "ray.io/node-type": kind,
        }
        spec = copy.deepcopy(group["template"]["spec"])
        spec["containers"][0].update(
            {"command": ["/bin/bash", "-c", "--"], "args": [start_line(run, group, kind)]}
        )
        self.api.create("Pod", self.namespace, {"metadata": meta, "spec": spec})

    def _all_ready(self, run: Run) -> bool:
        pods = self._pods(run)
        return all(
            any(
                one["type"] == "Ready" and one["status"] == "True"
                for one in pod["status"].get("conditions", [])
            )
            for pod in pods
        )

    def _submit(self, run: Run) -> None:
        template = copy.deepcopy(run.spec["submitterPodTemplate"])
        template["spec"]["containers"][0].update(
            {"command": ["/bin/bash", "-ce", "--"], "args": [submit_line(run)]}
        )
        backoff = run.spec["submitterConfig"]["backoffLimit"]
        spec = {"backoffLimit": backoff, "template": template}
        self.api.create("Job", self.namespace, {"metadata": run.owned(run.cluster, {}), "spec": spec})
        run.submitted, run.answered = True, time.monotonic()
        self._report(run, "Running")

    def _follow(self, run: Run) -> None:
        (head,) = [pod for pod in self._pods(run) if pod["metadata"]["labels"]["ray.io/node-type"] == "head"]
        try:
            url = f"http://{head['status']['podIP']}:8265/api/jobs/{run.job}"
            with urllib.request.urlopen(url, timeout=5) as answer:
                status = json.load(answer)["status"]
            run.answered = time.monotonic()
        except (OSError, KeyError):
            # not submitted yet, or the head has gone
            status = "FAILED" if time.monotonic() - run.answered > LOST_S else "PENDING"
        if status not in ENDED:
            return
        if ENDED[status] == "Failed" and run.attempt <= run.spec.get("backoffLimit", 0):
            run.clearing = True
            self._report(run, "Retrying")
            self._delete_pods(run)
            self.api.delete("Job", self.namespace, run.cluster)
        else:
            self._end(run, ENDED[status], "")

    def _end(self, run: Run, state: str, reason: str) -> None:
        run.ended = time.monotonic()
        self._report(run, state, reason)

    def _pods(self, run: Run) -> list[dict[str, Any]]:
        pods = self.api.list("Pod", self.namespace)
        return [pod for pod in pods if pod["metadata"].get("labels", {}).get("ray.io/cluster") == run.cluster]

    def _delete_pods(self, run: Run) -> None:
        for pod in self._pods(run):
            if not pod["metadata"].get("deletionTimestamp"):
                self.api.delete("Pod", self.namespace, pod["metadata"]["name"])

    def _report(self, run: Run, state: str, reason: str = "") -> None:
        run.state = state
        status = {"jobDeploymentStatus": state, "reason": reason, "failed": max(0, run.attempt - 1)}
        self.api.patch("RayJob", self.namespace, run.name, {"status": status}, status=True)
