"""What Kueue 0.19 takes of a RayJob: which labels and annotations, on which objects, and the rules of its webhooks.

From its constants (apis/kueue/v1beta2, pkg/controller/constants) and webhooks (jobframework/tas_validation.go,
jobs/rayjob/rayjob_webhook.go).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

PREFIX = "kueue.x-k8s.io/"
QUEUE, PRIORITY = f"{PREFIX}queue-name", f"{PREFIX}priority-class"
TOPOLOGIES = (f"{PREFIX}podset-required-topology", f"{PREFIX}podset-preferred-topology")
GROUP = f"{PREFIX}podset-group-name"
LABEL_NAME = re.compile(r"([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")


def problems(made: dict[str, Any]) -> Iterator[str]:
    """Everything that Kueue would refuse, or not read, of a RayJob."""
    spec, meta = made["spec"], made["metadata"]
    labels = {name for name in meta.get("labels", {}) if name.startswith(PREFIX)}
    yield from (f"Kueue: label {name}" for name in sorted(labels - {QUEUE, PRIORITY}))
    if labels and QUEUE not in labels:
        yield "Kueue: no queue"
    if QUEUE in labels and not spec.get("shutdownAfterJobFinishes"):
        yield "Kueue: the cluster is not deleted after the job"
    yield from _strays("the RayJob", meta.get("annotations", {}))
    cluster = spec["rayClusterSpec"]
    templates = {"head": cluster["headGroupSpec"]["template"]}
    if "submitterPodTemplate" in spec:
        templates["submitter"] = spec["submitterPodTemplate"]
    for role, template in templates.items():  # they have no GPU, and their flavor need not have a topology
        yield from _strays(role, template["metadata"].get("annotations", {}))
    yield from _topology(cluster["workerGroupSpecs"], queued=QUEUE in labels)


def _strays(where: str, annotations: dict[str, str]) -> Iterator[str]:
    yield from (f"Kueue: {where}: annotation {name}" for name in annotations if name.startswith(PREFIX))


def _topology(groups: list[dict[str, Any]], *, queued: bool) -> Iterator[str]:
    requests = {}
    for group in groups:
        annotations = group["template"]["metadata"].get("annotations", {})
        own = {name: value for name, value in annotations.items() if name.startswith(PREFIX)}
        requests[group["groupName"]] = own
        where = f"Kueue: {group['groupName']}"
        yield from (f"{where}: annotation {name}" for name in own if name not in (*TOPOLOGIES, GROUP))
        levels = [own[name] for name in TOPOLOGIES if name in own]
        if own and (not queued or len(levels) != 1 or not LABEL_NAME.fullmatch(levels[0])):
            yield f"{where}: not one topology, or without a queue: {own}"
        if GROUP in own and own[GROUP].isdigit():
            yield f"{where}: a number as {GROUP}"
    named = [group for group in groups if GROUP in requests[group["groupName"]]]
    if named:
        same = len({tuple(sorted(requests[group["groupName"]].items())) for group in named}) == 1
        if len(named) != 2 or not same or min(group["replicas"] for group in named) != 1:
            yield "Kueue: a group is two alike, one with one pod"
