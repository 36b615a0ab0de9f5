"""What a job file says of a flag is what OpenRLHF's own parser reads, in every way to write it."""

import functools
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openrlhf_mtp.config.errors import JobError
from openrlhf_mtp.config.job import load_job
from openrlhf_mtp.config.reading.paths import PATHS
from openrlhf_mtp.config.reading.ranges import ORDERED, in_range
from openrlhf_mtp.config.reading.yaml_text import dump
from openrlhf_mtp.upstream.openrlhf.flags import flag_specs, parse_only

SPECS = flag_specs()
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)
WORDS = (
    "007",
    "1e3",
    "1.10",
    "off",
    "- x",
    "--x",
    "a=b",
    "a: b",
    "# no",
    "${HOME}",
    "$${X}",
    " x ",
    "'q'",
    "~",
    "<<",
    "a\x85b",
    "\u2028",
)


def allowed(name: str, value: object) -> bool:
    """Whether the table of ranges lets a number through."""
    try:
        in_range(name, value)
    except JobError:
        return False
    return True


def values(spec):
    """Legal values of a flag, as a job file has them; lists are lists."""
    if spec.kind == "switch":
        return st.just(True) if spec.default is True and spec.off_name is None else st.booleans()
    if spec.choices:
        return st.sampled_from(spec.choices)
    if spec.kind == "str":
        # what is a path becomes absolute, and that is tested elsewhere
        one = st.just("/data/x") if spec.name in PATHS else TEXTS | st.sampled_from(WORDS)
        return (
            one
            if spec.nargs is None
            else st.lists(st.sampled_from(["q_proj", "-1", "7", "${HOME}"]), max_size=3)
        )
    numbers = st.integers(-3, 2**31 - 1) if spec.kind == "int" else st.floats(allow_nan=False)
    near = st.integers(-1, 4) if spec.kind == "int" else st.floats(-1, 3) | st.floats(0, 1e-6)
    one = (near | numbers).filter(lambda number: allowed(spec.name, number))
    if spec.nargs is None:
        return one
    count = spec.nargs if isinstance(spec.nargs, int) else 2
    lists = st.lists(one.filter(lambda number: number != float("-inf")), min_size=count, max_size=count)
    if spec.name in ORDERED:
        lists = lists.map(sorted).filter(lambda pair: pair[0] < pair[1])
    return lists


jobs = st.fixed_dictionaries(
    {}, optional={name: values(spec) for name, spec in SPECS.items() if spec.opposite is None}
).filter(bool)


def as_upstream_has_it(tree: SimpleNamespace, name: str) -> object:
    return functools.reduce(lambda node, key: vars(node)[key], name.split("."), tree)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("parity")


@settings(max_examples=60)
@given(flags=jobs, nested=st.booleans())
def test_every_value_reaches_openrlhf_as_it_is_and_survives_a_run(folder, flags, nested):
    file = folder / "job.yaml"
    file.write_text(dump(nest(flags) if nested else flags), encoding="utf-8")
    job = load_job(file, [], SPECS)
    asked = parse_only(job.to_argv())
    for name, value in flags.items():
        assert as_upstream_has_it(asked, name) == value, name
    (folder / "run.yaml").write_text(job.dump_yaml(), encoding="utf-8")
    assert load_job(folder / "run.yaml", [], SPECS).flags == job.flags


@settings(max_examples=60)
@given(flags=jobs)
def test_every_value_reaches_openrlhf_from_the_command_line(folder, flags):
    (folder / "empty.yaml").write_text("mtp: {}\n", encoding="utf-8")
    given = [f"{name}={dump({'x': value})[3:-1]}" for name, value in flags.items()]
    asked = parse_only(load_job(folder / "empty.yaml", given, SPECS).to_argv())
    for name, value in flags.items():
        assert as_upstream_has_it(asked, name) == value, name


def nest(flags: dict[str, object]) -> dict[str, object]:
    """Sections in sections."""
    tree: dict[str, object] = {}
    for name, value in flags.items():
        *sections, leaf = name.split(".")
        node = functools.reduce(lambda inner, key: inner.setdefault(key, {}), sections, tree)
        node[leaf] = value
    return tree
