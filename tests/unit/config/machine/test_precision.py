"""Which precision a job runs in, and with how many threads."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openrlhf_mtp.config.job import load_job
from openrlhf_mtp.config.job_context import JobContext
from openrlhf_mtp.config.machine.host import Host
from openrlhf_mtp.config.machine.precision import AUTO, DTYPES, Speed, choose, with_rollout_dtype
from openrlhf_mtp.config.plan import make_plan
from openrlhf_mtp.config.settings.mtp import MTPSettings
from openrlhf_mtp.config.threads import Threads, share_out, usable_cores
from openrlhf_mtp.upstream.openrlhf.flags import flag_specs

FASTER_IN_FLOAT32 = Speed(bfloat16_s=3e-3, float32_s=5e-4)
FASTER_IN_BFLOAT16 = Speed(bfloat16_s=5e-4, float32_s=1e-3)


@pytest.mark.parametrize(
    ("has_cuda", "speed", "expected"),
    [
        (True, None, "bf16"),
        (True, FASTER_IN_FLOAT32, "bf16"),
        (False, FASTER_IN_FLOAT32, "fp32"),
        (False, FASTER_IN_BFLOAT16, "bf16"),
        (False, Speed(1e-3, 1e-3), "bf16"),
        (False, None, "bf16"),
    ],
    ids=["cuda", "cuda, measured", "no bfloat16 instructions", "with them", "no difference", "not measured"],
)
def test_auto_takes_the_faster_one_without_cuda_and_bf16_with_it(has_cuda, speed, expected):
    assert choose(AUTO, has_cuda=has_cuda, speed=speed).name == expected


@given(st.sampled_from(sorted(DTYPES)), st.booleans(), st.sampled_from([None, FASTER_IN_FLOAT32]))
def test_what_the_job_says_is_done_whatever_the_machine_is_good_at(setting, has_cuda, speed):
    assert choose(setting, has_cuda=has_cuda, speed=speed).name == setting


def test_the_reason_says_how_much_slower_the_other_one_is():
    assert str(choose(AUTO, has_cuda=False, speed=FASTER_IN_FLOAT32)) == (
        "float32: products in bfloat16 take 6.0 times as long here"
    )
    assert "products in float32 take 2.0 times" in choose(AUTO, has_cuda=False, speed=FASTER_IN_BFLOAT16).why


@pytest.mark.parametrize(("param_dtype", "dtype"), DTYPES.items())
def test_engines_follow_the_trainer_unless_the_job_says_otherwise(param_dtype, dtype):
    assert with_rollout_dtype(MTPSettings(), param_dtype).rollout.dtype == dtype
    own = MTPSettings.model_validate({"rollout": {"dtype": "float16"}})
    assert with_rollout_dtype(own, param_dtype) == own


JOB = """
actor: {num_gpus_per_node: 1}
critic: {num_gpus_per_node: 1}
algo: {advantage: {estimator: group_norm}, kl: {init_coef: 0}}
reward: {remote_url: http://x}
vllm: {num_engines: 1}
mtp: {depths: 2}
"""


def situation(folder: Path, *overrides: str, host: Host, trains_policy: bool = True) -> JobContext:
    file = folder / "job.yaml"
    file.write_text(JOB)
    return JobContext(load_job(file, overrides, flag_specs()), host, trains_policy=trains_policy)


EIGHT = Host(0, cores=8)


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ([], Threads(8, 8, turns=True)),
        (["mtp=null"], Threads(8, 8, turns=True)),
        (["vllm.num_engines=2"], Threads(4, 8, turns=True)),
        (["vllm.tensor_parallel_size=4"], Threads(2, 8, turns=True)),
        (["actor.num_gpus_per_node=4"], Threads(8, 2, turns=True)),
        (["algo.advantage.estimator=gae"], Threads(8, 4, turns=True)),
        (["train.async_enable=true"], Threads(4, 4, turns=False)),
        (["train.async_enable=true", "vllm.num_engines=3"], Threads(2, 2, turns=False)),
        (["actor.num_gpus_per_node=16"], Threads(8, 1, turns=True)),
    ],
)
def test_who_works_alone_has_every_core_and_who_works_at_the_same_time_shares(tmp_path, overrides, expected):
    assert share_out(situation(tmp_path, *overrides, host=EIGHT), {}) == expected


def test_before_rl_engines_and_head_trainer_alternate_even_if_asynchronous(tmp_path):
    s = situation(
        tmp_path,
        "train.async_enable=true",
        "mtp.pretrain.num_ranks=2",
        host=EIGHT,
        trains_policy=False,
    )
    assert share_out(s, {}) == Threads(8, 4, turns=True)


@pytest.mark.parametrize(
    ("host", "environ"),
    [
        (EIGHT, {"OMP_NUM_THREADS": "3"}),
        (EIGHT, {"RAY_ADDRESS": "10.0.0.1:6379"}),
        (Host(8, cores=8), {}),
        (Host(0), {}),
    ],
    ids=["the user's own number", "a cluster", "cuda", "another machine"],
)
def test_threads_are_left_alone_where_they_are_not_ours_to_choose(tmp_path, host, environ):
    assert share_out(situation(tmp_path, host=host), environ) is None


@pytest.mark.parametrize(
    ("limit", "most"), [("max 100000", None), ("150000 100000", 2), ("100 100000", 1), ("nonsense", None)]
)
def test_a_containers_quota_counts(tmp_path, limit, most):
    file = tmp_path / "cpu.max"
    file.write_text(limit)
    unlimited = usable_cores(tmp_path / "missing")
    assert unlimited >= 1
    assert usable_cores(file) == (unlimited if most is None else min(most, unlimited))


def test_the_plan_says_what_was_chosen_and_why(tmp_path, monkeypatch):
    for name in ("OMP_NUM_THREADS", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    host = Host(0, cores=8, speed=FASTER_IN_FLOAT32)
    rows = dict(make_plan(situation(tmp_path, host=host)).sections[0][1])
    assert rows["precision"] == "float32: products in bfloat16 take 6.0 times as long here"
    assert rows["threads"] == "8 for each engine, 8 for each trainer rank: they take turns"
    apart = dict(make_plan(situation(tmp_path, "mtp.rollout.dtype=bfloat16", host=host)).sections[0][1])
    assert apart["precision"].endswith("; engines bfloat16")


@pytest.mark.parametrize(
    ("overrides", "gpus", "refused"),
    [
        (["ds.attn_implementation=flash_attention_2"], 8, True),
        (["ds.attn_implementation=sdpa"], 8, False),
        (["ds.attn_implementation=sdpa"], 0, False),
        (["ds.attn_implementation=sdpa", "ds.load_in_4bit=true"], 8, True),
        (["ds.attn_implementation=sdpa", "ds.tensor_parallel_size=2"], 8, True),
    ],
    ids=["flash attention", "sdpa", "sdpa on a CPU", "4 bits", "tensor parallel"],
)
def test_float32_is_refused_where_openrlhf_works_in_16_bits_only(problems, overrides, gpus, refused):
    found = [
        text for text in problems("ds.param_dtype=fp32", *overrides, gpus=gpus) if "ds.param_dtype" in text
    ]
    assert bool(found) == refused
