"""YAML as job files use it: YAML 1.2's plain values, the environment's variables, and a key given twice is an error.

PyYAML follows YAML 1.1, where `1e-6` is text and `off` is false; both would change what a job means
(`algo.advantage.is_correction_level: off` is one of OpenRLHF's choices).
"""

import os
from typing import Any

import yaml

from openrlhf_mtp.config.errors import JobError
from openrlhf_mtp.config.reading.variables import escape
from openrlhf_mtp.config.reading.yaml_reader import PLAIN, read

UNICODE_BREAKS = frozenset("\x85\u2028\u2029")


def load(text: str, source: str) -> Any:
    """Parse one YAML document; `source` names it in errors.

    Mappings know their lines (`yaml_reader.Section`), numbers their text (`values.WrittenInt`), and `${NAME}` is the
    environment's (`variables`).

    Raises:
        JobError: not YAML, or something that no job file has; with `source` and the line.
    """
    try:
        return read(text, os.environ)
    except JobError as error:
        link = " " if str(error).startswith("is ") else ", "
        raise type(error)(f"{source}{link}{error}") from error


class _Dumper(yaml.SafeDumper):
    """SafeDumper that quotes every text which YAML 1.1 or 1.2 would read as something else."""


def _represent_str(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    ambiguous = any(pattern.match(value) for pattern in PLAIN.values())
    # unquoted and in single quotes these fold to a space when they are read: YAML 1.1 has them as line breaks
    breaks = not UNICODE_BREAKS.isdisjoint(value)
    style = '"' if ambiguous or breaks else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", escape(value), style=style)


_Dumper.add_representer(str, _represent_str)


def dump(tree: dict[str, Any]) -> str:
    """YAML text that `load` reads back to an equal tree, keys in the given order."""
    return yaml.dump(tree, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)
