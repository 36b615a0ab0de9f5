"""Values that nobody means, by the thousand: each is refused, by the schema or in words, or gives objects that
Kubernetes' schemas accept; never a traceback of a template.

    python -m tests.chart.fuzz [CASES] [SEED]

prints how many of each there were, and what went wrong. A case puts odd things in one or two places of a values
file: other types, nulls, long and odd texts, numbers out of range, odd entries of lists and maps.

Left out: templates within `extraObjects`, which are the user's own and may fail as they like. What the schemas do not
say (names that must be there, quantities and selectors within a user's own containers, affinities and volumes) the API
server alone decides.
"""

from __future__ import annotations

import random
import sys
from collections import Counter
from collections.abc import Iterator
from functools import cache
from typing import Any

import yaml

from helm.documented import paths_of, read_values
from helm.engine import CI_NAMES, ChartError, Rendered, ci_values, merged, render
from tests.chart import schemas

TRACEBACK = (
    "nil pointer",
    "error calling",
    "wrong type for value",
    'executing "',
    "runtime error",
    "can't evaluate",
    "incompatible types",
    "YAML parse error",
)
"""Words of Go's templates when one fails, and of Helm when a rendered file is no YAML."""

# fmt: off
TEXTS = [
    "", " ", "x", "-", "~", "null", "true", "no", "on", "1e3", "0x1F", "0o17", "2024", "2024-01-01", "1_000", ".5",
    "12:30:45", "=", "<<", "a b", " a", "a ", "a,b", "a:b", "a: b", "a #b", "#x", "*x", "&x", "!x", "%x", "@x", "`x`",
    "'", '"', "\\", "|", ">", "?", "[", "{", "}", "{{", "{{ .Values }}", "${X}", "$(HOME)", "$$(HOME)", "$HOME",
    "ä", "語", "🎉", "\u2028", "\x85", "\ufeff", "a\nb", "a\n", "\na", "a\r\nb", "\t", "\x00", "\x07", "---\na: b",
    "x" * 64, "x" * 300, "X", "../x", "/x", "/", "x/../y", "/usr", "/x/", "a/b", "a/b/c", "x.y/z", "http://x", "x@y",
    "0", "-1", "4", "1.5", "500m", "8Gi", "1Ti", "8GB", "0Gi", "1e3Gi", "9" * 30, "%s", "%!d", "a=b", "=b", "a=",
]
NUMBERS = [0, -1, 1, 2, 3, 7, 8, 16, 1.5, -0.5, 1e-9, 1e300, 1_209_600, 2**31 - 1, 2**31, 2**53, 2**63, 10**30]
SCALARS: list[Any] = [None, True, False, *NUMBERS, *TEXTS]
COMPOSED: list[Any] = [
    [], [None], [""], ["a"], ["a", "a"], [1], [True], [[]], [{}], [{"name": "a"}], [{"name": None}], [{"a": "b"}],
    {}, {"a": None}, {"a": "b"}, {"a": 1}, {"a": True}, {"a": []}, {"a": {"b": {"c": None}}}, {"": ""}, {"a b": "c"},
    {"app.kubernetes.io/name": "x"}, {"x.y/z": "w"}, {"nvidia.com/gpu": "1"}, {"name": "x"}, {"a": "x" * 70},
]
# fmt: on
ENTRIES = {
    "tolerations": {"key": "a", "operator": "Exists"},
    "topologySpread": {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"},
    "extraEnv": {"name": "A", "value": "b"},
    "envFrom": {"secretRef": {"name": "s"}},
    "extraVolumes": {"name": "v", "emptyDir": {}},
    "extraVolumeMounts": {"name": "scratch", "mountPath": "/mnt/v"},
    "initContainers": {"name": "i", "image": "x"},
    "extraContainers": {"name": "e", "image": "x"},
    "resourceClaims": {"name": "c", "resourceClaimName": "d"},
    "containerClaims": {"name": "c"},
    "hostAliases": {"ip": "10.0.0.1", "hostnames": ["a"]},
    "metricsFrom": {"podSelector": {}},
    "dashboardFrom": {"namespaceSelector": {}, "podSelector": {}},
    "extraObjects": {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}},
}
"""What an entry of a list looks like, by the list's key; a case puts something odd into one field of it."""

MAPS = {
    "volume": {"nfs": {"server": "s", "path": "/p"}},
    "affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []}},
    "podSecurityContext": {"runAsUser": 1, "seccompProfile": {"type": "RuntimeDefault"}},
    "securityContext": {"runAsUser": 1, "capabilities": {"drop": ["ALL"]}},
    "dnsConfig": {"nameservers": ["10.0.0.1"]},
    "operator": {"podSelector": {"matchLabels": {"a": "b"}}},
    "extraResources": {"hugepages-2Mi": "8Gi"},
    "nodeSelector": {"a": "b"},
    "labels": {"a": "b"},
    "annotations": {"a": "b"},
    "files": {"a.txt": "b"},
    "extraEnv": {"NCCL_ALGO": "Ring"},
}
"""The same for maps."""


class Strict(yaml.SafeLoader):
    """Refuses a key that is there twice."""

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        """A map, when each of its keys is there once."""
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        twice = sorted({str(key) for key in keys if keys.count(key) > 1})
        if twice:
            raise yaml.YAMLError(f"twice the key {', '.join(twice)}")
        return super().construct_mapping(node, deep)


for tag in ("value", "merge"):  # `=` and `<<` as values are texts to YAML 1.2 and to Go
    Strict.add_constructor(f"tag:yaml.org,2002:{tag}", yaml.SafeLoader.construct_yaml_str)


@cache
def defaults() -> dict[str, Any]:
    """Dotted name to default, of all values and sections, also of those that a section has from another."""
    values = read_values()
    return {path: value.default for value in values for path in paths_of(value, values)}


def odd(path: str, draw: random.Random) -> Any:
    """Something odd for a value: mostly of its own type, or odd in one field where it should have entries."""
    key = path.rpartition(".")[2]
    template = MAPS[key] if path.startswith("network.nccl.extraEnv") else {**MAPS, **ENTRIES}.get(key)
    if template is not None and draw.random() < 0.8:
        made = _odd_entry(template, draw)
        as_list = key in ENTRIES and template is ENTRIES[key]
        return [made, *([made] if draw.random() < 0.1 else [])] if as_list else made
    default = defaults()[path]
    own = {str: TEXTS, int: NUMBERS, bool: [True, False], list: COMPOSED, dict: COMPOSED}.get(
        type(default), SCALARS
    )
    return draw.choice(own if draw.random() < 0.7 else draw.choice([SCALARS, COMPOSED]))


def _odd_entry(template: dict[str, Any], draw: random.Random) -> dict[str, Any]:
    field = draw.choice([*template, *template, draw.choice(TEXTS)])
    own = (
        draw.choice([TEXTS, TEXTS, SCALARS, COMPOSED])
        if isinstance(template.get(field, ""), str)
        else COMPOSED
    )
    made = {**template, field: draw.choice(own)}
    if draw.random() < 0.1:
        made.pop(draw.choice(sorted(template)))
    return made


def at(path: str, value: Any) -> dict[str, Any]:
    """Values in which one path has a value."""
    for key in reversed(path.split(".")):
        value = {key: value}
    return value


def cases(seed: int, count: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """(values file, values on top of it): every path in turn, some with a second one beside it."""
    draw = random.Random(seed)
    paths: list[str] = []
    for _ in range(count):
        if not paths:
            paths = sorted(defaults())
            draw.shuffle(paths)
        given: dict[str, Any] = {}
        for path in [paths.pop(), *(draw.sample(sorted(defaults()), 1) if draw.random() < 0.3 else [])]:
            given = merged(given, at(path, odd(path, draw)))
        if "{{" not in str(given.get("extraObjects")):
            yield draw.choice(CI_NAMES), given


def verdict(name: str, given: dict[str, Any]) -> tuple[str, str]:
    """What becomes of a case ("schema", "words", "rendered", or a fault: "traceback", "invalid"), and why."""
    try:
        rendered = render(merged(ci_values(name), given))
    except ChartError as refusal:
        return _refusal(str(refusal))
    faults = sorted(set(invalid(rendered)))
    return ("invalid", "; ".join(faults[:3])) if faults else ("rendered", "")


def _refusal(text: str) -> tuple[str, str]:
    if any(words in text for words in TRACEBACK):
        return "traceback", text
    if text.strip().startswith("These values cannot run:"):
        return "words", text
    if "specifications of the schema" in text:
        return "schema", text
    return "traceback", text


def invalid(rendered: Rendered) -> Iterator[str]:
    """What Kubernetes' schemas refuse in what was rendered, and keys, mounts and names that are there twice."""
    try:
        objects = [
            made
            for name, text in rendered.files.items()
            if name.endswith(".yaml")
            for made in yaml.load_all(text, Loader=Strict)
            if made
        ]
    except yaml.YAMLError as problem:
        yield f"no YAML: {problem}"
        return
    for made in objects:
        if made["kind"] in ("ConfigMap", "x") and "openrlhf-mtp" not in str(made["metadata"].get("labels")):
            continue  # a user's own
        try:
            yield from schemas.problems(made, "1.32")
        except FileNotFoundError:
            continue  # of a kind that Kubernetes does not have: a user's own
        except (KeyError, TypeError, AttributeError) as problem:
            yield f"{made['kind']}: {type(problem).__name__} {problem}"
        for template in schemas.pod_templates(made):
            yield from _twice(made["kind"], template["spec"])


def _twice(kind: str, spec: dict[str, Any]) -> Iterator[str]:
    def repeated(what: str, names: list[Any]) -> Iterator[str]:
        names = [str(name) for name in names]
        yield from (f"{kind}: two {what} {name}" for name in sorted(set(names)) if names.count(name) > 1)

    volumes = [volume["name"] for volume in spec.get("volumes", [])]
    yield from repeated("volumes", volumes)
    every = [*spec.get("initContainers", []), *spec.get("containers", [])]
    yield from repeated("containers", [container["name"] for container in every])
    for container in every:
        mounts = container.get("volumeMounts", [])
        yield from repeated("mounts at", [str(mount["mountPath"]).rstrip("/") for mount in mounts])
        yield from repeated("variables", [one["name"] for one in container.get("env", [])])
        lost = {mount["name"] for mount in mounts} - set(volumes)
        yield from (f"{kind}: a mount of no volume {name}" for name in sorted(map(str, lost)))


def main(argv: list[str]) -> int:
    """Run that many cases; print the figures and every fault."""
    count, seed = int(argv[0]) if argv else 5000, int(argv[1]) if argv[1:] else 1
    figures: Counter[str] = Counter()
    for name, given in cases(seed, count):
        became, why = verdict(name, given)
        figures[became] += 1
        if became in ("traceback", "invalid"):
            print(f"{became}: {name} {given}\n    {why.strip()[-600:]}", flush=True)
    print(f"seed {seed}: {figures.total()} cases: {dict(sorted(figures.items()))}")
    return 1 if figures["traceback"] or figures["invalid"] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
