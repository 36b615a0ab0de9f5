"""Every line that the installed OpenRLHF's validation can print is one of our remarks, and of one only."""

import ast

import pytest

from openrlhf_mtp.upstream import openrlhf_flags
from openrlhf_mtp.upstream.openrlhf_flags import flag_specs
from openrlhf_mtp.upstream.openrlhf_remarks import HARMLESS, REMARKS, SAID_ELSEWHERE, remark


def printed() -> list[str]:
    """The constant text of each `print` of the validation."""
    lines = []
    for statement in openrlhf_flags._entry_point().validate:
        for node in ast.walk(statement):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "print":
                parts = [c.value for c in ast.walk(node.args[0]) if isinstance(c, ast.Constant)]
                lines.append("".join(map(str, parts)))
    return lines


def test_there_are_as_many_remarks_as_lines():
    assert len(printed()) == len(REMARKS)


@pytest.mark.parametrize("line", printed())
def test_a_line_is_one_remark(line):
    assert [one for one in REMARKS if one.piece in line] == [remark(line)]


def test_remarks_name_flags_that_exist():
    named = {one.setting for one in REMARKS} | HARMLESS.keys() | set(SAID_ELSEWHERE)
    assert named <= set(flag_specs())
