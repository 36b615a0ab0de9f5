"""What OpenRLHF says about a job reaches the user once, in the job file's words; it stops nothing that would run."""

from pathlib import Path

import pytest

from openrlhf_mtp.cli.jobs import CRASH, all_problems, upstream_problems
from openrlhf_mtp.config.job import load_job
from openrlhf_mtp.config.job_context import JobContext
from openrlhf_mtp.config.machine.host import Host
from openrlhf_mtp.upstream.openrlhf.flags import flag_specs

JOB = """
actor: {model_name_or_path: Org/policy, num_gpus_per_node: 1}
reward: {remote_url: "http://x"}
data: {prompt_dataset: Org/prompts}
rollout: {n_samples_per_prompt: 8}
vllm: {num_engines: 1}
algo: {advantage: {estimator: group_norm}}
"""
FLASH = "ds.attn_implementation=flash_attention_2"


@pytest.fixture
def said(tmp_path: Path):
    """Problems of the job above with overrides, as `level: text`."""
    (tmp_path / "job.yaml").write_text(JOB, encoding="utf-8")

    def run(*overrides: str) -> list[str]:
        job = load_job(tmp_path / "job.yaml", overrides, flag_specs())
        return [f"{problem.level}: {problem}" for problem in upstream_problems(job)]

    return run


def test_a_job_that_openrlhf_leaves_alone_says_nothing(said):
    assert said() == []


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (
            ["vllm.enable_sleep=true"],
            "warning: vllm.enable_sleep: this has no effect: OpenRLHF ignores it, because without",
        ),
        (
            ["train.agent_func_path=agent.py"],
            "warning: reward.remote_url: this has no effect: OpenRLHF ignores it, because train.agent",
        ),
        (
            ["data.input_template=Question"],
            "warning: data.input_template: this has no effect: OpenRLHF ignores it, because it has no {}",
        ),
        (["data.input_template='{}\\n'"], "warning: data.input_template: got the two characters"),
        (
            ["train.dynamic_batch_enable=true", "ds.packing_samples=true"],
            "warning: rollout.max_tokens_per_gpu: got",
        ),
        (
            ["ds.ring_attn_size=1", "ds.packing_samples=true", "ds.attn_implementation=sdpa"],
            "error: ds.attn_impl",
        ),
        (
            ["algo.kl.estimator=k3"],
            "warning: algo.kl.estimator: got k2 or k3 without algo.kl.use_loss, expected k1",
        ),
        (
            ["algo.kl.use_loss=true"],
            "warning: algo.kl.estimator: got k1 with algo.kl.use_loss, expected k2 or k3",
        ),
        (
            ["train.colocate_all=true", "train.async_enable=true"],
            "warning: train.colocate_all: with train.async_enable only the trainers share GPUs",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_remark_is_made_once_in_the_job_files_words(said, overrides, expected):
    found = said(*overrides)
    assert len(found) == 1, found
    assert found[0].startswith(expected)
    assert "--" not in found[0]


def test_what_is_given_otherwise_than_openrlhf_runs_it_is_an_error_that_names_both(said):
    found = said(
        "train.dynamic_batch_enable=true", "ds.packing_samples=false", "rollout.max_tokens_per_gpu=1000"
    )
    assert found == [
        "error: ds.packing_samples: got false, expected true: OpenRLHF would silently run with that; set it so, "
        "or leave it out"
    ]


def test_a_critic_left_in_a_job_without_one_is_left_to_the_check_of_its_settings(said):
    assert said("critic.model_name_or_path=Org/critic") == []


def test_a_line_that_is_not_known_is_passed_on(said, monkeypatch):
    monkeypatch.setattr("openrlhf_mtp.cli.jobs.remark", lambda line: None)
    (found,) = said("algo.kl.estimator=k3")
    assert found.startswith("warning: OpenRLHF: Recommend setting k3")


def test_a_refusal_names_flags_as_a_job_file_has_them(said):
    (found,) = said("eval.dataset=Org/eval", "reward.remote_url=null", "reward.model_name_or_path=Org/rm")
    assert found.startswith(
        "error: OpenRLHF: refuses the job: `eval.dataset` requires either `reward.remote_url`"
    )
    assert "--" not in found


def test_a_crash_of_its_validation_is_kept_back_where_we_know_what_is_wrong(tmp_path):
    (tmp_path / "job.yaml").write_text(JOB, encoding="utf-8")
    job = load_job(
        tmp_path / "job.yaml", ["reward.remote_url=null", "algo.advantage.estimator=gae"], flag_specs()
    )
    assert any(problem.setting == CRASH for problem in upstream_problems(job))
    found = all_problems(JobContext(job, Host(8), look_at_files=False))
    assert any(problem.setting == "reward.remote_url" for problem in found)
    assert not any(problem.setting == CRASH for problem in found)
