"""An EMULATION of KubeRay's operator, as far as this chart uses it: no Go, no RayCluster object, no webhook.

It does with a RayJob what the operator's source does (K8sJobMode, the rules of one version of `kuberay_rules.py`):

    pods from the groups, with a line that starts Ray; the job is submitted only when all of them are ready
    a Job that submits and follows the Ray job; where Ray no longer knows it (a new head), it is submitted again
    the end of an attempt: the Ray job's and the submitter's; a Ray job that was stopped counts as complete
    both deadlines from the beginning of each attempt; only the one after activeDeadlineSeconds is not repeated
    a failed attempt is repeated in a fresh cluster, whatever its exit code; not one whose head is silent for long (1.7)
    a RayJob that is deleted: Ray is told to stop the job, then the pods go with their owner

Not emulated: a pod that is deleted is not replaced, and HTTPMode. That the operator does the same is not tested.
"""

from __future__ import annotations

import contextlib
import copy
import json
import time
import urllib.request
from dataclasses import replace
from types import TracebackType
from typing import Any, Self

from tests.chart.schemas import VERSIONS, problems
from tests.cluster.api import Api
from tests.cluster.kuberay_rules import ENDED, SILENT, UNKNOWN, Rules, Seen, judge
from tests.cluster.loop import Loop
from tests.cluster.rayjob import FINALIZER, TAGS, Run, behind, define, definition, start_line, submit_line
from tests.patience import seconds


class KubeRay:
    """Use as a context manager beside a control plane.

    Args:
        api: the API server.
        namespace: the one that is watched.
        version: whose rules hold.
        status_check_s: how long a head may be silent where that ends a run, on a machine as fast as the reference.
        deaf: the operator is kept from the pods, as by a NetworkPolicy.
    """

    def __init__(
        self,
        api: Api,
        namespace: str = "default",
        version: str = "1.6.2",
        *,
        status_check_s: float = 300.0,
        deaf: bool = False,
    ) -> None:
        self.api, self.namespace, self.deaf = api, namespace, deaf
        self.rules = Rules(version, seconds(status_check_s), submitter_s=seconds(30))
        self.runs: dict[str, Run] = {}
        self._loop = Loop(self._round, every_s=1.0)
        self.problems = self._loop.problems

    def __enter__(self) -> Self:
        define(self.api, self.rules.kinds)
        self._loop.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.end()
        self._loop.join()
        for kind in self.rules.kinds:
            self.api.delete("CustomResourceDefinition", None, definition(kind)["metadata"]["name"])

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
        end = judge(self.rules, self._see(run, now))
        if end is None:
            if not run.submitted and self._all_ready(run):
                self._submit(run)
        elif end[0] == "Failed":
            self._fail(run, end[1])
        else:
            self._end(run, *end)

    def _see(self, run: Run, now: float) -> Seen:
        """What the operator sees of an attempt now."""
        seen = Seen(
            waited_s=now - run.started,
            active_s=run.spec["activeDeadlineSeconds"],
            pre_running_s=run.spec["preRunningDeadlineSeconds"],
            submitted=run.submitted,
        )
        if not run.submitted:
            return seen
        submitter, job = self._submitter(run), self._job(run)
        run.submitter_ended = (run.submitter_ended or now) if submitter else 0.0
        if job == SILENT:
            run.silent = run.silent or now
        elif job != UNKNOWN:
            run.silent, run.known = 0.0, job
        run.job_ended = (run.job_ended or now) if run.known in ENDED else 0.0
        return replace(
            seen,
            submitter=submitter,
            submitter_ended_s=now - run.submitter_ended if submitter else 0.0,
            job=job,
            known=run.known,
            silent_s=now - run.silent if run.silent else 0.0,
            job_ended_s=now - run.job_ended if run.job_ended else None,
        )

    def _start(self, run: Run) -> None:
        """The pods of an attempt."""
        labels = run.made["metadata"].get("labels", {})
        made = {**run.made, "metadata": {"name": run.name, "labels": labels}}
        found = [problem for version in VERSIONS for problem in problems(made, version)]
        if found:
            self._end(run, "Failed", f"ValidationFailed: {found[0]}")
            return
        self._keep(run, [FINALIZER])
        run.begin(time.monotonic())
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
        if kind == "head":
            tags = f"kuberay_version=v{self.rules.version};kuberay_crd=RayJob"
            container.setdefault("env", []).append({"name": TAGS, "value": tags})
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
            {
                "command": ["/bin/bash", "-ce", "--"],
                "args": [submit_line(run, waits=self.rules.submitter_waits)],
            }
        )
        backoff = run.spec["submitterConfig"]["backoffLimit"]
        spec = {"backoffLimit": backoff, "template": template}
        self.api.create("Job", self.namespace, {"metadata": run.owned(run.cluster, {}), "spec": spec})
        run.submitted = True
        self._report(run, "Running")

    def _submitter(self, run: Run) -> str:
        """Complete or Failed when the submitter's Job has ended."""
        job = self.api.get("Job", self.namespace, run.cluster) or {}
        conditions = job.get("status", {}).get("conditions", [])
        ends = [one["type"] for one in conditions if one["status"] == "True"]
        return next((end for end in ends if end in ("Complete", "Failed")), "")

    def _job(self, run: Run) -> str:
        """What Ray says of the job."""
        try:
            return str(self._ask_ray(run, f"jobs/{run.job}")["status"])
        except OSError as problem:
            return UNKNOWN if getattr(problem, "code", None) == 404 else SILENT

    def _ask_ray(self, run: Run, path: str, method: str = "GET") -> dict[str, Any]:
        """Ray's answer; OSError when there is none, with HTTP's code when it refuses."""
        if self.deaf:
            raise OSError("kept from the pods")
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
        if not self.rules.repeats(reason, run.attempt, run.spec.get("backoffLimit", 0)):
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
        status = {"jobDeploymentStatus": state, "jobStatus": run.known, "reason": reason, "failed": failed}
        self.api.patch("RayJob", self.namespace, run.name, {"status": status}, status=True)
