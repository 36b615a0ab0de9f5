"""What Kubernetes and KubeRay would say of an object, without either."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from jsonschema import Draft7Validator, Draft202012Validator
from kubernetes_validate.utils import all_versions, major_minor, schema_contents
from referencing import Registry, Resource

from tests.chart import kueue

VERSIONS = ("1.29", "1.32", "1.36")
OWN = {
    kind: Draft7Validator(
        json.loads((Path(__file__).parent / f"{kind.lower()}.schema.json").read_text(encoding="utf-8"))
    )
    for kind in ("RayJob", "PodMonitor")
}
QUANTITY = re.compile(r"[0-9]+(\.[0-9]+)?(m|k|M|G|T|Ki|Mi|Gi|Ti)?")
LABEL = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")


@cache
def _definitions(version: str) -> tuple[str, Registry]:
    """The folder of one Kubernetes version's strict schemas in kubernetes-validate, and their shared definitions."""
    exact = next(known for known in all_versions() if major_minor(known) == version)
    folder = f"kubernetes-json-schema/v{exact}-local-strict"
    shared = Resource.from_contents(schema_contents(f"{folder}/_definitions.json", version))
    return folder, (shared @ Registry()).crawl()


@cache
def _validator(kind: str, api_version: str, version: str) -> Draft202012Validator:
    """kubernetes-validate's own check of a kind, kept: its `validate` reads 2 MB of JSON at every call."""
    folder, registry = _definitions(version)
    group = re.sub(r"^([^./]*)(?:\.[^/]*)?/", r"\1-", api_version)
    schema = schema_contents(f"{folder}/{kind.lower()}-{group}.json", version)
    return Draft202012Validator(schema, registry=registry)


def problems(made: dict[str, Any], version: str) -> Iterator[str]:
    """Everything wrong with one object, for one version of Kubernetes."""
    where = f"{made['kind']} {made['metadata']['name']}"
    own = OWN.get(made["kind"]) or _validator(made["kind"], made["apiVersion"], version)
    for error in own.iter_errors(made):
        yield f"{where}: {error.json_path}: {error.message}"
    if made["kind"] == "RayJob":
        for template in pod_templates(made):
            for error in _validator("Pod", "v1", version).iter_errors(as_pod(template)):
                yield f"{where}: pod: {error.json_path}: {error.message}"
        yield from (f"{where}: {problem}" for problem in kueue.problems(made))
    # what no schema says
    if not NAME.fullmatch(made["metadata"]["name"]) or len(made["metadata"]["name"]) > 63:
        yield f"{where}: not a name"
    for name, value in made["metadata"].get("labels", {}).items():
        if not LABEL.fullmatch(value):
            yield f"{where}: label {name}: {value!r}"
    for template in pod_templates(made):
        for container in containers(template):
            for group in ("limits", "requests"):
                yield from (
                    f"{where}: {group} {name} {amount!r}"
                    for name, amount in container.get("resources", {}).get(group, {}).items()
                    if not QUANTITY.fullmatch(amount)
                )


def pod_templates(made: dict[str, Any]) -> list[dict[str, Any]]:
    """Every pod template in an object, a Pod being its own."""
    if made["kind"] == "Pod":
        return [made]
    spec = made.get("spec", {})
    if made["kind"] != "RayJob":
        return [spec["template"]] if "template" in spec else []
    cluster = spec["rayClusterSpec"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    submitter = [spec["submitterPodTemplate"]] if "submitterPodTemplate" in spec else []
    return [*(group["template"] for group in groups), *submitter]


def containers(template: dict[str, Any]) -> list[dict[str, Any]]:
    """Every container of a pod template."""
    return [*template["spec"].get("initContainers", []), *template["spec"]["containers"]]


def as_pod(template: dict[str, Any]) -> dict[str, Any]:
    """A template as a Pod of its own."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "x", **template["metadata"]},
        "spec": template["spec"],
    }
