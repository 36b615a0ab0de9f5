"""Numbers that no job can mean are refused when the job is read, with what the flag may be."""

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openrlhf_mtp.config.errors import JobError, JobErrors
from openrlhf_mtp.config.job import load_job
from openrlhf_mtp.config.reading.ranges import LARGEST_WHOLE, RANGES, Range, in_range
from openrlhf_mtp.config.settings.section import parse_mtp
from openrlhf_mtp.upstream.openrlhf.flags import flag_specs

SPECS = flag_specs()


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("train.batch_size: -8", "train.batch_size: got -8, expected 1 or more"),
        ("train.batch_size: 0", "train.batch_size: got 0, expected 1 or more"),
        ("train.micro_batch_size: 0", "train.micro_batch_size: got 0, expected 1 or more"),
        ("rollout.micro_batch_size: 0", "rollout.micro_batch_size: got 0, expected 1 or more"),
        ("ds.ring_attn_size: 0", "ds.ring_attn_size: got 0, expected 1 or more"),
        ("ds.tensor_parallel_size: 0", "ds.tensor_parallel_size: got 0, expected 1 or more"),
        ("actor.num_nodes: 0", "actor.num_nodes: got 0, expected 1 or more"),
        ("actor.num_gpus_per_node: -1", "actor.num_gpus_per_node: got -1, expected 1 or more"),
        ("vllm.tensor_parallel_size: 0", "vllm.tensor_parallel_size: got 0, expected 1 or more"),
        ("vllm.num_engines: -1", "vllm.num_engines: got -1, expected 0 or more"),
        (
            "vllm.gpu_memory_utilization: 7",
            "vllm.gpu_memory_utilization: got 7, expected above 0 and at most 1",
        ),
        ("data.max_len: 0", "data.max_len: got 0, expected 1 or more"),
        ("ds.zero_stage: 9", "ds.zero_stage: got 9, expected 0 to 3"),
        ("ds.zero_stage: -1", "ds.zero_stage: got -1, expected 0 to 3"),
        ("actor.adam.lr: -1", "actor.adam.lr: got -1, expected above 0"),
        ("actor.adam.lr: 0.0", "actor.adam.lr: got 0, expected above 0"),
        ("actor.adam.betas: [0.9, 1.0]", "actor.adam.betas: got 1, expected 0 or more and below 1"),
        ("rollout.top_p: 1.5", "rollout.top_p: got 1.5, expected above 0 and at most 1"),
        ("algo.advantage.gamma: 1.01", "algo.advantage.gamma: got 1.01, expected 0 to 1"),
        ("actor.dual_clip: 1.0", "actor.dual_clip: got 1, expected above 1"),
        ("eval.steps: 0", "eval.steps: got 0, expected 1 or more, or -1 for never"),
        ("ckpt.save_steps: -2", "ckpt.save_steps: got -2, expected 1 or more, or -1 for never"),
        ("reward.clip_range: [10, -10]", "reward.clip_range: got [10, -10], expected two numbers, the lower"),
        (
            "train.seed: 99999999999",
            "train.seed: got 99999999999, expected 0 or more, and no more than 2147483647",
        ),
        (f"train.seed: 1{'0' * 400}", "train.seed: got a number of 401 digits, expected 0 or more"),
    ],
)
def test_nonsense_is_refused_with_the_range(tmp_path, setting, expected):
    (tmp_path / "job.yaml").write_text(setting, encoding="utf-8")
    with pytest.raises(JobErrors) as refusal:
        load_job(tmp_path / "job.yaml", [], SPECS)
    assert len(refusal.value.problems) == 1
    assert refusal.value.problems[0].startswith(expected)


def test_every_number_out_of_range_is_named_at_once(tmp_path):
    (tmp_path / "job.yaml").write_text("train: {batch_size: 0, max_epochs: 0}\nds: {zero_stage: 4}")
    with pytest.raises(JobErrors) as refusal:
        load_job(tmp_path / "job.yaml", [], SPECS)
    assert [text.partition(":")[0] for text in refusal.value.problems] == [
        "train.batch_size",
        "train.max_epochs",
        "ds.zero_stage",
    ]


@given(st.sampled_from(sorted(RANGES)), st.one_of(st.integers(), st.floats()))
def test_a_number_passes_if_it_is_in_the_flags_range_and_is_named_if_not(name, number):
    small = not isinstance(number, int) or abs(number) <= LARGEST_WHOLE
    if small and number in RANGES[name]:
        assert in_range(name, number) is number
    else:
        with pytest.raises(JobError, match=re.escape(f"{name}: got ")):
            in_range(name, number)


@given(st.sampled_from(sorted(RANGES)))
def test_nan_is_in_no_range_and_infinity_only_where_it_means_no_limit(name):
    assert math.nan not in RANGES[name]
    assert (math.inf in RANGES[name]) == RANGES[name].infinite


def test_a_flag_that_is_not_in_the_table_may_be_any_number_but_nan():
    assert in_range("new.flag", -math.inf) == -math.inf
    with pytest.raises(JobError, match=r"new\.flag: got \.nan, expected a number"):
        in_range("new.flag", math.nan)


@pytest.mark.parametrize("value", [True, "007", None, ("q_proj", "v_proj"), ()])
def test_text_and_switches_have_no_range(value):
    assert in_range("train.batch_size", value) is value


@pytest.mark.parametrize(
    ("one", "words"),
    [
        (Range(1), "1 or more"),
        (Range(0, 1), "0 to 1"),
        (Range(0, 1, above=True), "above 0 and at most 1"),
        (Range(high=1), "at most 1"),
        (Range(), "a finite number"),
        (Range(infinite=True), "a number"),
        (Range(1, or_off=-1), "1 or more, or -1 for never"),
    ],
)
def test_a_range_in_words(one, words):
    assert str(one) == words


@pytest.mark.parametrize(
    "section",
    [
        {"optim": {"lr": math.inf}},
        {"optim": {"lr": 0}},
        {"optim": {"lr": -1e-4}},
        {"objective": {"ce": math.nan}},
        {"objective": {"ce": math.inf}},
        {"sync": {"timeout_s": math.inf}},
        {"coefficient": {"bounds": [-math.inf, 1]}},
        {"pretrain": {"temperature": math.nan}},
    ],
)
def test_the_mtp_section_takes_no_infinite_or_undefined_number(section):
    with pytest.raises(JobErrors, match=r"mtp\.\w+"):
        parse_mtp(section)
