"""What a kubelet tells the API server of its pods."""

from __future__ import annotations

import urllib.request
from typing import Any

from tests.cluster.api import Api
from tests.cluster.container import Container


def report(api: Api, running: Container, phase: str, *, exit_code: int | None = None) -> None:
    """Write a pod's status."""
    ready = "True" if running.ready else "False"
    state: dict[str, Any] = {"running": {}} if exit_code is None else {"terminated": {"exitCode": exit_code}}
    container = {
        "name": running.spec["name"],
        "image": running.spec["image"],
        "imageID": "",
        "ready": running.ready,
        "started": True,
        "restartCount": running.restarts,
        "state": state,
    }
    status = {
        "phase": phase,
        "podIP": running.ip,
        "podIPs": [{"ip": running.ip}],
        "conditions": [{"type": kind, "status": ready} for kind in ("Ready", "ContainersReady")],
        "containerStatuses": [container],
    }
    api.patch("Pod", *running.key, {"status": status}, status=True)


def is_ready(running: Container) -> bool:
    """Whether the readiness probe is answered; ready at once where there is none."""
    probe = running.spec.get("readinessProbe", {}).get("httpGet")
    if probe is None:
        return True
    try:
        with urllib.request.urlopen(
            f"http://{running.ip}:{probe['port']}{probe['path']}", timeout=2
        ) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
