"""Every line that the installed OpenRLHF's validation can print is one of our remarks, and of one only."""

import ast
import re

import pytest

from openrlhf_mtp.config.reading.old_names import name_today
from openrlhf_mtp.upstream.openrlhf import flags
from openrlhf_mtp.upstream.openrlhf.flags import flag_specs
from openrlhf_mtp.upstream.openrlhf.remarks import HARMLESS, REMARKS, SAID_ELSEWHERE, in_todays_names, remark


def printed() -> list[str]:
    """The constant text of each `print` of the validation."""
    lines = []
    for statement in flags._entry_point().validate:
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


def refusals() -> list[str]:
    """The constant text of each assertion's message."""
    messages = [
        node.msg
        for statement in flags._entry_point().validate
        for node in ast.walk(statement)
        if isinstance(node, ast.Assert) and node.msg is not None
    ]
    return ["".join(str(c.value) for c in ast.walk(one) if isinstance(c, ast.Constant)) for one in messages]


@pytest.mark.parametrize("text", refusals())
def test_a_refusal_in_our_words_has_no_flag_that_does_not_exist(text):
    said = in_todays_names(text)
    assert "--" not in said
    words = re.findall(r"(?<![\w.])[a-z]+(?:_[a-z]+)+", said)
    assert not [word for word in words if name_today(word) not in (None, word)]
