"""The plan names what a job will take, from numbers alone."""

import json
from pathlib import Path

import pytest

from openrlhf_mtp.config.job import Job, load_job
from openrlhf_mtp.config.job_context import JobContext
from openrlhf_mtp.config.machine.host import Host
from openrlhf_mtp.config.model_files import model_shape
from openrlhf_mtp.config.plan import make_plan, render
from openrlhf_mtp.config.roles import roles
from openrlhf_mtp.upstream.openrlhf.flags import flag_specs

QWEN2_5_0_5B = {
    "model_type": "qwen2",
    "hidden_size": 896,
    "intermediate_size": 4864,
    "num_hidden_layers": 24,
    "num_attention_heads": 14,
    "num_key_value_heads": 2,
    "vocab_size": 151936,
    "tie_word_embeddings": True,
}
QWEN3_8B = {
    "model_type": "qwen3",
    "hidden_size": 4096,
    "intermediate_size": 12288,
    "num_hidden_layers": 36,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "vocab_size": 151936,
}
QWEN3_30B_A3B = {
    "model_type": "qwen3_moe",
    "hidden_size": 2048,
    "intermediate_size": 6144,
    "moe_intermediate_size": 768,
    "num_experts": 128,
    "num_hidden_layers": 48,
    "num_attention_heads": 32,
    "num_key_value_heads": 4,
    "head_dim": 128,
    "vocab_size": 151936,
}
LLAMA_3_1_8B = {
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
}


@pytest.mark.parametrize(
    ("config", "parameters", "tensors"),
    [
        (QWEN2_5_0_5B, 494_032_768, 290),
        (QWEN3_8B, 8_190_735_360, 399),
        (QWEN3_30B_A3B, 30_532_122_624, 48 * 11 + 3),
        (LLAMA_3_1_8B, 8_030_261_248, 291),
    ],
    ids=["Qwen2.5-0.5B", "Qwen3-8B", "Qwen3-30B-A3B", "Llama-3.1-8B"],
)
def test_published_models_have_their_published_sizes(config, parameters, tensors):
    """Numbers from the models' own safetensors indexes; with experts, whose matrices travel stacked, the number of
    tensors is that of transformers' `Qwen3MoeForCausalLM`."""
    shape = model_shape(config)
    assert shape.policy_parameters() == parameters
    assert shape.sent_tensors() == tensors


def test_a_head_is_a_layer_a_projection_and_three_norms_per_block():
    shape = model_shape(LLAMA_3_1_8B)
    layer = (8_030_261_248 - 2 * 128256 * 4096 - 4096) // 32
    assert shape.head_parameters(1) == layer + 2 * 4096 * 4096 + 3 * 4096
    assert shape.head_parameters(2) == 2 * shape.head_parameters(1)


def job(tmp_path: Path, *overrides: str) -> Job:
    file = tmp_path / "job.yaml"
    file.write_text("actor: {num_gpus_per_node: 4}\nref: {num_gpus_per_node: 4}\nvllm: {num_engines: 2}\n")
    return load_job(file, overrides, flag_specs())


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["reward.remote_url=http://x"], {"rollout engines": 2, "actor": 4, "reference": 4, "critic": 8}),
        (
            ["reward.remote_url=http://x", "algo.kl.init_coef=0", "algo.advantage.estimator=reinforce"],
            {"rollout engines": 2, "actor": 4},
        ),
        (
            ["reward.remote_url=http://x", "train.colocate_all=true", "algo.advantage.estimator=reinforce"],
            {"rollout engines": 0, "actor": 4, "reference": 0},
        ),
        (
            ["reward.remote_url=http://x", "train.colocate_all=true", "train.async_enable=true"],
            {"rollout engines": 2, "actor": 4, "reference": 0, "critic": 0},
        ),
        (
            ["reward.model_name_or_path=m", "algo.kl.init_coef=0", "train.colocate_critic_reward=true"],
            {"rollout engines": 2, "actor": 4, "critic": 8, "reward model": 0},
        ),
    ],
    ids=["apart", "no reference or critic", "all together", "async engines stay apart", "critic with reward"],
)
def test_gpus_are_counted_as_openrlhf_places_the_roles(tmp_path, overrides, expected):
    found = roles(JobContext(job(tmp_path, *overrides), Host(cuda_gpus=0)))
    assert {role.name: 0 if role.shares else role.gpus for role in found} == expected


def test_engines_of_several_workers_are_counted_as_such(tmp_path):
    context = JobContext(job(tmp_path, "vllm.tensor_parallel_size=4"), Host(cuda_gpus=0))
    engines, actor, *_ = roles(context)
    assert (engines.gpus, engines.share, actor.share) == (8, "rollout engines 8 (2 x 4)", "actor 4")
    assert "2 process(es) of 4 workers, 8 GPU(s)" in render(make_plan(context), 100)


def test_an_engine_on_a_gpu_says_its_batches_and_what_sampling_takes(tmp_path):
    (tmp_path / "policy").mkdir()
    (tmp_path / "policy" / "config.json").write_text(json.dumps(QWEN3_8B))
    policy = f"actor.model_name_or_path={tmp_path / 'policy'}"
    text = render(make_plan(JobContext(job(tmp_path, policy, "mtp.depths=3"), Host(cuda_gpus=8))), 100)
    assert "at most 256 sequences, and 8192 tokens in a forward pass" in text
    assert "at most 3.48 GiB on each worker" in text, "24 float32 rows of 151,936 for each"
    limited = job(tmp_path, policy, "mtp={rollout: {max_num_seqs: 16, max_num_batched_tokens: 512}}")
    text = render(make_plan(JobContext(limited, Host(cuda_gpus=8))), 100)
    assert "at most 16 sequences, and 512 tokens in a forward pass" in text
    assert "Each rollout engine" not in render(make_plan(JobContext(limited, Host(cuda_gpus=0))), 100)


def test_the_plan_fits_a_narrow_terminal_and_counts_problems(tmp_path):
    plan = make_plan(JobContext(job(tmp_path, "mtp.depths=2"), Host(0)))
    text = render(plan, 60)
    assert max(map(len, text.splitlines())) <= 60
    assert f"Problems: {plan.errors} error(s)" in text
    assert plan.errors > 0


def test_a_job_without_a_head_has_no_head_section(tmp_path):
    titles = [title for title, _ in make_plan(JobContext(job(tmp_path), Host(0))).sections]
    assert titles == ["Job", "Roles", "Steps"]
