"""The shell's whole-number arithmetic, `$((GPUS / 2))`, for the four operations and the remainder."""

import ast
import re
from collections.abc import Mapping

_WRITTEN = re.compile(r"(?:[A-Za-z_]\w*|\d+(?![A-Za-z_\d])|[\s+*/%()-])*\Z", re.ASCII)
_MOST_DIGITS = 18
"""The shell counts in 64 bits; what is longer wraps around there and is not computed here."""


def evaluate(expression: str, variables: Mapping[str, str]) -> int | None:
    """The value, None when it needs more than known whole numbers and + - * / %.

    >>> evaluate("GPUS / 3 - 1", {"GPUS": "8"})
    1
    """
    text = re.sub(r"\$\{?([A-Za-z_]\w*)\}?", r"\1", expression).strip()
    if not _WRITTEN.match(text):
        return None
    try:
        value = _value(ast.parse(text, mode="eval").body, variables)
    except (SyntaxError, ValueError, ZeroDivisionError, RecursionError, MemoryError):
        return None
    return value if value is None or len(str(abs(value))) <= _MOST_DIGITS else None


def _value(node: ast.expr, variables: Mapping[str, str]) -> int | None:
    if isinstance(node, ast.Constant) and type(node.value) is int:
        return node.value
    if isinstance(node, ast.Name):
        text = variables.get(node.id, "")
        return int(text) if re.fullmatch(r"-?(?:0|[1-9]\d{0,17})", text, re.A) else None
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        inner = _value(node.operand, variables)
        return None if inner is None else -inner
    if not isinstance(node, ast.BinOp):
        return None
    left, right = _value(node.left, variables), _value(node.right, variables)
    if left is None or right is None:
        return None
    return _operation(node.op, left, right)


def _operation(operation: ast.operator, left: int, right: int) -> int | None:
    """As C does it: division cuts towards zero, the remainder has the sign of the left number."""
    if isinstance(operation, ast.Add):
        return left + right
    if isinstance(operation, ast.Sub):
        return left - right
    if isinstance(operation, ast.Mult):
        return left * right
    quotient = abs(left) // abs(right) * (1 if (left < 0) == (right < 0) else -1) if right else None
    if quotient is not None and isinstance(operation, ast.Div):
        return quotient
    if quotient is not None and isinstance(operation, ast.Mod):
        return left - right * quotient
    return None
