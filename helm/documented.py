"""The documented values of the chart: values.yaml, with the comment above each value and its `@schema` line."""

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
VALUES = ROOT / "helm" / "openrlhf-mtp" / "values.yaml"


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

    @property
    def only(self) -> list[str]:
        """Which keys of its parent it may set; empty: all."""
        only: list[str] = self.extra.get("only", [])
        return only

    def has_key_of(self, other: "Value") -> bool:
        """Whether its parent is the section of the other one, and hands that key on."""
        key = other.path.removeprefix(f"{self.parent}.")
        return (
            bool(self.parent) and key != other.path and (not self.only or key.partition(".")[0] in self.only)
        )


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
                found.append(_documented(name, at(tree, name), comment))
            comment = []
    return found


def paths_of(value: Value, values: list[Value]) -> list[str]:
    """The dotted names under which a user can give a value: its own, and that in each section that has its keys too."""
    heirs = [other for other in values if other.has_key_of(value)]
    own = {other.path for other in values}
    names = [heir.path + value.path.removeprefix(heir.parent) for heir in heirs]
    return [value.path, *(name for name in names if name not in own)]


def at(tree: Any, name: str) -> Any:
    """What a tree has under a dotted name."""
    for key in name.split("."):
        tree = tree[key]
    return tree


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
