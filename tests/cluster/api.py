"""Just enough of Kubernetes' API for the tests: requests with a token, no client library."""

from __future__ import annotations

import http.client
import json
import ssl
import threading
import time
from collections.abc import Callable
from typing import Any

from tests.patience import seconds

PATHS = {
    "ConfigMap": ("api/v1", "configmaps"),
    "CustomResourceDefinition": ("apis/apiextensions.k8s.io/v1", "customresourcedefinitions"),
    "Deployment": ("apis/apps/v1", "deployments"),
    "Event": ("api/v1", "events"),
    "Job": ("apis/batch/v1", "jobs"),
    "Namespace": ("api/v1", "namespaces"),
    "NetworkPolicy": ("apis/networking.k8s.io/v1", "networkpolicies"),
    "Node": ("api/v1", "nodes"),
    "PersistentVolume": ("api/v1", "persistentvolumes"),
    "PersistentVolumeClaim": ("api/v1", "persistentvolumeclaims"),
    "Pod": ("api/v1", "pods"),
    "RayJob": ("apis/ray.io/v1", "rayjobs"),
    "ReplicaSet": ("apis/apps/v1", "replicasets"),
    "Role": ("apis/rbac.authorization.k8s.io/v1", "roles"),
    "RoleBinding": ("apis/rbac.authorization.k8s.io/v1", "rolebindings"),
    "Secret": ("api/v1", "secrets"),
    "Service": ("api/v1", "services"),
    "ServiceAccount": ("api/v1", "serviceaccounts"),
    "StatefulSet": ("apis/apps/v1", "statefulsets"),
}
CLUSTER_WIDE = ("CustomResourceDefinition", "Namespace", "Node", "PersistentVolume")


class ApiError(OSError):
    """The server refused; `code` is HTTP's."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"{code}: {text[:500]}")
        self.code = code


class Api:
    """One API server. Each thread keeps a connection, because a new one costs the server more than an answer."""

    def __init__(self, host: str, port: int, token: str) -> None:
        self.host, self.port, self.token = host, port, token
        self.server = f"https://{host}:{port}"
        self._context = ssl._create_unverified_context()
        self._kept = threading.local()

    def request(self, method: str, path: str, body: Any = None, content: str = "application/json") -> Any:
        """One request.

        Raises:
            ApiError: the server refused.
            OSError: it did not answer.
        """
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": content}
        data = None if body is None else json.dumps(body).encode()
        kept = getattr(self._kept, "connection", None)
        try:
            status, text = self._exchange(kept or self._connect(), method, path, data, headers)
        except (ConnectionError, ssl.SSLError):
            if kept is None:
                raise
            # closed by the server, as it had been idle
            status, text = self._exchange(self._connect(), method, path, data, headers)
        if status >= 400:
            raise ApiError(status, text)
        return json.loads(text) if text[:1] in ("{", "[") else text

    def _connect(self) -> http.client.HTTPSConnection:
        return http.client.HTTPSConnection(self.host, self.port, timeout=seconds(20), context=self._context)

    def _exchange(
        self,
        connection: http.client.HTTPSConnection,
        method: str,
        path: str,
        data: bytes | None,
        headers: dict[str, str],
    ) -> tuple[int, str]:
        self._kept.connection = None
        connection.request(method, f"/{path}", data, headers)
        answer = connection.getresponse()
        text = answer.read().decode()
        self._kept.connection = connection
        return answer.status, text

    def path(self, kind: str, namespace: str | None = None, name: str = "") -> str:
        """The path of a kind, or of one object."""
        group, plural = PATHS[kind]
        everywhere = namespace is None or kind in CLUSTER_WIDE
        middle = "" if everywhere else f"namespaces/{namespace}/"
        return f"{group}/{middle}{plural}" + (f"/{name}" if name else "")

    def list(self, kind: str, namespace: str | None = None) -> list[dict[str, Any]]:
        """All objects of a kind."""
        found: list[dict[str, Any]] = self.request("GET", self.path(kind, namespace))["items"]
        return found

    def get(self, kind: str, namespace: str | None, name: str) -> dict[str, Any] | None:
        """One object, None when there is none."""
        try:
            found: dict[str, Any] = self.request("GET", self.path(kind, namespace, name))
        except ApiError as problem:
            if problem.code == 404:
                return None
            raise
        return found

    def create(self, kind: str, namespace: str | None, made: dict[str, Any]) -> None:
        """Create an object; its kind and version are filled in."""
        version = PATHS[kind][0].removeprefix("apis/").removeprefix("api/")
        self.request("POST", self.path(kind, namespace), {"apiVersion": version, "kind": kind, **made})

    def patch(
        self,
        kind: str,
        namespace: str | None,
        name: str,
        change: Any,
        *,
        status: bool = False,
    ) -> None:
        """Change an object or its status; gone is as good as changed."""
        path = self.path(kind, namespace, name) + ("/status" if status else "")
        try:
            self.request("PATCH", path, change, "application/merge-patch+json")
        except ApiError as problem:
            if problem.code != 404:
                raise

    def delete(self, kind: str, namespace: str | None, name: str, *, now: bool = False) -> None:
        """Delete an object; gone is as good as deleted."""
        # a Job's pods are left behind otherwise
        options: dict[str, Any] = {"propagationPolicy": "Background"}
        if now:
            options["gracePeriodSeconds"] = 0
        try:
            self.request("DELETE", self.path(kind, namespace, name), options)
        except ApiError as problem:
            if problem.code != 404:
                raise


def until(what: str, found: Callable[[], Any], timeout_s: float, every_s: float = 0.5) -> Any:
    """Wait for something true and return it; a server that does not answer in between is waited for as well.

    Raises:
        TimeoutError: naming it, and the last obstacle.
    """
    limit_s = seconds(timeout_s)
    end = time.monotonic() + limit_s
    while True:
        obstacle = ""
        try:
            result = found()
        except OSError as problem:
            result, obstacle = None, f" ({problem})"
        if result:
            return result
        if time.monotonic() > end:
            raise TimeoutError(f"not within {limit_s:g} s: {what}{obstacle}")
        time.sleep(every_s)
