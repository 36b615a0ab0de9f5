"""The names of metrics: spelled in the table alone, so that a renamed or misspelled one cannot go unnoticed."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import openrlhf_mtp
from openrlhf_mtp.runlog import metrics

PACKAGE = Path(openrlhf_mtp.__file__).parent
BELOW = PACKAGE / "config"
"""It may not import the table, and names a metric in a message now and then."""
SOURCES = [
    path
    for path in sorted(PACKAGE.rglob("*.py"))
    if path != Path(metrics.__file__) and not path.is_relative_to(BELOW)
]
FAMILIES = "|".join(
    sorted({metric.name.partition("/")[0] for metric in metrics.METRICS if "/" in metric.name})
)
NAME = re.compile(rf"(?<![\w./-])(?:eval/)?(?:{FAMILIES})/[a-z_]+(?![\w.-])")


def spelled(tree: ast.Module) -> Iterator[str]:
    """What looks like a metric's name in the strings of a file: keys, messages, f-strings; not in docstrings."""
    alone = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in alone:
            yield from NAME.findall(node.value)


def declared(name: str) -> bool:
    forms = (name, f"{name}/depth_{{j}}", f"{name}/engine_{{i}}")
    return any(metric.name in forms for metric in metrics.METRICS)


def test_the_search_finds_what_it_looks_for():
    code = "'''policy/reward'''\nrow['mtp/loss']\nf'eval/mtp/alpha/depth_{j}'\nsay('see sync/*, time/step_s')"
    assert list(spelled(ast.parse(code))) == ["mtp/loss", "eval/mtp/alpha", "time/step_s"]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_file_but_the_table_spells_a_metrics_name(path):
    found = spelled(ast.parse(path.read_text(encoding="utf-8")))
    assert [name for name in found if declared(name)] == []


def test_messages_of_the_room_below_name_declared_metrics():
    named = [
        name for path in BELOW.rglob("*.py") for name in spelled(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert "spec/logprob_gap" in named, "or the exception above can go"
    assert [name for name in named if not declared(name)] == []
