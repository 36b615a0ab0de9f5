"""An EMULATION of KubeRay's operator, as far as this chart uses it: no Go, no RayCluster object, no webhook.

It does with a RayJob what the operator's source (1.6.2, K8sJobMode) does:

    pods from the groups, with a line that starts Ray; the job is submitted only when all of them are ready
    a Job that submits and follows the Ray job; where Ray no longer knows it (a new head), it is submitted again
    the end of an attempt: the Ray job's and the submitter's; a Ray job that was stopped counts as complete
    both deadlines from the beginning of each attempt; only the one after activeDeadlineSeconds is not repeated
    a failed attempt is repeated in a fresh cluster, whatever its exit code
    a RayJob that is deleted: Ray is told to stop the job, then the pods go with their owner

Not emulated: a pod that is deleted is not made anew, and the timeouts of states that do not occur here. That the
operator does the same is not tested.
"""

from __future__ import annotations

import contextlib
import copy
import json
import time
import urllib.request
from types import TracebackType
from typing import Any, Self

from tests.chart.schemas import VERSIONS, problems
from tests.cluster.api import Api
from tests.cluster.loop import Loop
from tests.cluster.rayjob import FINALIZER, NAME, Run, behind, define, start_line, submit_line

ENDED = ("SUCCEEDED", "FAILED", "STOPPED")


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
            run = self.runs.setdefault(uid, Run(made))
            if made["metadata"].get("deletionTimestamp"):
                self._let_go(run)
            else:
                self._reconcile(run)

    def _let_go(self, run: Run) -> None:
        """Have Ray stop the job, which does not wait for its end; whether it could or not, the RayJob may go."""
        if run.submitted and not run.ended:
            with contextlib.suppress(OSError):
                self._ask_ray(run, f"jobs/{run.job}/stop", method="POST")
        self._keep(run, [])

    def _keep(self, run: Run, finalizers: list[str]) -> None:
        self.api.patch("RayJob", self.namespace, run.name, {"metadata": {"finalizers": finalizers}})

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
        waited = now - run.started
        if waited > run.spec["activeDeadlineSeconds"]:
            self._end(run, "Failed", "DeadlineExceeded")
        elif run.submitted:
            self._follow(run)
        elif waited > run.spec["preRunningDeadlineSeconds"]:
            self._fail(run, "PreRunningDeadlineExceeded")
        elif self._all_ready(run):
            self._submit(run)

    def _start(self, run: Run) -> None:
        """The pods of an attempt."""
        labels = run.made["metadata"].get("labels", {})
        made = {**run.made, "metadata": {"name": run.name, "labels": labels}}
        found = [problem for version in VERSIONS for problem in problems(made, version)]
        if found:
            self._end(run, "Failed", f"ValidationFailed: {found[0]}")
            return
        self._keep(run, [FINALIZER])
        run.attempt, run.submitted, run.clearing = run.attempt + 1, False, False
        run.started = time.monotonic()
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
        container = spec["containers"][0]
        line = behind(container, start_line(run, group, kind))
        container.update({"command": ["/bin/bash", "-c", "--"], "args": [line]})
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
        run.submitted = True
        self._report(run, "Running")

    def _follow(self, run: Run) -> None:
        job = self.api.get("Job", self.namespace, run.cluster) or {}
        conditions = job.get("status", {}).get("conditions", [])
        submitter = {one["type"] for one in conditions if one["status"] == "True"}
        if "Failed" in submitter:
            self._fail(run, "SubmissionFailed")
            return
        try:
            status = self._ask_ray(run, f"jobs/{run.job}")["status"]
        except OSError as problem:
            # not submitted yet, or a new head; while it is silent the operator waits for the submitter's end
            if submitter and getattr(problem, "code", None) == 404:
                self._fail(run, "AppFailed")
            return
        if submitter and status in ENDED:
            if status == "FAILED":
                self._fail(run, "AppFailed")
            else:
                self._end(run, "Complete", "")

    def _ask_ray(self, run: Run, path: str, method: str = "GET") -> dict[str, Any]:
        """Ray's answer; OSError when there is none, with HTTP's code when it refuses."""
        heads = [pod for pod in self._pods(run) if pod["metadata"]["labels"]["ray.io/node-type"] == "head"]
        address = next((pod["status"].get("podIP") for pod in heads), None)
        if address is None:
            raise OSError(f"{run.name} has no head")
        go = {"User-Agent": "Go-http-client/1.1"}  # as the operator's client says
        request = urllib.request.Request(f"http://{address}:8265/api/{path}", method=method, headers=go)
        with urllib.request.urlopen(request, timeout=5) as answer:
            told: dict[str, Any] = json.load(answer)
        return told

    def _fail(self, run: Run, reason: str) -> None:
        """The attempt has failed: another one, in a fresh cluster, or the end."""
        if run.attempt > run.spec.get("backoffLimit", 0):
            self._end(run, "Failed", reason)
            return
        run.clearing = True
        self._report(run, "Retrying", reason)
        self._delete_pods(run)
        self.api.delete("Job", self.namespace, run.cluster)

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
        failed = run.attempt if state in ("Failed", "Retrying") else run.attempt - 1
        status = {"jobDeploymentStatus": state, "reason": reason, "failed": failed}
        self.api.patch("RayJob", self.namespace, run.name, {"status": status}, status=True)
