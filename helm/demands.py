"""What a run asks of a cluster, worked out from what the chart renders: the table of docs/kubernetes_admin.md.

    python -m helm.demands [--check]

Each values file of `helm/openrlhf-mtp/ci` has a row: its pods, the sum of their requests, which is what a queue or a
quota must cover, and the strictest of Kubernetes' Pod Security levels that takes all of them.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from helm.engine import CI_NAMES, ROOT, Rendered, render_ci

PAGE = ROOT / "docs" / "kubernetes_admin.md"
BEGIN, END = "<!-- demands: written by helm/demands.py -->", "<!-- end of demands -->"
HEAD = "| values file | pods | CPUs | memory, GiB | further resources | Pod Security level |\n|---|---|---|---|---|---|"
UNITS = {
    "m": Decimal("0.001"),
    "Ki": 2**10,
    "Mi": 2**20,
    "Gi": 2**30,
    "Ti": 2**40,
    "k": 10**3,
    "M": 10**6,
    "G": 10**9,
}
BESIDE = ("check", "test")
"""Pods that are there for a minute: while `helm install` runs, and while `helm test` does."""
DEFAULT_CAPABILITIES = {
    *("AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD", "NET_BIND_SERVICE"),
    *("SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT"),
}
"""What baseline lets a container add, from Kubernetes' Pod Security Standards."""
RESTRICTED_VOLUMES = {
    *(
        "configMap",
        "csi",
        "downwardAPI",
        "emptyDir",
        "ephemeral",
        "persistentVolumeClaim",
        "projected",
        "secret",
    ),
}


@dataclass(frozen=True)
class Pods:
    """Pods of one kind: how many, their role, and the template."""

    role: str
    count: int
    spec: dict[str, Any]


def pods(rendered: Rendered) -> Iterator[Pods]:
    """Every pod that a release makes, helpers and hooks included."""
    for made in rendered.objects:
        spec = made.get("spec", {})
        if made["kind"] == "Pod":
            yield Pods(made["metadata"]["labels"]["openrlhf-mtp.io/role"], 1, spec)
        elif made["kind"] == "RayJob":
            cluster = spec["rayClusterSpec"]
            yield _of(cluster["headGroupSpec"]["template"], 1)
            yield from (_of(group["template"], group["replicas"]) for group in cluster["workerGroupSpecs"])
            if "submitterPodTemplate" in spec:
                yield _of(spec["submitterPodTemplate"], 1)
        elif made["kind"] in ("Deployment", "StatefulSet", "Job"):
            yield _of(spec["template"], spec.get("replicas", 1))


def _of(template: dict[str, Any], count: int) -> Pods:
    return Pods(template["metadata"]["labels"]["openrlhf-mtp.io/role"], count, template["spec"])


def amount(text: object) -> Decimal:
    """A Kubernetes quantity as a number."""
    unit = str(text).lstrip("0123456789.")
    return Decimal(str(text).removesuffix(unit)) * UNITS.get(unit, 1)


def requests(rendered: Rendered) -> Counter[str]:
    """The sum of the requests of all pods that exist during the run, by resource."""
    total: Counter[str] = Counter()
    for one in pods(rendered):
        if one.role not in BESIDE:
            for container in one.spec["containers"]:
                for resource, text in container["resources"].get("requests", {}).items():
                    total[resource] += one.count * amount(text)  # type: ignore[assignment]
    return total


def level(rendered: Rendered) -> str:
    """The strictest Pod Security level that takes every pod."""
    specs = [one.spec for one in pods(rendered)]
    if any(True for spec in specs for _ in beyond_baseline(spec)):
        return "privileged"
    return "baseline" if any(True for spec in specs for _ in beyond_restricted(spec)) else "restricted"


def beyond_baseline(spec: dict[str, Any]) -> Iterator[str]:
    """What the level `baseline` does not take."""
    yield from (key for key in ("hostNetwork", "hostPID", "hostIPC") if spec.get(key))
    yield from (f"volume {volume['name']}" for volume in spec.get("volumes", []) if "hostPath" in volume)
    for container in containers(spec):
        context = container.get("securityContext", {})
        if context.get("privileged"):
            yield "privileged"
        yield from set(context.get("capabilities", {}).get("add", [])) - DEFAULT_CAPABILITIES
        yield from (
            f"hostPort {port['hostPort']}" for port in container.get("ports", []) if "hostPort" in port
        )


def beyond_restricted(spec: dict[str, Any]) -> Iterator[str]:
    """What the level `restricted` does not take, beside what `baseline` does not."""
    for volume in spec.get("volumes", []):
        yield from (
            f"volume {volume['name']}" for kind in set(volume) - {"name"} - RESTRICTED_VOLUMES if kind
        )
    pod = spec.get("securityContext") or {}
    for container in containers(spec):
        context = {**pod, **(container.get("securityContext") or {})}
        if context.get("runAsNonRoot") is not True or context.get("runAsUser") == 0:
            yield "may run as root"
        if context.get("allowPrivilegeEscalation") is not False:
            yield "privilege escalation"
        if context.get("seccompProfile", {}).get("type") not in ("RuntimeDefault", "Localhost"):
            yield "no seccomp profile"
        capabilities = context.get("capabilities", {})
        if "ALL" not in capabilities.get("drop", []) or set(capabilities.get("add", [])) - {
            "NET_BIND_SERVICE"
        }:
            yield "capabilities"


def containers(spec: dict[str, Any]) -> list[dict[str, Any]]:
    """All containers of a pod, those that come before the others included."""
    return [*spec["containers"], *spec.get("initContainers", [])]


def table() -> str:
    """A row for each values file."""
    return "\n".join([HEAD, *(row(name) for name in CI_NAMES)])


def row(name: str) -> str:
    """What one values file asks for."""
    rendered = render_ci(name)
    total = requests(rendered)
    cpus, memory = total.pop("cpu"), total.pop("memory")
    kinds = Counter({one.role: one.count for one in pods(rendered) if one.role not in BESIDE})
    shown = ", ".join(f"{count} {role}" if count > 1 else role for role, count in kinds.items())
    further = ", ".join(f"{resource} {_more(resource, total[resource])}" for resource in sorted(total))
    return (
        f"| `{name}` | {shown} | {_plain(cpus)} | {_plain(memory / 2**30)} | {further} | {level(rendered)} |"
    )


def _more(resource: str, total: Any) -> str:
    is_bytes = resource == "ephemeral-storage" or resource.startswith("hugepages-")
    return f"{_plain(total / 2**30)}Gi" if is_bytes else _plain(total)


def _plain(number: Any) -> str:
    return f"{Decimal(number).quantize(Decimal('0.01')).normalize():f}"


def page() -> str:
    """The page with its table as it should be."""
    text = PAGE.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    return f"{before}{BEGIN}\n\n{table()}\n\n{END}{rest.partition(END)[2]}"


def main(argv: list[str]) -> int:
    """Write the page, or with --check say that it is out of date."""
    if PAGE.read_text(encoding="utf-8") == page():
        return 0
    print(f"{'out of date' if '--check' in argv else 'written'}: {PAGE.relative_to(ROOT)}")
    if "--check" in argv:
        return 1
    PAGE.write_text(page(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
