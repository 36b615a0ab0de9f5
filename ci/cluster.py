"""A namespace of a Kubernetes cluster: what is under a release's name there, its install and its removal."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ci.killable import killable
from ci.leftovers import listed
from helm.engine import ReleaseError, Releases

POLL_S = 5.0
REMOVE_S = 120.0
"""So long a removal is tried again: the API server may be away for a moment."""

CHECKS = "openrlhf-mtp.io/role in (check,test)"
"""Pods of hooks, which are not part of a release: Helm keeps those that have failed."""


class BenchmarkError(RuntimeError):
    """The run did not end well; the message says how."""


class Cluster:
    """One namespace of a kubeconfig's current context, and Helm in it.

    Raises:
        BenchmarkError: the file is not there, or has no current context.
    """

    def __init__(self, kubeconfig: Path, namespace: str = "") -> None:
        from kubernetes import client, config

        try:
            self.namespace = namespace or namespace_of(kubeconfig)
            api = config.new_client_from_config(config_file=str(kubeconfig))
        except config.ConfigException as problem:
            raise BenchmarkError(
                f"--kubeconfig: got {kubeconfig}, expected a cluster's: {problem}"
            ) from problem
        self.kubeconfig, self.helm = kubeconfig, Releases(kubeconfig, self.namespace)
        self.api = api
        self.core, self.batch = client.CoreV1Api(api), client.BatchV1Api(api)
        self.apps = client.AppsV1Api(api)
        self.custom = client.CustomObjectsApi(api)

    def require_free(self, release: str) -> None:
        """What is there under a release's name before it is installed would be removed with it.

        Raises:
            BenchmarkError: there is a release of this name, or a claim that Helm has kept of an earlier one.
        """
        claims = self.core.list_namespaced_persistent_volume_claim(self.namespace, **_of(release)).items
        there = ["the release"] if self.helm.has(release) else []
        there += [f"its claim {claim.metadata.name}" for claim in claims]
        if there:
            raise BenchmarkError(
                f"--release: got {release}, expected a new name: namespace {self.namespace} has "
                f"{', '.join(there)}. Nothing was changed; `python -m ci.remove {release}` removes it, "
                "data included"
            )

    def install(self, chart: Path, release: str, values: dict[str, Any], timeout_s: int) -> None:
        """Install a release; its hooks have ended when this returns. Can be interrupted at any moment.

        Raises:
            NameTakenError: there is such a release.
            ReleaseError: it was refused, or a hook failed.
        """
        killable(_install, self.kubeconfig, self.namespace, chart, release, values, timeout_s)

    def answered(self, ask: Callable[[], Any]) -> Any:
        """What the API server answers; None while it is away.

        Raises:
            BenchmarkError: it refuses.
        """
        from kubernetes.client import ApiException
        from urllib3.exceptions import HTTPError

        try:
            return ask()
        except (ApiException, HTTPError) as problem:
            if is_refusal(problem):
                raise BenchmarkError(f"the API server refuses: {problem}") from problem
            return None

    def everything(self) -> set[str]:
        """`Kind name` of all that the namespace holds."""
        return listed(self.api, self.namespace)

    def remove(self, release: str) -> None:
        """A release and what Helm keeps of it: claims that the chart made, a check of a job file that has failed.

        Raises:
            BenchmarkError: something could not be removed; everything else was.
        """
        pod = fetch_pod(release)
        steps: dict[str, Callable[[], object]] = {
            "the release": lambda: self.helm.uninstall(release),
            f"pod {pod}": lambda: self.core.delete_namespaced_pod(
                pod, self.namespace, grace_period_seconds=0
            ),
            "its claims": lambda: self.core.delete_collection_namespaced_persistent_volume_claim(
                self.namespace, **_of(release)
            ),
            "its checks": lambda: self.core.delete_collection_namespaced_pod(
                self.namespace, label_selector=f"{_of(release)['label_selector']},{CHECKS}"
            ),
            "its podcheck": lambda: self.apps.delete_namespaced_replica_set(
                f"{release}-podcheck", self.namespace
            ),
        }
        end = time.monotonic() + REMOVE_S
        problems = [f"{what}: {why}" for what, step in steps.items() if (why := _insist(step, end))]
        if problems:
            raise BenchmarkError(
                f"{release} was not removed from namespace {self.namespace}, `python -m ci.remove {release}` tries "
                "again:\n" + "\n".join(problems)
            )


def fetch_pod(release: str) -> str:
    """The name of the pod that reads the run folder."""
    return f"{release}-fetch"


def _of(release: str) -> dict[str, str]:
    return {"label_selector": f"app.kubernetes.io/instance={release}"}


def _install(
    kubeconfig: Path, namespace: str, chart: Path, release: str, values: dict[str, Any], timeout_s: int
) -> None:
    Releases(kubeconfig, namespace).install(chart, release, values, timeout_s)


def _insist(step: Callable[[], object], end: float) -> str:
    """Do it, until `end` again and again; "" or why it could not be done."""
    from kubernetes.client import ApiException
    from urllib3.exceptions import HTTPError

    while True:
        try:
            step()
            return ""
        except (ReleaseError, ApiException, HTTPError) as problem:
            if getattr(problem, "status", None) == 404:  # gone is as good as removed
                return ""
            if is_refusal(problem) or time.monotonic() > end:
                return str(problem)
            time.sleep(POLL_S)
        except Exception as surprise:  # whatever is wrong here, the other steps are to be done
            return f"{type(surprise).__name__}: {surprise}"


def is_refusal(problem: Exception) -> bool:
    """Whether the API server has answered, and asking again would not change the answer."""
    return 400 <= (getattr(problem, "status", None) or 0) < 500


def namespace_of(kubeconfig: Path) -> str:
    """The namespace of the kubeconfig's current context."""
    from kubernetes import config

    _, current = config.list_kube_config_contexts(config_file=str(kubeconfig))
    return str(current["context"].get("namespace") or "default")
