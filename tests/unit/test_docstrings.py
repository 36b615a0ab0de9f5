"""Docstrings that a reader can enter by: a room's table of its files, and first lines that are complete alone."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "openrlhf_mtp"
ROOMS = sorted(path.parent for path in PACKAGE.glob("*/__init__.py"))
MODULES = sorted(PACKAGE.rglob("*.py"))

ELLIPTIC = re.compile(r"(What|Where|Which|Of|Of which|For)\b")
"""Openings of a line that needs another sentence to be understood."""


def docstring(path: Path) -> str:
    return ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""


def rows(room: Path) -> list[str]:
    """Rows of the room's table and entries of its list."""
    return [line for line in docstring(room / "__init__.py").splitlines() if line.startswith(("| `", "- `"))]


def modules(text: str) -> set[str]:
    """Modules that a text names in backticks."""
    return {name.removesuffix(".py").split(".")[0] for name in re.findall(r"`([\w.]+)`", text)}


def held(room: Path) -> set[str]:
    """The room's modules and folders."""
    return {
        path.stem
        for path in room.iterdir()
        if (path.suffix == ".py" and path.stem != "__init__") or (path / "__init__.py").is_file()
    }


@pytest.mark.parametrize("room", ROOMS, ids=lambda room: room.name)
def test_a_rooms_table_names_its_files(room):
    assert held(room) - {name for row in rows(room) for name in modules(row)} == set(), "missing in the table"
    first_cells = {name for row in rows(room) if row[0] == "|" for name in modules(row.split("|")[1])}
    assert first_cells - held(room) == set(), "not in the folder"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_first_lines_are_complete_alone(path):
    assert [line for line in first_lines(path) if ELLIPTIC.match(line) or len(line.split()) < 3] == []


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_sentence_opens_with_a_relative_clause(path):
    texts = [" ".join(text.split()) for text in docstrings(path)]
    sentences = [sentence for text in texts for sentence in re.split(r"(?<=\.) ", text)]
    found = [one for one in sentences if re.match(r"(What|Where|Which)\b", one) and not one.endswith("?")]
    assert found == []


def first_lines(path: Path) -> list[str]:
    """First lines of the docstrings of a file."""
    return [text.splitlines()[0] for text in docstrings(path)]


def docstrings(path: Path) -> Iterator[str]:
    """Of the module and of every class and function in it that has one."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node)
            if text:
                yield text


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_with_code_has_a_docstring(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert docstring(path) or not tree.body


def test_the_search_finds_lines_that_say_nothing(tmp_path):
    (tmp_path / "module.py").write_text(
        '"""What it holds."""\ndef f():\n    """Of a group."""\nclass A:\n    """Complete by itself."""\n'
    )
    found = first_lines(tmp_path / "module.py")
    assert [bool(ELLIPTIC.match(line)) for line in found] == [True, True, False]
