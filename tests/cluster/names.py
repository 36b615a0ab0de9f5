"""Names of pods and services in a hosts file mounted into every pod: what a cluster's name server would know."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tests.cluster.container import Container
from tests.cluster.network import SERVER_IP


def lines(services: Iterable[dict[str, Any]], pods: Iterable[Container]) -> list[str]:
    """A line for each living pod, and one for each service and pod behind it."""
    living = [pod for pod in pods if not pod.ended]
    found = ["127.0.0.1 localhost", f"{SERVER_IP} kubernetes kubernetes.default.svc"]
    found += [f"{pod.ip} {pod.key[1]}" for pod in living]
    for service in services:
        selector, meta = service["spec"].get("selector"), service["metadata"]
        name, namespace = meta["name"], meta["namespace"]
        for pod in living:
            labels = pod.pod["metadata"].get("labels", {})
            if selector and pod.key[0] == namespace and selector.items() <= labels.items():
                found.append(f"{pod.ip} {name} {name}.{namespace} {name}.{namespace}.svc")
    return found


def rewrite(hosts: Path, found: list[str]) -> None:
    """In place, because a file that is mounted must not be replaced; at no time empty."""
    text = "\n".join(found) + "\n"
    if hosts.read_text(encoding="utf-8") == text:
        return
    with hosts.open("r+", encoding="utf-8") as file:
        file.write(text)
        file.truncate()
