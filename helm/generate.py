"""Write what follows from other files: values.schema.json, files/defaults.json and the table in the chart's README.md
from its values.yaml, and the Grafana dashboard from helm/dashboard.py.

    python -m helm.generate [--check]

A value's documentation is the comment above it; its type is that of its default, or null, which means the default. A
comment line `@schema {...}` holds JSON Schema to add, and words of ours: `free` (a map with any keys; true, or the type
of its values, also `quantity`), `quantity` (a Kubernetes quantity), `copies` (the section has the keys and defaults of
another one too) and `extends` (it may set the keys of another one for itself, and has no defaults for them).
"""

import copy
import json
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from helm.dashboard import dashboard

ROOT = Path(__file__).parents[1]

VALUES = ROOT / "helm" / "openrlhf-mtp" / "values.yaml"
SCHEMA = VALUES.with_name("values.schema.json")
DEFAULTS = VALUES.parent / "files" / "defaults.json"
DASHBOARD = VALUES.parent / "files" / "dashboard.json"
PAGE = VALUES.with_name("README.md")
BEGIN, END = "<!-- values: written by helm/generate.py -->", "<!-- end of values -->"

QUANTITY = r"^([0-9]+(\.[0-9]+)?(k|M|G|T|Ki|Mi|Gi|Ti)?)?$"
TYPES = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array", dict: "object"}
OURS = ("free", "quantity", "copies", "extends")
HEAD = "| value | default | meaning |\n|---|---|---|"


@dataclass
class Value:
    """One documented value. `path` is its dotted name."""

    path: str
    default: Any
    text: str = ""
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def is_section(self) -> bool:
        """Whether it holds documented values of its own."""
        return isinstance(self.default, dict) and "free" not in self.extra

    @property
    def parent(self) -> str:
        """The section whose keys it has too; empty: none."""
        parent: str = self.extra.get("extends") or self.extra.get("copies") or ""
        return parent


def read_values(path: Path = VALUES) -> list[Value]:
    """Every value of values.yaml in order; a nested default below a `free` value belongs to that value.

    Raises ValueError for a value without documentation.
    """
    text = path.read_text(encoding="utf-8")
    tree = yaml.safe_load(text)
    found: list[Value] = []
    stack: list[tuple[int, str]] = []
    comment: list[str] = []
    for line in text.splitlines():
        stripped = line.strip()
        if not stripped:
            comment = []
        elif stripped.startswith("#"):
            comment.append(stripped.removeprefix("#").removeprefix(" "))
        elif match := re.match(r"( *)([A-Za-z]\w*):", line):
            indent = len(match[1])
            stack = [*(entry for entry in stack if entry[0] < indent), (indent, match[2])]
            name = ".".join(entry[1] for entry in stack)
            if not any("free" in value.extra and name.startswith(f"{value.path}.") for value in found):
                found.append(_documented(name, _at(tree, name), comment))
            comment = []
    return found


def _documented(name: str, default: Any, comment: list[str]) -> Value:
    text = " ".join(line for line in comment if not line.startswith("@schema"))
    extra: dict[str, Any] = {}
    for line in comment:
        if line.startswith("@schema"):
            extra.update(json.loads(line.removeprefix("@schema")))
    value = Value(name, default, text, extra)
    if not text and not value.is_section:
        raise ValueError(f"values.yaml: {name} has no comment above it that says what it is")
    return value


def _at(tree: Any, name: str) -> Any:
    for key in name.split("."):
        tree = tree[key]
    return tree


def schema(values: list[Value]) -> dict[str, Any]:
    """JSON Schema of the values, closed: an unknown key is an error, except in maps that are free by nature."""
    properties = _properties("", values)
    # Helm hands a parent chart's shared values on under this key
    properties["global"] = {"type": "object"}
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Values of the chart openrlhf-mtp",
        "type": "object",
        "additionalProperties": False,
        "properties": properties,
    }


def _properties(section: str, values: list[Value]) -> dict[str, Any]:
    prefix = f"{section}." if section else ""
    return {
        value.path.removeprefix(prefix): _schema_of(value, values)
        for value in values
        if value.path.startswith(prefix) and "." not in value.path.removeprefix(prefix)
    }


def _schema_of(value: Value, values: list[Value]) -> dict[str, Any]:
    described = {"description": value.text} if value.text else {}
    return {**described, **_or_null(_own_schema(value, values))}


def _own_schema(value: Value, values: list[Value]) -> dict[str, Any]:
    given = {key: item for key, item in value.extra.items() if key not in OURS}
    if value.extra.get("quantity"):
        return {"type": "string", "pattern": QUANTITY, **given}
    if "free" in value.extra:
        items = value.extra["free"]
        inner = {} if items is True else {"additionalProperties": _item(items)}
        return {"type": "object", **inner, **given}
    if value.is_section:
        inherited = _properties(value.parent, values) if value.parent else {}
        own = _properties(value.path, values)
        for key, more in given.get("properties", {}).items():
            own[key] = {**own[key], **more}
        return {"type": "object", "additionalProperties": False, "properties": {**inherited, **own}}
    return {"type": TYPES.get(type(value.default), "string"), **given}


def _item(kind: str) -> dict[str, Any]:
    """What a map with any keys may hold: null takes a key away."""
    if kind == "quantity":
        return {"type": ["string", "null"], "pattern": QUANTITY}
    return {"type": [kind, "null"]}


def _or_null(made: dict[str, Any]) -> dict[str, Any]:
    """The schema with null allowed: Helm takes away what is null, and the chart puts the default there."""
    types = made["type"] if isinstance(made["type"], list) else [made["type"]]
    allowed = {"enum": [*made["enum"], None]} if "enum" in made else {}
    return {**made, "type": types if "null" in types else [*types, "null"], **allowed}


def defaults(values: list[Value]) -> dict[str, Any]:
    """What the templates put in place of a null (they cannot read values.yaml): `values`, the defaults of all but the
    groups of pods; `groups`, each group's own; `free`, the names of the maps whose keys are the user's."""
    tree: dict[str, Any] = {}
    for value in values:
        *above, key = value.path.split(".")
        section = tree
        for name in above:
            section = section[name]
        if value.is_section and "copies" in value.extra:
            section[key] = copy.deepcopy(_at(tree, value.parent))
        elif value.is_section:
            section[key] = {}
        else:
            section[key] = value.default
    groups = {value.path: tree.pop(value.path) for value in values if "extends" in value.extra}
    free = [value.path for value in values if "free" in value.extra]
    for value in values:
        if parent := value.extra.get("copies"):
            free += [value.path + name.removeprefix(parent) for name in free if name.startswith(f"{parent}.")]
    return {"free": free, "groups": groups, "values": tree}


def table(values: list[Value]) -> str:
    """Markdown: a table for the values without a section, then one for each section."""
    general = [value for value in values if "." not in value.path and not value.is_section]
    blocks = [[HEAD, *map(_row, general)]]
    for section in values:
        if "." in section.path or not section.is_section:
            continue
        title = f"**`{section.path}`** — {section.text}"
        if section.parent:
            title += f" {_inherits(section.parent)}"
        leaves = [
            value
            for value in values
            if value.path.startswith(f"{section.path}.") and (not value.is_section or value.parent)
        ]
        blocks.append([title, *(["", HEAD, *map(_row, leaves)] if leaves else [])])
    return "\n" + "\n\n".join("\n".join(block) for block in blocks)


def _inherits(parent: str) -> str:
    return f"Takes every key of `{parent}`."


def _row(value: Value) -> str:
    if value.is_section:
        return f"| `{value.path}.*` | | {_cell(value.text)} {_inherits(value.parent)} |"
    return f"| `{value.path}` | {_shown(value.default)} | {_cell(value.text)} |"


def _shown(default: Any) -> str:
    return "" if default in ("", None) else f"`{json.dumps(default)}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def page_with_table(page: str, made: str) -> str:
    """The page with the part between the two marks replaced."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{made}\n\n{END}{after}"


def outputs() -> dict[Path, str]:
    """Every generated file as it should be."""
    values = read_values()
    return {
        DASHBOARD: json.dumps(dashboard(), indent=2) + "\n",
        DEFAULTS: json.dumps(defaults(values), indent=2, ensure_ascii=False) + "\n",
        SCHEMA: json.dumps(schema(values), indent=2, ensure_ascii=False) + "\n",
        PAGE: page_with_table(PAGE.read_text(encoding="utf-8"), table(values)),
    }


def main(argv: list[str]) -> int:
    """Write the files, or with --check say which are out of date."""
    stale = [path for path, text in outputs().items() if not path.exists() or path.read_text("utf-8") != text]
    for path in stale:
        print(f"{'out of date' if '--check' in argv else 'written'}: {path.relative_to(ROOT)}")
        if "--check" not in argv:
            path.write_text(outputs()[path], encoding="utf-8")
    return 1 if stale and "--check" in argv else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
