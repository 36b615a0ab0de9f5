"""Variables: what is expanded, what stays, and that written-out text never is."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openrlhf_mtp.config.reading.variables import UndefinedVariableError, escape, expand

SHELL = {"HOME": "/home/me", "N": "8", "EMPTY": "", "LOOP": "${LOOP}"}


@pytest.mark.parametrize(
    ("words", "expanded"),
    [
        ("${HOME}/ckpt", "/home/me/ckpt"),
        ("${N}${N}", "88"),
        ("${EMPTY}", ""),
        ("${LOOP}", "${LOOP}"),
        ("${OTHER:-/tmp}/x", "/tmp/x"),
        ("${N:-1}", "8"),
        ("${EMPTY:-1}", "1"),
        ("$${HOME}", "${HOME}"),
        ("$$${HOME}", "$${HOME}"),
        ("$HOME $1 $$ $(ls) ${} ${1} ${a b} $x$ {HOME}", "$HOME $1 $$ $(ls) ${} ${1} ${a b} $x$ {HOME}"),
    ],
)
def test_only_a_name_in_braces_is_a_variable(words, expanded):
    assert expand(words, SHELL) == expanded


def test_a_variable_that_is_not_set_is_named_with_what_to_do():
    with pytest.raises(
        UndefinedVariableError, match=r"no variable DATA; set it \(export DATA=…\), or write \$\$\{DATA\}"
    ):
        expand("${DATA}/prompts.jsonl", SHELL)


@given(
    st.lists(st.sampled_from(["$", "{", "}", "HOME", "${HOME}", "X", ":-", "1", " "]), max_size=12).map(
        "".join
    )
)
def test_escaped_text_comes_back_whatever_it_is(words):
    assert expand(escape(words), SHELL) == words
