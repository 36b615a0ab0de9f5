"""The table of guarantees names tests that exist, in their tier, and says rightly which of them run nightly only."""

import ast
import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
ROWS = [
    [cell.strip() for cell in line.strip("|\n").split("|")]
    for line in (TESTS / "README.md").read_text(encoding="utf-8").splitlines()
    if line.startswith("|") and "`" in line and len(line.split("|")) == 6 and ".py" in line
]
RAY = re.compile(
    r"ray\.init\(|rl_jobs\.(run|start)\(|ray_session\(|cluster_utils|ray\.scripts|ci_programs import start|--smoke"
)


def named(row):
    """(file, test or nothing) for each test that a row names."""
    return [tuple([*name.split("::"), ""][:2]) for name in re.findall(r"`([\w/]+\.py(?:::\w+)?)`", row[1])]


def source(file):
    return (TESTS / file).read_text(encoding="utf-8")


def is_nightly(file, test):
    """Whether the module's mark or all marks of the named (or of every) test say so."""
    tree = ast.parse(source(file))
    functions = [
        node
        for node in tree.body
        if isinstance(node, ast.FunctionDef) and node.name.startswith(test or "test_")
    ]
    marks = [node for node in tree.body if isinstance(node, ast.Assign) and "pytestmark" in ast.dump(node)]
    of_module = any("nightly" in ast.dump(mark) for mark in marks)
    own = [any("nightly" in ast.dump(mark) for mark in function.decorator_list) for function in functions]
    assert functions, f"{file} has no test {test}"
    return of_module or all(own)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_every_guarantee_names_tests_of_its_tier_that_run_when_it_says(row):
    _, _, tier, when = row
    assert named(row)
    for file, test in named(row):
        assert file.split("/")[0] in tier.split(", ")
        assert is_nightly(file, test) == (when == "nightly"), f"{file}::{test}"
        assert when in ("nightly", "make test")


@pytest.mark.parametrize("tier", ["engine", "cluster", "gpu"])
def test_every_module_of_the_expensive_tiers_guards_something(tier):
    in_table = {file for row in ROWS for file, _ in named(row)}
    missing = {f"{tier}/{path.name}" for path in (TESTS / tier).glob("test_*.py")} - in_table
    assert not missing, "tests/README.md says for every module what it guards"


@pytest.mark.parametrize("path", sorted((TESTS / "engine").glob("test_*.py")), ids=lambda path: path.name)
def test_what_starts_ray_runs_alone(path):
    starts_ray = RAY.search(path.read_text(encoding="utf-8")) is not None
    marks = re.search(r"^pytestmark = (.*)$", path.read_text(encoding="utf-8"), re.M)
    assert starts_ray == (marks is not None and "alone" in marks[1]), (
        "marked `alone` if and only if it starts Ray"
    )
