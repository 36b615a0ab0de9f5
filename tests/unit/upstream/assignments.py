"""Find assignments that put something into another package, by its syntax tree.

Found are: a name imported from another package with an attribute assigned (`torch.cuda.x = …`), `setattr` and `delattr`
on anything but `self`, writes into `__dict__`, `vars()` and `sys.modules`, a function that is assigned to an attribute
of anything but `self` (`strategy.backward = ours`), and `unittest.mock`. Data put on objects is not.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

OURS = "openrlhf_mtp"


@dataclass(frozen=True)
class Assignment:
    """Attributes:
    line: where it is.
    target: what is assigned to, as it is written.
    name: the attribute's name; None where the code computes it.
    """

    line: int
    target: str
    name: str | None


def assignments(path: Path) -> list[Assignment]:
    """All in a file, by line."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    foreign, functions = _foreign(tree), _functions(tree)
    found = [
        one
        for node in ast.walk(tree)
        for one in (*_assigned(node, foreign, functions), *_called(node), *_mocked(node))
    ]
    return sorted(found, key=lambda one: one.line)


def _foreign(tree: ast.Module) -> set[str]:
    """Names that an import binds to something of another package."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {(a.asname or a.name).split(".")[0] for a in node.names if a.name.split(".")[0] != OURS}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] != OURS:
            names |= {a.asname or a.name for a in node.names}
    return names


def _functions(tree: ast.Module) -> set[str]:
    """Names of functions that no parameter shares: an assigned parameter is data as far as this can see."""
    defined = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    parameters = {one.arg for node in ast.walk(tree) if isinstance(node, ast.arguments) for one in _all(node)}
    return {node.name for node in defined} - parameters


def _all(arguments: ast.arguments) -> list[ast.arg]:
    return [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]


def _assigned(node: ast.AST, foreign: set[str], functions: set[str]) -> Iterator[Assignment]:
    match node:
        case ast.Assign(targets=targets, value=value):
            pairs = [pair for target in targets for pair in _pairs(target, value)]
        case ast.AnnAssign(target=target, value=value) | ast.AugAssign(target=target, value=value):
            pairs = [(target, value)]
        case ast.Delete(targets=targets):
            pairs = [(target, None) for target in targets]
        case _:
            return
    for target, value in pairs:
        written = ast.unparse(target)
        if isinstance(target, ast.Subscript) and _is_namespace(target.value):
            yield Assignment(node.lineno, written, _constant(target.slice))
        elif isinstance(target, ast.Attribute):
            is_function = isinstance(value, ast.Lambda) or (
                isinstance(value, ast.Name | ast.Call) and _root(value) in functions
            )
            if _root(target) in foreign or (is_function and _root(target) != "self"):
                yield Assignment(node.lineno, written, target.attr)
            elif is_function and not isinstance(target.value, ast.Name) and isinstance(value, ast.Name):
                yield Assignment(node.lineno, written, target.attr)  # self.other.method = function


def _pairs(target: ast.expr, value: ast.expr) -> list[tuple[ast.expr, ast.expr]]:
    if isinstance(target, ast.Tuple):
        values = value.elts if isinstance(value, ast.Tuple) else [value] * len(target.elts)
        return list(zip(target.elts, values, strict=True))
    return [(target, value)]


def _called(node: ast.AST) -> Iterator[Assignment]:
    if not isinstance(node, ast.Call):
        return
    if isinstance(node.func, ast.Name) and node.func.id in ("setattr", "delattr"):
        if ast.unparse(node.args[0]) != "self":
            yield Assignment(node.lineno, ast.unparse(node), _constant(node.args[1]))
        return
    changes = isinstance(node.func, ast.Attribute) and node.func.attr in ("update", "pop", "setdefault")
    if changes and _is_namespace(node.func.value):
        yield Assignment(node.lineno, ast.unparse(node), None)


def _mocked(node: ast.AST) -> Iterator[Assignment]:
    if isinstance(node, ast.Import | ast.ImportFrom):
        names = [getattr(node, "module", None) or "", *(alias.name for alias in node.names)]
        if any(name.startswith("unittest") for name in names):
            yield Assignment(node.lineno, ast.unparse(node), None)


def _is_namespace(node: ast.expr) -> bool:
    written = ast.unparse(node)
    return written == "sys.modules" or written.endswith(".__dict__") or written.startswith("vars(")


def _constant(node: ast.expr) -> str | None:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None


def _root(node: ast.expr) -> str | None:
    while not isinstance(node, ast.Name):
        match node:
            case ast.Attribute(value=inner) | ast.Subscript(value=inner) | ast.Call(func=inner):
                node = inner
            case _:
                return None
    return node.id
