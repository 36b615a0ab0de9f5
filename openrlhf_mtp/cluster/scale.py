"""Number of pods of the run's StatefulSets, through the API server with the pod's own token; no client library."""

from __future__ import annotations

import json
import os
import ssl
import urllib.request
from pathlib import Path
from typing import Any

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


class StatefulSets:
    """The StatefulSets of one run, by name."""

    def __init__(self, replicas: dict[str, int], *, account: Path = ACCOUNT) -> None:
        """`replicas` is how many pods each has while the run lasts."""
        self.replicas = replicas
        self._account = account

    def released(self) -> bool:
        """Whether every one has been scaled to nothing: the run has ended."""
        return all(self._request(name, "GET")["spec"].get("replicas", 0) == 0 for name in self.replicas)

    def release(self) -> None:
        """Give all pods back."""
        for name in self.replicas:
            self._scale(name, 0)

    def restore(self) -> None:
        """Ask for all pods again."""
        for name, count in self.replicas.items():
            self._scale(name, count)

    def _scale(self, name: str, count: int) -> None:
        self._request(name, "PATCH", {"spec": {"replicas": count}})

    def _request(self, name: str, method: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        server = f"{os.environ['KUBERNETES_SERVICE_HOST']}:{os.environ['KUBERNETES_SERVICE_PORT']}"
        namespace = (self._account / "namespace").read_text(encoding="utf-8").strip()
        request = urllib.request.Request(
            f"https://{server}/apis/apps/v1/namespaces/{namespace}/statefulsets/{name}/scale",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={
                "Authorization": f"Bearer {(self._account / 'token').read_text(encoding='utf-8').strip()}",
                "Content-Type": "application/merge-patch+json",
            },
        )
        context = ssl.create_default_context(cafile=str(self._account / "ca.crt"))
        with urllib.request.urlopen(request, timeout=30, context=context) as answer:
            parsed: dict[str, Any] = json.load(answer)
        return parsed
