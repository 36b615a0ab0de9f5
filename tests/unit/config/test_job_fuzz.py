"""Any job file or override either is a job, or it is refused with the file and the line."""

import contextlib
import io
import json
import math
import re
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openrlhf_mtp.cli import main as command_line
from openrlhf_mtp.config.errors import USER_ERROR, JobError, JobErrors
from openrlhf_mtp.config.job import load_job
from openrlhf_mtp.config.settings.section import mtp_names
from openrlhf_mtp.upstream.openrlhf.flags import flag_specs

SPECS = flag_specs()
NAMES = sorted([*SPECS, *mtp_names(), "mtp", "actor", "mtp.optim", "x-base", "actr.adam.lr", ""])

# What YAML is made of, and words that mean something to a job.
WORDS = (
    "actor mtp optim adam lr depths x-a train batch_size logger wandb run_name ? - : , [ ] { } & * ! | > ' \" % @ ` # "
    "&a *a *b << !!int !!float !!bool !!str !!null !!seq !!map !!set !!timestamp !!binary !!python/name:os.x ! --- "
    "... %YAML ~ null true yes off 1 0 -1 007 1e3 1e400 .inf -.inf .nan 0x1F 1_000 ${HOME} ${nothing_so} $${A} $x ${ "
    "\\uD800 \\x00 é 中"
)
SPACES = (" ", "  ", "\n", "\n  ", "\n    ", "\t", "\r\n", ": ", "- ", "\ufeff", "\x85", "\0")
TOKENS = (*WORDS.split(), *SPACES, "9" * 5000, "[" * 60)
HARD = (
    "0.2 0.27",
    "1,2",
    "3",
    "~/x",
    "~nobody/x",
    "${HOME}/x",
    "$HOME",
    "-1e-6",
    "a" * 300,
    "\0",
    "/" * 5000,
)


class Written(str):
    """Text that goes into a job file without quotes."""


scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-3, 12),
    st.just(Written("9" * 5000)),
    st.just(Written("1e400")),
    st.floats(),
    st.text(max_size=12),
    st.sampled_from(HARD),
)
anything = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def as_yaml(value: object) -> str:
    """Flow style, which is JSON but for a few numbers; keys are quoted."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(str(k))}: {as_yaml(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(as_yaml, value)) + "]"
    if isinstance(value, float) and not math.isfinite(value):
        return str(value).replace("inf", ".inf").replace("nan", ".nan")
    return value if isinstance(value, Written) else json.dumps(value, ensure_ascii=False)


def load_or_refuse(content: bytes, *overrides: str, folder: Path) -> None:
    """Load a job. An error of another kind than a refusal, or a refusal without its place, fails the test."""
    file = folder / "job.yaml"
    file.write_bytes(content)
    try:
        load_job(file, overrides, SPECS)
        return
    except JobErrors as errors:
        message = str(errors)
        places = [re.search(r"\(line \d+\)$|\(command line\)$|^override: ", one) for one in errors.problems]
        assert all(places), message
    except JobError as error:
        message = str(error)
        assert re.search(r"job\.yaml.*\bline \d+\b", message), message
    assert "job.yaml" in message
    of_python = ("None", "True", "False", "<unicode string>", "<class", "Traceback")
    given = content.decode(errors="replace") + " ".join(overrides)
    assert not [word for word in of_python if word in message and word not in given], message
    assert max(map(len, message.splitlines())) < 1000
    message.encode()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for all examples."""
    return tmp_path_factory.mktemp("fuzz")


@settings(max_examples=150)
@given(content=st.binary(max_size=60))
def test_any_bytes(folder, content):
    load_or_refuse(content, folder=folder)


@settings(max_examples=400)
@given(tokens=st.lists(st.sampled_from(TOKENS), max_size=25))
def test_anything_made_of_what_yaml_is_made_of(folder, tokens):
    load_or_refuse("".join(tokens).encode(), folder=folder)


@settings(max_examples=300)
@given(values=st.dictionaries(st.sampled_from(NAMES), anything, min_size=1, max_size=4))
def test_any_value_of_any_setting(folder, values):
    text = "\n".join(f"{json.dumps(name)}: {as_yaml(value)}" for name, value in values.items())
    load_or_refuse(text.encode(), folder=folder)


@settings(max_examples=300)
@given(
    name=st.sampled_from(NAMES) | st.text(max_size=8),
    value=st.one_of(
        anything.map(as_yaml),
        st.text(st.characters(), max_size=15),
        st.lists(st.sampled_from(TOKENS), max_size=6).map("".join),
    ),
)
def test_any_override(folder, name, value):
    load_or_refuse(b"train: {seed: 1}\n", f"{name}={value}", folder=folder)


COMPLETE = """
actor: {model_name_or_path: Org/policy, num_gpus_per_node: 4}
data: {prompt_dataset: Org/prompts}
reward: {remote_url: "http://localhost:5000/score"}
vllm: {num_engines: 4}
train: {batch_size: 128}
rollout: {batch_size: 128, n_samples_per_prompt: 8}
algo: {advantage: {estimator: group_norm}}
mtp: {depths: 3}
"""


@settings(max_examples=60)
@given(name=st.sampled_from([*SPECS, *mtp_names()]), value=anything.map(as_yaml))
def test_check_ends_with_a_verdict_and_never_with_a_traceback(folder, name, value):
    file = folder / "complete.yaml"
    file.write_text(COMPLETE)
    code, said = check(str(file), "--gpus", "8", "--no-files", "--", f"{name}={value}")
    assert code == (USER_ERROR if any(line.startswith("error: ") for line in said) else 0)
    assert all(line.startswith(("error: ", "warning: ", "  ")) for line in said)


def check(*arguments: str) -> tuple[int, list[str]]:
    """Exit code and lines of standard error; any exception but an exit fails the test."""
    errors = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["openrlhf-mtp", "check", *arguments])
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(errors):
            try:
                command_line.main()
            except SystemExit as end:
                return int(end.code or 0), errors.getvalue().splitlines()
    raise AssertionError("the command did not end with an exit code")
