"""Take the chart through a run's life on a cluster, as its users would, and say where it is not as the docs promise.

    python -m ci.e2e --backend rayjob --image REGISTRY/openrlhf-mtp:0.1.0-cpu --job examples/arithmetic/job.yaml \\
        --values helm/openrlhf-mtp/ci/cpu-smoke-values.yaml --namespace e2e

Install; `helm test` beside the training; a trainer pod is deleted; the run resumes from its checkpoint in a second
attempt and succeeds; uninstall; then the namespace holds what it held before. Ends with the seconds of each part.
Exit code 0, or 2 with the differences from what was expected. Whatever happens, the release and its claims are removed.
"""

from __future__ import annotations

import argparse
import json
import re
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml

from ci.benchmark import CANCELS, FAILED, cancelled, cluster_options, image_of, told
from ci.cluster import BenchmarkError, Cluster, fetch_pod
from ci.on_cluster import ClusterRun, news, summary_in
from helm.engine import CHART, ChartError, ReleaseError, merged

INSTALL_S, TEST_S, GONE_S = 1200, 600, 300.0
POLL_S = 2.0
SAVE_STEPS = 2
"""A checkpoint at every second step, so that there is one when the pod is lost."""
LOST_AFTER = 3
"""The step after which a trainer pod is deleted."""
ATTEMPT = "preflight: pods"
"""Each attempt says this once, before it trains."""


class Clock:
    """Seconds that each part of a run's life took."""

    def __init__(self) -> None:
        self.parts: dict[str, float] = {}
        self._began = 0.0

    def begin(self, name: str) -> None:
        """A part begins, and the one before it has ended."""
        self.end()
        print(f"+ {name}", flush=True)
        self.parts[name], self._began = 0.0, time.monotonic()

    def end(self) -> None:
        """The last part has ended."""
        if self.parts:
            self.parts[list(self.parts)[-1]] = time.monotonic() - self._began

    def table(self) -> str:
        """A line a part."""
        return "\n".join(f"{seconds:7.0f} s  {name}" for name, seconds in self.parts.items())


class Life:
    """One run on a cluster, from its install to the last thing that it leaves.

    Args:
        run: the release; it saves a checkpoint at every `SAVE_STEPS`-th step.
        deadline_s: how long the run may take from its install to its end.
    """

    def __init__(self, run: ClusterRun, deadline_s: float) -> None:
        self.run, self.cluster, self.deadline_s = run, run.cluster, deadline_s
        self.clock = Clock()

    def live(self) -> None:
        """All of it.

        Raises:
            BenchmarkError: something was not as expected.
        """
        before = self.cluster.everything()
        self.clock.begin("install")
        with self.run.installed(INSTALL_S):
            try:
                self.run_to_the_end()
                self.remove(before)
            except BenchmarkError:
                print(state(self.cluster), flush=True)  # while there still is something to look at
                raise

    def run_to_the_end(self) -> None:
        """Steps, `helm test`, the loss of a pod, the end, and what the run folder says of it."""
        self.clock.begin(f"from the install to step {LOST_AFTER}")
        self.wait_for_steps()
        self.clock.begin("helm test beside the training")
        self.helm_test()
        self.clock.begin("from the loss of a trainer pod to the first step of the second attempt")
        output = self.lose_a_trainer()
        self.wait_for_the_second_attempt(output)
        self.clock.begin("from there to the end")
        steps = self.end(output)
        self.clock.begin("pods are given back")
        self.wait("pods of Ray given back", lambda: not self.pods("head", "trainer", "rollout"))
        self.clock.begin("the run folder is read")
        self.read_the_run_folder(steps)

    def remove(self, before: set[str]) -> None:
        """Uninstall; what is left of the release is what its notes say, and goes as they say."""
        self.clock.begin("uninstall leaves the claims that the notes name, and nothing else")
        self.cluster.helm.uninstall(self.run.release)
        claims = claims_in(self.run.rendered.notes)
        self.require_left(before, {f"PersistentVolumeClaim {claim}" for claim in claims})
        self.clock.begin("without its claims nothing is left")
        for claim in claims:
            self.cluster.core.delete_namespaced_persistent_volume_claim(claim, self.cluster.namespace)
        self.require_left(before, set())
        self.clock.end()

    def wait_for_steps(self) -> None:
        """Until the run has logged `LOST_AFTER` steps."""

        def far_enough() -> bool:
            output = self.run.log()
            if self.run.status():
                raise BenchmarkError(f"the run ended before step {LOST_AFTER}; {self.run.why(output)}")
            return max(steps_in(output), default=0) >= LOST_AFTER

        self.wait(f"step {LOST_AFTER}", far_enough, self.deadline_s)

    def helm_test(self) -> None:
        """As `helm test --logs`."""
        try:
            self.cluster.helm.test(self.run.release, TEST_S)
        except ReleaseError as problem:
            raise BenchmarkError(f"helm test: {problem}\n{self.run.log('test')}") from problem

    def lose_a_trainer(self) -> str:
        """Delete a trainer pod as `kubectl delete pod` does; the run's output up to then."""
        output = self.run.log()
        trainers = self.pods("trainer")
        if self.run.status() or not trainers:
            raise BenchmarkError(
                "the run ended before its pod could be deleted; expected a job with more steps"
            )
        trainer = trainers[0].metadata
        print(f"deleting {trainer.name}", flush=True)
        self.cluster.core.delete_namespaced_pod(trainer.name, self.cluster.namespace)
        self.wait(
            "the trainer pod gone", lambda: trainer.uid not in {p.metadata.uid for p in self.pods("trainer")}
        )
        return output

    def wait_for_the_second_attempt(self, before: str) -> None:
        """Until it has logged a step, which is one after the last checkpoint.

        Args:
            before: the run's output when its pod was lost.
        """

        def logged() -> list[int]:
            output = self.run.log()
            if self.run.status() == "Failed":
                raise BenchmarkError(f"the run failed for good; {self.run.why(output)}")
            return steps_of_second(before, output)

        steps = self.wait("a step of the second attempt", logged, self.deadline_s)
        lost_at = max(steps_in(before))
        saved = lost_at // SAVE_STEPS * SAVE_STEPS
        if min(steps) <= saved:
            raise BenchmarkError(
                f"the second attempt: got step {min(steps)} first, expected one after {saved}: the pod was lost after "
                f"step {lost_at}, and a checkpoint is saved at every {SAVE_STEPS}"
            )

    def end(self, before: str) -> int:
        """The run succeeds, in its second attempt; the number of its steps."""
        output = self.run.follow(self.deadline_s, lambda text: print(text, end="", flush=True))
        summary = summary_in(output)
        steps = int(summary["steps"])
        if max(steps_of_second(before, output), default=0) != steps:
            raise BenchmarkError(f"the run's {steps} steps did not end in its second attempt:\n{output}")
        return steps

    def read_the_run_folder(self, steps: int) -> None:
        """On the shared volume every step is there once."""
        with TemporaryDirectory() as folder:
            self.run.fetch(Path(folder))
            rows = (Path(folder) / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        logged = [int(json.loads(row)["step"]) for row in rows]
        if [step for step in logged if step > 0] != list(range(1, steps + 1)):
            raise BenchmarkError(f"metrics.jsonl: got steps {logged}, expected 1 to {steps}, each once")
        self.cluster.core.delete_namespaced_pod(fetch_pod(self.run.release), self.cluster.namespace)

    def require_left(self, before: set[str], kept: set[str]) -> None:
        """The namespace holds what it held before, and what is kept."""
        try:
            self.wait("the rest gone", lambda: self.cluster.everything() - before == kept)
        except BenchmarkError as problem:
            left = ", ".join(sorted(self.cluster.everything() - before)) or "nothing"
            expected = ", ".join(sorted(kept)) or "nothing"
            raise BenchmarkError(f"left in the namespace: got {left}, expected {expected}") from problem

    def pods(self, *roles: str) -> list[Any]:
        """The run's pods with these roles that are listed."""
        selector = (
            f"app.kubernetes.io/instance={self.run.release},openrlhf-mtp.io/role in ({','.join(roles)})"
        )
        found = self.cluster.core.list_namespaced_pod(self.cluster.namespace, label_selector=selector)
        return list(found.items)

    def wait(self, what: str, found: Callable[[], Any], timeout_s: float | None = None) -> Any:
        """Ask until there is something, and return it; by default for `GONE_S`.

        Raises:
            BenchmarkError: there is not, in time.
        """
        limit_s = GONE_S if timeout_s is None else timeout_s
        end = time.monotonic() + limit_s
        while not (result := self.cluster.answered(found)):
            if time.monotonic() > end:
                raise BenchmarkError(f"not within {limit_s:g} s: {what}")
            time.sleep(POLL_S)
        return result


def state(cluster: Cluster) -> str:
    """Pods and warnings of the namespace, a line each."""
    pods = cluster.core.list_namespaced_pod(cluster.namespace).items
    events = cluster.core.list_namespaced_event(cluster.namespace, field_selector="type=Warning").items
    lines = [f"pod {pod.metadata.name}: {pod.status.phase} {pod.status.message or ''}" for pod in pods]
    lines += [f"{one.involved_object.kind} {one.involved_object.name}: {one.message}" for one in events[-30:]]
    return "\n".join(lines)


def steps_in(output: str) -> list[int]:
    """Steps of the RL stage that a run's output tells of, in its order; step 0 is an evaluation."""
    return [int(step) for step in re.findall(r"^RL (\d+)(?:/\d+)?  ", output, re.M)]


def steps_of_second(before: str, output: str) -> list[int]:
    """Steps of the second attempt, of which `before` has nothing."""
    since = news(before, output)
    return steps_in(since.rpartition(ATTEMPT)[2]) if ATTEMPT in since else []


def claims_in(notes: str) -> list[str]:
    """Names of the claims that the chart's notes say are kept, and how to delete."""
    return re.findall(r"delete pvc (\S+)", notes)


def chart_values(arguments: argparse.Namespace) -> dict[str, Any]:
    """The values files, then backend, image and job, which saves often and may be tried twice again."""
    values: dict[str, Any] = {}
    for path in arguments.values:
        values = merged(values, yaml.safe_load(path.read_text(encoding="utf-8")))
    own = [*arguments.set, f"ckpt.save_steps={SAVE_STEPS}"]
    overrides = [*values.get("job", {}).get("overrides", []), *own]
    job = {"config": arguments.job.read_text(encoding="utf-8"), "overrides": overrides, "retries": 2}
    values = merged(values, {"backend": arguments.backend, "image": image_of(arguments.image), "job": job})
    if arguments.tools_image:
        values = merged(values, {"tools": {"image": image_of(arguments.tools_image)}})
    return values


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog="python -m ci.e2e", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--backend", choices=("rayjob", "statefulset"), required=True)
    made.add_argument("--image", required=True, metavar="NAME:TAG|NAME@DIGEST")
    made.add_argument(
        "--tools-image", default="", metavar="NAME:TAG", help="of the small pods; default the run's image"
    )
    made.add_argument("--job", type=Path, required=True, help="job file")
    made.add_argument(
        "--set", action="append", default=[], metavar="key=value", help="replace a setting of the job"
    )
    made.add_argument("--values", type=Path, action="append", default=[], help="values files, later ones win")
    made.add_argument("--release", default="e2e", help="the release's name")
    made.add_argument("--chart", type=Path, default=CHART, help="the chart's folder")
    made.add_argument("--deadline-s", type=float, default=2400.0, help="the whole run may take this long")
    cluster_options(made)
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Live through it; 0 or `FAILED`."""
    arguments = parser().parse_args(argv)
    for number in CANCELS:
        signal.signal(number, cancelled)
    try:
        cluster = Cluster(arguments.kubeconfig, arguments.namespace)
        values = chart_values(arguments)
        life = Life(
            ClusterRun(values, cluster, chart=arguments.chart, release=arguments.release),
            arguments.deadline_s,
        )
        life.live()
    except (BenchmarkError, ChartError, ReleaseError, KeyboardInterrupt) as failure:
        print(f"e2e: {told(failure)}", file=sys.stderr)
        return FAILED
    print(f"{life.clock.table()}\ne2e: {arguments.backend} is as expected")
    return 0


if __name__ == "__main__":
    sys.exit(main())
