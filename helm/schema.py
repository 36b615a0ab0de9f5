"""JSON Schema of the chart's values, and what its templates need to know of them, from the documented values.

The schema holds what JSON Schema says well: which keys there are, types, choices, limits of numbers, and the structure
of what goes into an object as it is (Kubernetes' own types). What a text may look like is checked by the templates, in
words: `kinds` and `texts` of `template_data`, from helm/kinds.py.
"""

import copy
import re
from functools import cache
from typing import Any

from kubernetes_validate.utils import all_versions, schema_contents

from helm.documented import Value, at, paths_of
from helm.kinds import KINDS

TYPES = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array", dict: "object"}
OURS = (
    "free",
    "quantity",
    "is",
    "each",
    "keys",
    "fields",
    "optional",
    "kubernetes",
    "copies",
    "extends",
    "only",
)
TEXTS = ("is", "each", "keys", "fields")
MOST = 2**31 - 1
"""A whole number has an upper limit: Kubernetes and KubeRay keep most of theirs in 32 bits."""

Schema = dict[str, Any]


def schema(values: list[Value]) -> Schema:
    """JSON Schema of the values, closed: an unknown key is an error, except in maps that are free by nature."""
    properties = _properties("", values)
    # Helm hands a parent chart's shared values on under this key
    properties["global"] = {"type": "object"}
    names = sorted({value.extra["kubernetes"] for value in values if "kubernetes" in value.extra})
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Values of the chart openrlhf-mtp",
        "type": "object",
        "additionalProperties": False,
        "properties": properties,
        "definitions": _kubernetes_types(names),
    }


def _properties(section: str, values: list[Value]) -> Schema:
    prefix = f"{section}." if section else ""
    return {
        value.path.removeprefix(prefix): _schema_of(value, values)
        for value in values
        if value.path.startswith(prefix) and "." not in value.path.removeprefix(prefix)
    }


def _schema_of(value: Value, values: list[Value]) -> Schema:
    described = {"description": value.text} if value.text else {}
    return {**described, **_or_null(_own_schema(value, values))}


def _own_schema(value: Value, values: list[Value]) -> Schema:
    given = {key: item for key, item in value.extra.items() if key not in OURS}
    if "free" in value.extra:
        return {"type": "object", **_free(value), **given}
    if value.is_section:
        inherited = _properties(value.parent, values) if value.parent else {}
        if value.only:
            inherited = {key: inherited[key] for key in value.only}
        own = _properties(value.path, values)
        return {"type": "object", "additionalProperties": False, "properties": {**inherited, **own}}
    made = {"type": TYPES.get(type(value.default), "string"), **given, **_items(value)}
    return {**made, "maximum": made.get("maximum", MOST)} if "integer" in made["type"] else made


def _free(value: Value) -> Schema:
    if name := value.extra.get("kubernetes"):
        return {"allOf": [{"$ref": f"#/definitions/{name}"}]}
    items = value.extra["free"]
    return {} if items is True else {"additionalProperties": {"type": [items, "null"]}}


def _items(value: Value) -> Schema:
    """The schema of a list's items; draft 7 ignores keywords beside a $ref."""
    more = value.extra.get("items", {})
    if name := value.extra.get("kubernetes"):
        return {"items": {"allOf": [{"$ref": f"#/definitions/{name}"}, {"type": "object", **more}]}}
    return {"items": {"type": "string"}} if "each" in value.extra else {}


def _or_null(made: Schema) -> Schema:
    """The schema with null allowed: Helm takes away what is null, and the chart puts the default there."""
    types = made["type"] if isinstance(made["type"], list) else [made["type"]]
    allowed = {"enum": [*made["enum"], None]} if "enum" in made else {}
    return {**made, "type": types if "null" in types else [*types, "null"], **allowed}


@cache
def _api() -> Schema:
    """Kubernetes' types by name, closed, of the newest version that kubernetes-validate knows."""
    newest = max(all_versions(), key=lambda version: [int(part) for part in version.split(".")])
    folder = f"kubernetes-json-schema/v{newest}-local-strict"
    types: Schema = schema_contents(f"{folder}/_definitions.json", ".".join(newest.split(".")[:2]))["$defs"]
    short = {re.sub(r"^.*\.", "", name): body for name, body in types.items() if ".core.v1." in name}
    source = {key: body for key, body in short["Volume"]["properties"].items() if key != "name"}
    made = {**short["Volume"], "properties": source, "required": [], "maxProperties": 1}
    return {**types, **short, "VolumeSource": made}


def _kubernetes_types(names: list[str]) -> Schema:
    """Definitions of some types and of all that they refer to, without descriptions."""
    found: Schema = {}
    wanted = list(names)
    while wanted:
        name = wanted.pop()
        if name not in found:
            found[name] = _bare(_api()[name], wanted)
    return dict(sorted(found.items()))


def _bare(node: Any, wanted: list[str]) -> Any:
    """A schema without prose and choices of both null, its references put into `wanted`."""
    if isinstance(node, list):
        return [_bare(item, wanted) for item in node]
    if not isinstance(node, dict):
        return node
    made: Schema = {}
    for key, item in node.items():
        if key == "$ref":
            wanted.append(item.rpartition("/")[2])
            made[key] = f"#/definitions/{wanted[-1]}"
        elif key == "properties":
            made[key] = {name: _bare(inner, wanted) for name, inner in item.items()}
        elif key == "oneOf":  # a text or a number, each with null
            made["anyOf"] = _bare(item, wanted)
        elif key != "description" and not key.startswith("x-"):
            made[key] = _bare(item, wanted)
    for name in made.get("required", []):  # to Kubernetes a null is nothing
        types = made["properties"][name].get("type")
        if isinstance(types, list):
            made["properties"][name] = {
                **made["properties"][name],
                "type": [one for one in types if one != "null"],
            }
    return made


def template_data(values: list[Value]) -> Schema:
    """What the templates know of the values, because they can read neither values.yaml nor the schema.

    `values`: the defaults of all but the groups of pods, put in place of a null; `groups`: each group's own; `free`:
    the maps whose keys are the user's; `texts`: which kind of text a value, the items of a list and their fields, or
    the keys and values of a map are (`optional`: nothing is allowed too); `kinds`: the kinds, from helm/kinds.py.
    """
    tree: Schema = {}
    for value in values:
        *above, key = value.path.split(".")
        section = at(tree, ".".join(above)) if above else tree
        if value.is_section:
            section[key] = copy.deepcopy(at(tree, value.extra["copies"])) if "copies" in value.extra else {}
        else:
            section[key] = value.default
    texts = [text for value in values for path in paths_of(value, values) for text in _texts(value, path)]
    named = [text[word] for text in texts for word in TEXTS if word in text]
    used = {name for one in named for name in (one.values() if isinstance(one, dict) else [one])}
    return {
        "free": [path for value in values if "free" in value.extra for path in paths_of(value, values)],
        "groups": {value.path: tree.pop(value.path) for value in values if "extends" in value.extra},
        "values": tree,
        "texts": texts,
        "kinds": {
            name: {"pattern": f"^({kind.pattern})$", "expected": kind.expected, "most": kind.most}
            for name, kind in sorted(KINDS.items())
            if name in used
        },
    }


def _texts(value: Value, path: str) -> list[Schema]:
    words = {word: value.extra[word] for word in TEXTS if word in value.extra}
    if value.extra.get("quantity"):
        words["is"] = "quantity"
    if "is" in words and value.default in ("", None):
        words["optional"] = value.default == ""
    if "optional" in value.extra:
        words["optional"] = value.extra["optional"]
    return [{"path": path, **words}] if words else []
