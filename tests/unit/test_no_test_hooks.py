"""The product holds the product: what tests alone call is in the tests."""

import ast
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PRODUCT = {
    path.relative_to(ROOT).as_posix(): ast.parse(path.read_text(encoding="utf-8"))
    for path in sorted((ROOT / "openrlhf_mtp").rglob("*.py"))
}
CALLERS = [
    *(ROOT / "docs").glob("*.py"),
    *(path for path in (ROOT / "scripts").glob("*") if path.is_file()),
    *(ROOT / "examples").rglob("*.py"),
]
"""Beside the product: measurements of the documentation, generators, examples."""


def words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text))


def mentions(tree: ast.AST) -> Iterator[str]:
    """Names that code uses, also in short strings (calls by name, classes by import path), but not in docstrings."""
    prose = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if id(node) in prose:
            continue
        if isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.keyword) and node.arg is not None:
            yield node.arg
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and len(node.value) < 120:
            yield from words(node.value)


def offered(tree: ast.Module) -> Iterator[str]:
    """Public functions, classes and methods. A method of a subclass, and what is decorated, a framework may call."""
    for node in tree.body:
        if (
            isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
            and not node.decorator_list
        ):
            yield node.name
        if isinstance(node, ast.ClassDef) and not node.bases and not node.name.startswith("_"):
            for member in node.body:
                if isinstance(member, ast.FunctionDef | ast.AsyncFunctionDef) and not member.decorator_list:
                    yield member.name


def test_what_the_product_offers_is_used_outside_the_tests() -> None:
    used = Counter(name for tree in PRODUCT.values() for name in mentions(tree))
    for path in CALLERS:
        used.update(words(path.read_text(encoding="utf-8")))
    used.update(words((ROOT / "pyproject.toml").read_text(encoding="utf-8")))
    unused = [
        f"{file}: {name}"
        for file, tree in PRODUCT.items()
        for name in offered(tree)
        if not name.startswith("_") and not used[name]
    ]
    assert unused == []
