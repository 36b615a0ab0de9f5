"""The names of a run folder's files: written down once, however many rooms use them."""

import ast
from pathlib import Path

import pytest

from openrlhf_mtp.config import run_files

PACKAGE = Path(run_files.__file__).parents[1]
NAMES = {value: name for name, value in vars(run_files).items() if name.isupper()}
SOURCES = [path for path in sorted(PACKAGE.rglob("*.py")) if path != Path(run_files.__file__)]


def spelled(tree: ast.Module) -> list[str]:
    """Names of run files as a file spells them itself: any with a suffix, and any that is joined to a folder."""
    whole = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)]
    joined = [
        node.right.value
        for node in ast.walk(tree)
        if isinstance(node, ast.BinOp)
        and isinstance(node.op, ast.Div)
        and isinstance(node.right, ast.Constant)
    ]
    return [value for value in whole if value in NAMES and "." in value] + [v for v in joined if v in NAMES]


def test_the_search_finds_what_it_looks_for():
    code = "out / 'head'\nopen('run.yaml')\nstages = ['head']\nprint('see run.yaml')"
    assert sorted(spelled(ast.parse(code))) == ["head", "run.yaml"]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_file_spells_a_run_files_name_itself(path):
    assert spelled(ast.parse(path.read_text(encoding="utf-8"))) == []


def test_the_list_says_what_each_name_is():
    for name in NAMES:
        assert name in (run_files.__doc__ or "")
