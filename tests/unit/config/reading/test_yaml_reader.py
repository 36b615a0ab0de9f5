"""Structure: aliases, merges, tags and keys; and the line of everything that is refused."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openrlhf_mtp.config.errors import JobError
from openrlhf_mtp.config.reading.values import written
from openrlhf_mtp.config.reading.yaml_reader import MOST_LEVELS, read

BOMB = "a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 10)}]\n" for old, new in zip("abcdef", "bcdefg", strict=True)
)


@pytest.mark.parametrize(
    ("text", "line", "expected"),
    [
        ("? [a, b]\n: 1", 1, "a list as a key"),
        ("a: 1\n? {a: b}\n: 1", 2, "a mapping as a key"),
        ("mtp:\n  [a]: 1", 2, "a list as a key"),
        ("a: &x 1\n*x : 2", 2, "an alias as a key"),
        ("a: 1\nb: !!int abc", 2, "!!int with 'abc'"),
        ("a: !!float abc", 1, "!!float with 'abc'"),
        ("a: !!bool maybe", 1, "!!bool with 'maybe'"),
        ("a: !!null x", 1, "!!null with 'x'"),
        ("a: !!timestamp abc", 1, "the tag !!timestamp is not for job files"),
        ("a: !!binary abc", 1, "the tag !!binary"),
        ("a: !!set {b, c}", 1, "the tag !!set"),
        ("a: !!python/name:os.system x", 1, "the tag !!python/name:os.system"),
        ("a: !own x", 1, "the tag !own"),
        ("\n\na: *x", 3, r"\*x: there is no anchor &x above it"),
        ("a: &x [1, *x]", 1, r"\*x is inside its own anchor"),
        ("a: &x\n  b: *x", 2, r"\*x is inside its own anchor"),
        ("a: &x 1\nb: &x [*x]", 2, r"\*x is inside its own anchor"),
        ("a: 1\nb: 2\na: 3", 3, "the key 'a' is given twice, in lines 1 and 3"),
        ("a:\n  <<: {b: 1}\n  <<: {c: 1}", 3, "a second `<<`"),
        ("a:\n  <<: 3", 2, r"`<<` takes a section's alias"),
        ("a:\n  <<: [{b: 1}, 3]", 2, r"`<<` takes a section's alias"),
        ("a: 1\n---\nb: 2", 2, "a second document begins"),
        ("a:\n  " + "[" * 60 + "]" * 60, 2, f"more than {MOST_LEVELS} levels"),
        ("- " * 5000, 1, f"more than {MOST_LEVELS} levels"),
        (
            "".join(" " * i + f"k{i}:\n" for i in range(500)),
            MOST_LEVELS + 1,
            f"more than {MOST_LEVELS} levels",
        ),
        ("a:\n" + "[" * 2000, 2, "while scanning a simple key"),
        (BOMB, 5, "the aliases expand to more than 100,000 values"),
        ("a: " + "9" * 5000, 1, "a number of 5,000 digits"),
        ("a: 1." + "9" * 4999, 1, "a number of 5,000 digits"),
        ('a: 1\nb: "\\uD800"', 2, "invalid Unicode character escape"),
        ("a: [1\n", 2, "while parsing a flow sequence"),
        ("a:\n\tb: 1", 2, "indent with spaces, not with tabs"),
        ("a: b: c", 1, "mapping values are not allowed"),
        ("a: 'x", 1, "unexpected end of stream"),
        ("%YAML 3.0\n---\na: 1", 1, "incompatible YAML document"),
        ("a: {b: ${X}}", 1, r'put a variable in quotes: "\$\{NAME\}"'),
        ("b: 1\na: ${NOBODY_SET_THIS}", 2, r"\$\{NOBODY_SET_THIS\}: the environment has no variable"),
    ],
)
def test_what_is_wrong_is_refused_with_its_line(text, line, expected):
    with pytest.raises(JobError, match=expected) as refusal:
        read(text, {})
    assert re.search(rf"\bline {line}: ", str(refusal.value)), str(refusal.value)
    assert len(str(refusal.value)) < 400


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a: {x: 1, y: 2}\nb: &b {y: 3}", {"a": {"x": 1, "y": 2}, "b": {"y": 3}}),
        ("a: &a {x: 1, y: 2}\nb: {<<: *a, y: 3}", {"a": {"x": 1, "y": 2}, "b": {"x": 1, "y": 3}}),
        ("b: {<<: [{x: 1}, {x: 2, y: 2}], z: 3}", {"b": {"x": 1, "y": 2, "z": 3}}),
        ("b: {y: 3, <<: {<<: {x: 1}, y: 2}}", {"b": {"x": 1, "y": 3}}),
        ("a: {'<<': 1}", {"a": {"<<": 1}}),
        ("a: &a [1]\nb: *a", {"a": [1], "b": [1]}),
        ("&k a: 1\nb: *k", {"a": 1, "b": "a"}),
        ("1: x\ntrue: y\n~: z", {"1": "x", "true": "y", "~": "z"}),
        ("a: !!str 007", {"a": "007"}),
        ("a: !!int 007", {"a": 7}),
        ("a: !!float 1", {"a": 1.0}),
        ("a: !!map {b: !!seq [1]}", {"a": {"b": [1]}}),
        ("a: ${X}", {"a": 8}),
        ("a: '${X}'", {"a": "8"}),
        ("a: ${X}/${X}", {"a": "8/8"}),
        ("a: ${EMPTY}", {"a": None}),
        ("a: |\n  one\n  two\n", {"a": "one\ntwo\n"}),
    ],
)
def test_structure_means_what_yaml_says(text, value):
    assert read(text, {"X": "8", "EMPTY": ""}) == value


def test_keys_know_their_lines_also_through_a_merge():
    tree = read("x-base: &base\n  a: 1\nb:\n\n  <<: *base\n  c: 2\n", {})
    assert tree.lines == {"x-base": 1, "b": 3}
    assert tree["b"].lines == {"a": 2, "c": 6}


def test_a_merge_leaves_the_base_as_it_was():
    tree = read("a: &a {x: 1}\nb: {<<: *a, y: 2}\nc: *a", {})
    assert tree["a"] == tree["c"] == {"x": 1}


def test_nothing_behind_a_colon_is_told_from_null():
    assert read("a:\nb: null\nc: ''\nd: # no more", {}).blank == {"a", "d"}


@given(st.from_regex(r"[-+]?[0-9]{1,30}(\.[0-9]{0,20})?([eE][-+]?[0-9]{1,2})?", fullmatch=True))
def test_a_number_knows_its_text(text):
    assert written(read(f"a: {text}", {})["a"]) == text
