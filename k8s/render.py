"""Write the plain manifests of this folder from the chart, one file a topology.

    python -m k8s.render [--check]

What only Helm needs is left out (hooks, hashes in names, its labels), so that the files can be read, edited and applied
with kubectl. A claim goes into a file of its own, TOPOLOGY-volume.yaml: deleting a run must not delete what it has
made. A test compares them with the chart.
"""

import re
import sys
from pathlib import Path
from typing import Any

import yaml

from helm.engine import EXAMPLES, ci_values, job_values, merged, render

FOLDER = Path(__file__).parent
NAME = "run1"
"""A run's name; nothing else in the files may look like it, because it is replaced for a second run."""
HELM_LINE = re.compile(r"^\s*(app\.kubernetes\.io/managed-by|helm\.sh/chart|immutable): .*\n", re.MULTILINE)


def two_nodes() -> dict[str, Any]:
    """Trainer and rollout on a node each, everything on one volume under /shared."""
    places = {"checkpoints": "runs", "modelCache": "models", "data": "data"}
    storage = {
        name: {"existingClaim": "shared", "subPath": place, "mountPath": f"/shared/{place}"}
        for name, place in places.items()
    }
    head = {"overrides": ["mtp.head=/shared/runs/llama-head/head"]}
    return merged(job_values(EXAMPLES / "llama-3.1-8b_2nodes" / "job.yaml", storage=storage), {"job": head})


TOPOLOGIES: dict[str, tuple[str, dict[str, Any]]] = {
    "one-gpu": ("One GPU that trainer and engine share; Qwen2.5-0.5B on GSM8K.", ci_values("one-gpu")),
    "one-node": ("One node with 8 GPUs, both roles in one pod; Qwen3-8B.", ci_values("one-node-colocated")),
    "two-nodes": ("Two nodes with 8 GPUs: one trains, one rolls out; Llama-3.1-8B.", two_nodes()),
    "four-nodes": ("Four nodes with 8 GPUs: two train, two roll out; Qwen3-8B.", ci_values("four-nodes")),
    "cpu": ("No GPU and no operator: the quickstart's job on plain StatefulSets.", ci_values("cpu-smoke")),
}
PLAIN = {"monitoring": {"podMonitor": False, "dashboard": False, "tensorboard": False}}
CLAIM = "PersistentVolumeClaim"


def manifests(topology: str, name: str = NAME) -> dict[str, str]:
    """The files of a topology, name to text: the run, and what it claims if it claims something."""
    title, values = TOPOLOGIES[topology]
    rendered = render(merged(values, {**PLAIN, "job": {"runName": name}}), name=name, namespace="default")
    documents: dict[bool, list[str]] = {False: [], True: []}
    for file, part in sorted(rendered.files.items()):
        for text in re.split(r"^---\n", part, flags=re.MULTILINE) if file.endswith(".yaml") else []:
            if (made := yaml.safe_load(text)) and not is_hook(made):
                documents[made["kind"] == CLAIM].append(cleaned(text, name))
    titles = {f"{topology}.yaml": title}
    if documents[True]:
        titles[f"{topology}-volume.yaml"] = f"The volume of {topology}.yaml; it outlives the run."
    written = (
        "Written by `python -m k8s.render` from the chart; README.md says what to change before applying it."
    )
    return {
        file: f"# {about}\n# {written}\n---\n" + "---\n".join(documents[file.endswith("-volume.yaml")])
        for file, about in titles.items()
    }


def is_hook(made: dict[str, Any]) -> bool:
    """Whether only Helm would run it."""
    return "helm.sh/hook" in (made["metadata"].get("annotations") or {})


def cleaned(text: str, name: str) -> str:
    """An object's text without what only Helm reads; names without the hash."""
    text = re.sub(rf"\b{name}-[0-9a-f]{{8}}\b", name, HELM_LINE.sub("", text))
    text = re.sub(r"  annotations:\n\s*# .*\n\s*helm\.sh/resource-policy: keep\n", "", text)
    return "\n".join(line.rstrip() for line in text.strip().splitlines()) + "\n"


def main(argv: list[str]) -> int:
    """Write the files, or with --check say which differ."""
    made = {file: text for topology in TOPOLOGIES for file, text in manifests(topology).items()}
    stale = [
        file
        for file, text in made.items()
        if not (FOLDER / file).exists() or (FOLDER / file).read_text(encoding="utf-8") != text
    ]
    for file in stale:
        print(f"{'out of date' if '--check' in argv else 'written'}: k8s/{file}")
        if "--check" not in argv:
            (FOLDER / file).write_text(made[file], encoding="utf-8")
    return 1 if stale and "--check" in argv else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
