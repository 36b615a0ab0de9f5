"""Shifts along the tokens are in `losses.alignment`: read off the source, as far as source can tell.

A shift is written as a slice that drops the first or the last entries of an axis after the first, as `roll`, or as
padding of one side. What does so along another axis is listed with its axis.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import openrlhf_mtp

ROOT = Path(openrlhf_mtp.__file__).parent
SHIFTS = ROOT / "losses" / "alignment.py"
OTHER_AXES = {
    "losses/kernels/rows_torch.py": "the vocabulary",
    "losses/replayed_acceptance.py": "the number of accepted drafts, 0 to k, and the places of one response",
}
MOVING_CALLS = {"roll", "pad", "diff", "narrow", "unfold"}


def is_shift(index: ast.expr) -> bool:
    """Whether an index drops entries at one end of an axis after the first."""
    if not isinstance(index, ast.Tuple):
        return False
    for axis in index.elts[1:]:
        if isinstance(axis, ast.Slice) and axis.step is None and (axis.lower is None) != (axis.upper is None):
            bound = axis.lower or axis.upper
            is_negative = isinstance(bound, ast.UnaryOp) and isinstance(bound.op, ast.USub)
            if is_negative or axis.lower is not None:
                return True
    return False


def shifts(source: str) -> list[str]:
    """The shifts of a module, as text."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Subscript) and is_shift(node.slice):
            found.append(ast.unparse(node))
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute | ast.Name):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else node.func.id
            if name in MOVING_CALLS:
                found.append(ast.unparse(node))
    return found


@pytest.mark.parametrize(
    "shift",
    [
        "x[:, 1:]",
        "x[..., :-1]",
        "x[:, offset:]",
        "x.roll(-1, 1)",
        "torch.nn.functional.pad(x, (1, 0))",
        "x.diff()",
    ],
)
def test_a_shift_is_recognized(shift):
    assert shifts(shift) == [shift]


@pytest.mark.parametrize(
    "other", ["x[1:]", "x[..., 0]", "x[:, :vocab_size]", "x[:limit]", "x[at : at + size]"]
)
def test_what_keeps_tokens_in_place_is_none(other):
    assert shifts(other) == []


def test_no_other_file_of_losses_and_training_shifts_along_the_tokens():
    assert shifts(SHIFTS.read_text())
    found = {
        path.relative_to(ROOT).as_posix(): lines
        for room in ("losses", "training")
        for path in sorted((ROOT / room).rglob("*.py"))
        if path != SHIFTS and (lines := shifts(path.read_text()))
    }
    assert {name: lines for name, lines in found.items() if name not in OTHER_AXES} == {}
    assert set(OTHER_AXES) <= set(found), "an exception that nothing needs any more"
