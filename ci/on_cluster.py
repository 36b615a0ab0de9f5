"""A benchmark run on a Kubernetes cluster: install the chart, follow the run, fetch what it made, always clean up."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import tarfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from ci.cluster import POLL_S, BenchmarkError, Cluster, fetch_pod, is_refusal
from helm.engine import CHART, NameTakenError, ReleaseError, Rendered, render

SUMMARY = "summary: "
SILENT_S = 300.0
"""An API server that has not answered for this long will not."""
SHOWN, BEGINNING = 3000, 1000
"""So many characters of an output's end say how it ended, and of its beginning that it is the same one."""
LOG_BYTES = 6 << 20
"""A kubelet keeps 10 MiB of a pod's output; an archive grows by a third in base64."""
MOST = "--exclude=checkpoints --exclude=final --exclude=records --exclude=./logs ."
"""Pods' own logs are left where they are: they are large, still being written, and only looked at after a failure."""
FEW = "$(ls summary.json metrics.jsonl report.html run.yaml command.txt 2> /dev/null || true)"
COLLECT = """set -euo pipefail
cd '{folder}'
what="{most}"
left_out=""
if (($(tar -cz $what | wc -c) > {limit})); then
  what="{few}"
  left_out="the run folder is too large for a pod's log: figures, TensorBoard's files and logs were left out"
fi
echo "$left_out"
tar -cz $what | base64 -w 8000
"""
PLACED = ("imagePullSecrets", "nodeSelector", "tolerations", "schedulerName")
"""What a pod needs to get where the head's volume can be mounted."""


class ClusterRun:
    """One release of the chart on a cluster. Names are unique, so several can run at once."""

    def __init__(
        self, values: dict[str, Any], cluster: Cluster, *, chart: Path = CHART, release: str = ""
    ) -> None:
        self.values, self.cluster, self.chart = values, cluster, chart
        self.release = release or f"bench-{uuid.uuid4().hex[:8]}"
        self.rendered: Rendered = render(values, name=self.release, namespace=cluster.namespace)

    @property
    def run(self) -> str:
        """The run's name, a prefix of all its objects'."""
        (head,) = self.rendered.of_kind("RayJob") or [self.rendered.one("StatefulSet", "-head")]
        return str(head["metadata"]["name"].removesuffix("-head"))

    @contextmanager
    def installed(self, timeout_s: int) -> Iterator[None]:
        """Install, and remove everything at the end: also after an error, a deadline or a cancelled CI job.

        Raises:
            BenchmarkError: the name is not free; or the install was refused, with the output of the job file's check,
                which says why; or something could not be removed.
        """
        self.cluster.require_free(self.release)
        with ExitStack() as at_end:
            at_end.callback(self.cluster.remove, self.release)
            try:
                self.cluster.install(self.chart, self.release, self.values, timeout_s)
            except NameTakenError as taken:  # another install was quicker, and this is its release
                at_end.pop_all()
                raise BenchmarkError(
                    f"--release: got {self.release}, expected a new name: {taken}"
                ) from taken
            except ReleaseError as refusal:
                raise BenchmarkError(f"{refusal}\n{self.log('check')}".strip()) from refusal
            yield

    def status(self) -> str:
        """Complete, Failed, or "" during the run."""
        if self.rendered.of_kind("RayJob"):
            return rayjob_end(self._rayjob_status())
        job = self.cluster.batch.read_namespaced_job(f"{self.run}-submitter", self.cluster.namespace)
        conditions = job.status.conditions or []
        return next(
            (one.type for one in conditions if one.status == "True" and one.type in ("Complete", "Failed")),
            "",
        )

    def _rayjob_status(self) -> dict[str, Any]:
        found = self.cluster.custom.get_namespaced_custom_object(
            "ray.io", "v1", self.cluster.namespace, "rayjobs", self.run
        )
        return dict(found.get("status") or {})

    def why(self, output: str) -> str:
        """What is known of an end that was not wanted: the operator's message and the end of the output."""
        told = self._rayjob_status() if self.rendered.of_kind("RayJob") else {}
        message = " ".join(str(told[key]) for key in ("jobStatus", "reason", "message") if told.get(key))
        return f"{message}\nthe end of its output:\n{output[-SHOWN:]}".strip()

    def log(self, role: str = "submitter") -> str:
        """All output so far of the last pod with a role; "" before there is one."""
        from kubernetes.client import ApiException

        selector = f"app.kubernetes.io/instance={self.release},openrlhf-mtp.io/role={role}"
        pods = self.cluster.core.list_namespaced_pod(self.cluster.namespace, label_selector=selector).items
        started = sorted((pod for pod in pods if pod.status.phase != "Pending"), key=_created)
        if not started:
            return ""
        with contextlib.suppress(ApiException):
            return self._printed(started[-1].metadata.name).decode("utf-8", errors="replace")
        return ""

    def follow(self, deadline_s: float, say: Callable[[str], None]) -> str:
        """Print what is new until the run ends; returns its whole output.

        Raises:
            BenchmarkError: it failed, or did not end in time.
        """
        from kubernetes.client import ApiException
        from urllib3.exceptions import HTTPError

        end, output, printed = time.monotonic() + deadline_s, "", ""
        silent_since: float | None = None
        while True:
            try:
                status = self.status()
                before, output = output, self.log() or output
                silent_since = None
            except (ApiException, HTTPError) as problem:  # one missing answer must not end a run of hours
                silent_since = silent_since or time.monotonic()
                if is_refusal(problem) or time.monotonic() - silent_since > SILENT_S:
                    raise BenchmarkError(f"the API server does not answer: {problem}") from problem
                time.sleep(POLL_S)
                continue
            new = news(before, output)
            say(new)
            printed += new  # also of a submitter that another has taken over from
            if status == "Complete":
                return output
            if status == "Failed":
                raise BenchmarkError(f"the run failed; {self.why(printed)}")
            if time.monotonic() > end:
                raise BenchmarkError(f"no end within {deadline_s:g} s; {self.why(printed)}")
            time.sleep(POLL_S)

    def fetch(self, out: Path, timeout_s: float = 300.0) -> str:
        """The run folder's results, through a small pod that mounts the same volume and prints an archive.

        The pod goes with the release, see `Cluster.remove`.

        Returns:
            "", or a line that says what was left out because a pod's log is too small for it.
        """
        name = fetch_pod(self.release)
        self.cluster.core.create_namespaced_pod(self.cluster.namespace, collector(self.rendered, name))
        end, phase = time.monotonic() + timeout_s, ""
        while phase not in ("Succeeded", "Failed"):
            if time.monotonic() > end:
                raise BenchmarkError(f"the run folder was not there within {timeout_s:g} s: pod {phase}")
            time.sleep(1.0)
            phase = self.cluster.core.read_namespaced_pod(name, self.cluster.namespace).status.phase
        printed = self._printed(name)
        if phase == "Failed":
            raise BenchmarkError(
                f"the run folder could not be read: {printed[-500:].decode(errors='replace')}"
            )
        left_out, _, archive = printed.partition(b"\n")
        unpack(archive, out)
        return left_out.decode()

    def _printed(self, pod: str) -> bytes:
        """All output of a pod. The client would turn it into text and cut it."""
        answer = self.cluster.core.read_namespaced_pod_log(
            pod, self.cluster.namespace, _preload_content=False
        )
        return bytes(answer.data)


def rayjob_end(status: dict[str, Any]) -> str:
    """How a RayJob ended: Complete, Failed, or "" during the run.

    KubeRay calls every Ray job Complete that has not failed, one that was stopped, too: so ends a run that has failed
    and that another attempt would not help.
    """
    state = str(status.get("jobDeploymentStatus", ""))
    if state == "Complete":
        return "Failed" if status.get("jobStatus") in ("STOPPED", "FAILED") else "Complete"
    return "Failed" if state in ("Failed", "ValidationFailed") else ""


def news(before: str, now: str) -> str:
    """What has been printed since: all of it where another file was begun, by the kubelet at 10 MiB or by a new pod."""
    continues = len(now) >= len(before) and now.startswith(before[:BEGINNING])
    return now[len(before) :] if continues else now


def summary_in(output: str) -> dict[str, Any]:
    """The summary that a run's script prints last.

    Raises:
        BenchmarkError: there is none.
    """
    lines = [line for line in output.splitlines() if line.startswith(SUMMARY)]
    if not lines:
        raise BenchmarkError(f"the run ended without a summary; the end of its output:\n{output[-SHOWN:]}")
    found: dict[str, Any] = json.loads(lines[-1].removeprefix(SUMMARY))
    return found


def collector(rendered: Rendered, name: str) -> dict[str, Any]:
    """A pod that prints the run folder's results; security and checkpoint volume are the head's."""
    head = _head(rendered)
    (volume,) = [one for one in head["spec"]["volumes"] if one["name"] == "checkpoints"]
    (container,) = head["spec"]["containers"]
    (mount,) = [one for one in container["volumeMounts"] if one["name"] == "checkpoints"]
    folder = next(
        line.partition("RUN=")[2].strip("'")
        for made in rendered.of_kind("ConfigMap")
        for line in made.get("data", {}).get("run.sh", "").splitlines()
        if line.startswith("export JOB=")
    )
    small = {"cpu": "100m", "memory": "256Mi"}
    script = COLLECT.format(folder=folder, limit=LOG_BYTES, most=MOST, few=FEW)
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app.kubernetes.io/instance": name.removesuffix("-fetch")}},
        "spec": {
            "restartPolicy": "Never",
            **{key: head["spec"][key] for key in PLACED if key in head["spec"]},
            "automountServiceAccountToken": False,
            "securityContext": head["spec"]["securityContext"],
            "containers": [
                {
                    "name": "fetch",
                    "image": container["image"],
                    "command": ["/bin/bash", "-c", script],
                    "securityContext": container["securityContext"],
                    "resources": {"limits": small, "requests": small},
                    "volumeMounts": [mount],
                }
            ],
            "volumes": [volume],
        },
    }


def has_shared_folder(rendered: Rendered) -> bool:
    """Whether the run folder outlives the head's pod."""
    return any(
        one["name"] == "checkpoints" and "emptyDir" not in one for one in _head(rendered)["spec"]["volumes"]
    )


def has_submitter(rendered: Rendered) -> bool:
    """Whether a pod prints the run's output. With gang scheduling by KAI, KubeRay submits without one (HTTPMode)."""
    return all(job["spec"].get("submissionMode") != "HTTPMode" for job in rendered.of_kind("RayJob"))


def _head(rendered: Rendered) -> dict[str, Any]:
    for job in rendered.of_kind("RayJob"):
        return dict(job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"])
    return dict(rendered.one("StatefulSet", "-head")["spec"]["template"])


def unpack(printed: bytes, out: Path) -> None:
    """A base64 archive into a folder; refuses paths that lead out of it.

    Python has filters for that since 3.11.4, and Debian 12 has 3.11.2.

    Raises:
        ValueError: it holds something else than files and folders below the folder.
    """
    with tarfile.open(fileobj=io.BytesIO(base64.b64decode(printed)), mode="r:gz") as archive:
        for member in archive.getmembers():
            is_below = (out / member.name).resolve().is_relative_to(out.resolve())
            if not is_below or not (member.isreg() or member.isdir()):
                raise ValueError(
                    f"the pod's archive holds {member.name!r}, expected files and folders of the run"
                )
            archive.extract(member, out, set_attrs=False)


def _created(pod: Any) -> Any:
    return pod.metadata.creation_timestamp
