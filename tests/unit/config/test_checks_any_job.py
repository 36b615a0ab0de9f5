"""Whatever a job's flags are, if each is one that its flag may have: a plan and problems, never an exception."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openrlhf_mtp.cli.jobs import upstream_problems
from openrlhf_mtp.config.errors import JobError
from openrlhf_mtp.config.job import Job, load_job
from openrlhf_mtp.config.job_context import JobContext
from openrlhf_mtp.config.machine.host import Host
from openrlhf_mtp.config.plan import make_plan, render
from openrlhf_mtp.config.reading.flag_spec import FlagSpec
from openrlhf_mtp.config.reading.ranges import LARGEST_WHOLE, RANGES, in_range
from openrlhf_mtp.upstream.openrlhf.flags import flag_specs
from tests.unit.config import equipped

SPECS = flag_specs()


def values(spec: FlagSpec) -> st.SearchStrategy[Any]:
    """What the flag may be, at the edges of its range too."""
    if spec.kind == "switch":
        return st.just(spec.default is not True) if spec.off_name is None else st.booleans()
    if spec.choices:
        return st.sampled_from(spec.choices)
    if spec.kind == "str":
        words = st.sampled_from(
            ["", "a", "./policy", "x,y", "{}", "flash_attention_2", "http://x", "reward.py"]
        )
        return words if spec.nargs is None else st.lists(words, min_size=1, max_size=2).map(tuple)
    allowed = RANGES[spec.name]
    edges = [one for one in (allowed.low, allowed.high, 0, 1, 2, 3, 7, 128, LARGEST_WHOLE) if one is not None]
    numbers = st.sampled_from([one for one in edges if one in allowed])
    if spec.kind == "float":
        numbers = (
            (numbers | st.floats(allowed.low, allowed.high, allow_nan=False))
            .map(float)
            .filter(allowed.__contains__)
        )
    else:
        numbers = numbers.map(int)
    count = spec.nargs if isinstance(spec.nargs, int) else 2
    return (
        numbers
        if spec.nargs is None
        else st.tuples(*[numbers] * count).filter(lambda two: fits(spec.name, two))
    )


def fits(name: str, value: Any) -> bool:
    """Whether the flag may be this."""
    try:
        in_range(name, value)
    except JobError:
        return False
    return True


@st.composite
def flags(draw: st.DrawFn) -> dict[str, Any]:
    """Up to eight flags with values that each may have."""
    names = draw(st.lists(st.sampled_from(sorted(SPECS)), max_size=8, unique=True))
    return {name: draw(values(SPECS[name])) for name in names if name != "use_ms"}


@pytest.fixture(scope="module")
def right(tmp_path_factory: pytest.TempPathFactory) -> Job:
    """The job of `equipped`, in its folder."""
    folder = tmp_path_factory.mktemp("equipped")
    equipped.fill(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        return load_job(Path("job.yaml"), [], SPECS)


HOSTS = (Host(0), Host(8, 80.0), Host(0, driver_problem="nvidia-smi failed"))


@settings(deadline=None, max_examples=150)
@given(changed=flags(), host=st.sampled_from(HOSTS), width=st.integers(40, 120), head=st.booleans())
def test_any_job_has_a_plan_and_problems_that_name_settings(right, changed, host, width, head):
    job = Job(right.path, {**right.flags, **changed}, right.mtp if head else None, SPECS)
    plan = make_plan(JobContext(job, host))
    assert render(plan, width).count("\n") > 10
    assert all(problem.setting and "None" not in str(problem) for problem in plan.problems)


@settings(deadline=None, max_examples=40)
@given(changed=flags())
def test_openrlhf_has_an_answer_to_any_job(right, changed):
    job = Job(right.path, {**right.flags, **changed}, right.mtp, SPECS)
    assert all(problem.text for problem in upstream_problems(job))
