"""Scale a run's StatefulSets and keep its submitter's memory, through the API server with the pod's token."""

from __future__ import annotations

import json
import os
import ssl
import urllib.request
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
PROGRESS = "progress"
"""The memory's key."""


@dataclass(frozen=True)
class Progress:
    """The progress of a run, for a submitter that takes over.

    Attributes:
        started: when the first submitter began (seconds since 1970).
        attempt: number of the attempt, from 1.
        uncounted: attempts that failed in a row without the run's script having counted them.
        clearing: the pods of the attempt before are being replaced.
        exit_code: the run has ended with it; None before.
    """

    started: float
    attempt: int = 1
    uncounted: int = 0
    clearing: bool = False
    exit_code: int | None = None


class RunPods:
    """The pods of one run.

    Args:
        replicas: how many pods each StatefulSet has while the run lasts, by name.
        memory: the ConfigMap in which progress is kept.
        account: where the pod's token is.
    """

    def __init__(self, replicas: dict[str, int], memory: str, *, account: Path = ACCOUNT) -> None:
        self.replicas, self.memory = replicas, memory
        self._account = account

    def release(self) -> None:
        """Give all pods back."""
        for name in self.replicas:
            self._scale(name, 0)

    def restore(self) -> None:
        """Ask for all pods again."""
        for name, count in self.replicas.items():
            self._scale(name, count)

    def recall(self) -> Progress | None:
        """The record of an earlier submitter; None for the first."""
        text = (self._request("GET", self._memory_path()).get("data") or {}).get(PROGRESS)
        return None if text is None else Progress(**json.loads(text))

    def remember(self, progress: Progress) -> None:
        """Leave it for a later one."""
        self._request("PATCH", self._memory_path(), {"data": {PROGRESS: json.dumps(asdict(progress))}})

    def _memory_path(self) -> str:
        return f"api/v1/namespaces/{{namespace}}/configmaps/{self.memory}"

    def _scale(self, name: str, count: int) -> None:
        path = f"apis/apps/v1/namespaces/{{namespace}}/statefulsets/{name}/scale"
        self._request("PATCH", path, {"spec": {"replicas": count}})

    def _request(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        server = f"{os.environ['KUBERNETES_SERVICE_HOST']}:{os.environ['KUBERNETES_SERVICE_PORT']}"
        namespace = (self._account / "namespace").read_text(encoding="utf-8").strip()
        request = urllib.request.Request(
            f"https://{server}/{path.format(namespace=namespace)}",
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
