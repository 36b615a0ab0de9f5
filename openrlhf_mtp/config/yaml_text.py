"""YAML as job files use it: YAML 1.2's plain values, and a key given twice is an error.

PyYAML follows YAML 1.1, where `1e-6` is text and `off` is false; both would change what a job means
(`algo.advantage.is_correction_level: off` is one of OpenRLHF's choices).
"""

import re
from typing import Any

import yaml

from openrlhf_mtp.config.errors import JobError


class _Loader(yaml.SafeLoader):
    """SafeLoader with YAML 1.2's core schema and without silent duplicate keys."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: dict[Any, int] = {}
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            line = key_node.start_mark.line + 1
            if key in seen:
                raise JobError(
                    f"the key {key!r} is given twice, in lines {seen[key]} and {line}; keep one of them"
                )
            seen[key] = line
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {}
_INF_NAN = r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"
for _tag, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9]+", list("-+0123456789")),
    (
        "float",
        rf"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|{_INF_NAN}",
        list("-+.0123456789"),
    ),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"(?:{_pattern})\Z"), _first)


def _decimal(loader: _Loader, node: yaml.ScalarNode) -> int:
    """PyYAML's own constructor reads 010 as octal 8."""
    return int(loader.construct_scalar(node))


_Loader.add_constructor("tag:yaml.org,2002:int", _decimal)


def load(text: str, source: str) -> Any:
    """Parse one YAML document; `source` names it in errors.

    Raises:
        JobError: not YAML, or a key given twice.
    """
    try:
        return yaml.load(text, Loader=_Loader)
    except JobError as error:
        raise JobError(f"{source}: {error}") from error
    except yaml.YAMLError as error:
        raise JobError(f"{source} is not valid YAML: {error}") from error


class _Dumper(yaml.SafeDumper):
    """SafeDumper that quotes every text which YAML 1.1 or 1.2 would read as something else."""


def _represent_str(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    resolvers = [
        r for first in (value[:1], None) for r in _Loader.yaml_implicit_resolvers.get(first or "", [])
    ]
    ambiguous = any(pattern.match(value) for _, pattern in resolvers)
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style='"' if ambiguous else None)


_Dumper.add_representer(str, _represent_str)


def dump(tree: dict[str, Any]) -> str:
    """YAML text that `load` reads back to an equal tree, keys in the given order."""
    return yaml.dump(tree, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)
