"""Ray waits for its own processes as long as a slow, busy machine needs. Checked on ray 2.55.0.

Most of its limits are variables of the environment (`PATIENCE`). Two are constants of 30 s, which a machine with a load
of 20 passes: how long a driver waits for the node that it has just started, and how long the node (the raylet) waits
for its agent before it ends. The first is raised here. After the second a driver is told at once, to start again.
"""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable, Mapping, MutableMapping
from types import ModuleType
from typing import Any

import psutil

from openrlhf_mtp.upstream.patching import Patch

START_LIMIT = "OPENRLHF_MTP_RAY_START_S"
DEFAULT_START_LIMIT_S = 300.0

PATIENCE = {
    "RAY_agent_register_timeout_ms": "600000",  # 30 s; the node ends with its agent
    "RAY_worker_register_timeout_seconds": "600",  # 60 s, in which a worker imports everything
    "RAY_gcs_rpc_server_connect_timeout_s": "300",  # 5 s
    "RAY_py_gcs_connect_timeout_s": "300",  # 30 s
    "RAY_gcs_server_request_timeout_seconds": "600",  # 60 s
    "RAY_health_check_timeout_ms": "60000",  # 10 s
    "RAY_health_check_failure_threshold": "20",  # 5 in a row, then a node counts as dead
}
"""Variable -> value for a cluster on this machine; Ray's own value beside it."""


def be_patient(environ: MutableMapping[str, str] = os.environ) -> None:
    """Set what the user has not set. Before Ray is imported: it reads some of them then."""
    for name, value in PATIENCE.items():
        environ.setdefault(name, value)


def start_limit_s(environ: Mapping[str, str] = os.environ) -> float:
    """Seconds that a node may take to start."""
    return float(environ.get(START_LIMIT, DEFAULT_START_LIMIT_S))


class NodeEnded(Exception):
    """The node that this process started has ended before it was there; another one may come in time."""


def node_has_ended() -> bool:
    """Whether a raylet that this process started is over."""
    children = psutil.Process().children()
    return any(child.name() == "raylet" and child.status() == psutil.STATUS_ZOMBIE for child in children)


def patient(
    get_node: Callable[..., Any],
    limit_s: float,
    pause_s: float = 0.5,
    has_ended: Callable[[], bool] = node_has_ended,
) -> Callable[..., Any]:
    """`get_node`, which raises RuntimeError while the node is not there, trying for so long.

    It raises `NodeEnded` as soon as there is nothing to wait for.
    """

    @functools.wraps(get_node)
    def get_node_patiently(*args: Any, **kwargs: Any) -> Any:
        end = time.monotonic() + limit_s
        while True:
            try:
                return get_node(*args, **kwargs)
            except RuntimeError:
                if time.monotonic() > end:
                    raise
                if has_ended():
                    raise NodeEnded("Ray's node ended while it started") from None
            time.sleep(pause_s)

    return get_node_patiently


def _wait_longer(module: ModuleType) -> None:
    module.get_node = patient(module.get_node, start_limit_s())  # type: ignore[attr-defined]


PATCH = Patch(
    name="Ray's start has the time a slow machine needs",
    target="ray._private.services",
    touches=("get_node",),
    reason="ray._private.node gives a node 30 s to appear, whatever the machine",
    versions="ray 2.55.0",
    apply=_wait_longer,
    probe=lambda module: module.get_node.__code__.co_name == "get_node_patiently",
)
