"""Each mistake is refused before anything starts, with what was got, what was expected and how to fix it."""

import json

import pytest

from openrlhf_mtp.config.checks import check, model
from openrlhf_mtp.config.errors import JobErrors
from openrlhf_mtp.config.families import FAMILIES
from openrlhf_mtp.config.job import load_job
from openrlhf_mtp.config.job_context import JobContext
from openrlhf_mtp.config.machine.host import Host
from openrlhf_mtp.config.problem import require_no_errors
from openrlhf_mtp.upstream.openrlhf.flags import flag_specs
from tests.unit.config.equipped import TRUNK

SPECS = flag_specs()


def test_a_right_job_has_no_problem(problems):
    assert problems() == []


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["vllm.num_engines=null"], "error: vllm.num_engines: got nothing, expected 1 or more"),
        (["vllm.num_engines=0"], "error: vllm.num_engines: got 0, expected 1 or more"),
        (
            ["data.prompt_dataset=no.jsonl"],
            "error: data.prompt_dataset: got {folder}/no.jsonl, expected an existing file",
        ),
        (["data.prompt_dataset=null"], "error: data.prompt_dataset: got nothing"),
        (["data.label_key=answer"], "error: data.label_key: got answer, expected one of the columns of"),
        (
            ["eval.dataset=./no.jsonl"],
            "error: eval.dataset: got {folder}/no.jsonl, expected an existing file",
        ),
        (
            ["reward.remote_url=no.py"],
            "error: reward.remote_url: got {folder}/no.py, expected an existing Python file",
        ),
        (
            ["reward.remote_url=null"],
            "error: reward.remote_url: the job has no reward; set reward.remote_url",
        ),
        (["train.agent_func_path=no.py"], "error: train.agent_func_path: got {folder}/no.py"),
        (
            ["actor.model_name_or_path=./none"],
            "error: actor.model_name_or_path: {folder}/none is not a model folder: it has no config.json; run openrlhf",
        ),
        (
            ["mtp.head=./none"],
            "error: mtp.head: {folder}/none is not a head's folder: config.json and model.safetensors are missing",
        ),
        (["mtp.num_blocks=2"], "error: mtp.num_blocks: got 2, expected the head's own number of blocks, 1"),
        (["mtp.depths=5"], "warning: mtp.depths: got 5, expected at most 3"),
        (
            ["train.batch_size=12"],
            "warning: train.batch_size: got 12, expected a divisor of rollout.batch_size",
        ),
        (
            ["train.micro_batch_size=5"],
            "error: train.batch_size: got 16, expected a multiple of train.micro_batch_size",
        ),
        (
            ["train.batch_size=12", "actor.num_gpus_per_node=2", "ref.num_gpus_per_node=2"],
            "error: train.batch_size: got 12, expected a multiple of train.micro_batch_size * data-parallel ranks = 8",
        ),
        (
            ["rollout.max_new_tokens=128"],
            "error: rollout.max_new_tokens: got 128, expected less than data.max_len = 128",
        ),
        (
            ["rollout.max_new_tokens=3"],
            "error: rollout.max_new_tokens: got 3, expected more than mtp.depths = 3",
        ),
        (
            ["mtp.pretrain.max_new_tokens=2"],
            "error: mtp.pretrain.max_new_tokens: got 2, expected more than mtp.depths = 3",
        ),
        (
            ["data.max_len=512"],
            "error: data.max_len: got 512, expected at most the model's context, 256 tokens",
        ),
        (["rollout.top_p=0.9"], "warning: rollout.top_p: got 0.9, expected 1"),
        (["rollout.top_p=0.9", "mtp=null"], "warning: rollout.top_p: got 0.9, expected 1"),
        (["rollout.temperature=0"], "error: rollout.temperature: got 0, expected above 0"),
        (
            ["mtp.rollout.rejection_sample_method=synthetic"],
            "error: mtp.rollout.rejection_sample_method: got synthetic",
        ),
        (
            ["mtp.rollout.rejection_sample_method=block"],
            "error: mtp.rollout.rejection_sample_method: got block with mtp.rollout.draft_sample_method prob",
        ),
        (
            ["mtp.rollout.draft_sample_method=greedy"],
            "error: mtp.rollout.draft_sample_method: got greedy, expected prob",
        ),
        (
            ["mtp.rollout.draft_sample_method=greedy", "mtp.objective=ce", "mtp.pretrain.objective=ce"],
            "warning: mtp.rollout.draft_sample_method: got greedy",
        ),
        (["mtp.rollout.speculate=false"], "warning: mtp.rollout.speculate: got false"),
        (["mtp.pretrain.temperature=0.7"], "warning: mtp.pretrain.temperature: got 0.7"),
        (
            ["mtp.pretrain.kl_warmup_steps=0"],
            "warning: mtp.pretrain.kl_warmup_steps: got 0, expected some KL steps",
        ),
        (
            ["mtp.pretrain.max_steps=10", "mtp.pretrain.kl_warmup_steps=10"],
            "warning: mtp.pretrain.kl_warmup_steps: got 10, expected less than",
        ),
        (["ds.tensor_parallel_size=2"], "error: ds.tensor_parallel_size: got 2, expected 1 with a head"),
        (
            ["vllm.tensor_parallel_size=8"],
            "error: vllm.tensor_parallel_size: got 8, expected one of 1, 2, 4,",
        ),
        (
            ["mtp.rollout.engine_args={max_num_seqs: 8, logprobs_mode: raw_logprobs}"],
            "error: mtp.rollout.engine_args.max_num_seqs: got 8, expected nothing: mtp.rollout.max_num_seqs sets it",
        ),
        (
            ["mtp.rollout.engine_args={worker_cls: mine.Worker}"],
            "error: mtp.rollout.engine_args.worker_cls: got mine.Worker, expected nothing: the weight sync needs",
        ),
        (
            ["mtp.rollout.async_scheduling=true"],
            "error: mtp.rollout.async_scheduling: got true, expected false",
        ),
        (
            ["mtp.rollout.logprobs=sampled", "algo.advantage.is_correction_level=token"],
            "error: mtp.rollout.logprobs: got sampled, expected auto or always with algo.advantage.is_correction",
        ),
        (["ds.deepcompile=true"], "error: ds.deepcompile: got true, expected false with a head"),
        (["ds.ring_attn_size=2"], "error: ds.ring_attn_size: got 2, expected 1 with a head"),
        (["data.max_images_per_prompt=1"], "error: data.max_images_per_prompt: got 1, expected 0"),
        (
            ["train.colocate_all=true", "vllm.num_engines=2"],
            "error: vllm.num_engines: train.colocate_all has the engines share the actor's GPUs",
        ),
        (
            ["train.colocate_all=true", "ref.num_gpus_per_node=2"],
            "error: ref.num_gpus_per_node: the reference model shares the actor's GPUs, but it has 2 GPUs",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_is_found(problems, folder, overrides, expected):
    found = problems(*overrides)
    assert [text for text in found if text.startswith(expected.format(folder=folder))], found


@pytest.mark.parametrize(
    "override",
    [
        "ds.packing_samples=true",
        "train.dynamic_batch_enable=true",
        "ds.attn_implementation=flash_attention_2",
        "vllm.enable_sleep=true",
        "mtp.sync.backend=nccl",
    ],
)
def test_what_needs_cuda_is_refused_without_it_and_allowed_with_it(problems, override):
    setting = override.partition("=")[0]
    assert any(
        text.startswith(f"error: {setting}: ") for text in problems(override, "train.colocate_all=true")
    )
    assert not any(text.startswith(f"error: {setting}: ") for text in problems(override, gpus=8))


def test_nccl_is_refused_where_trainer_and_engine_share_a_gpu(problems):
    found = problems("mtp.sync.backend=nccl", "train.colocate_all=true", gpus=1)
    assert any("NCCL refuses two processes on one GPU" in text for text in found)


def test_ipc_is_refused_where_trainer_and_engine_share_no_gpu(problems):
    ipc, together = "mtp.sync.backend=ipc", "train.colocate_all=true"
    refused = "error: mtp.sync.backend: got ipc, expected auto, nccl or gloo where the engines have GPUs of their own"
    for overrides, is_refused in (
        ((ipc,), True),
        ((ipc, together, "train.async_enable=true"), True),
        ((ipc, together), False),
    ):
        assert any(text.startswith(refused) for text in problems(*overrides, gpus=8)) is is_refused
    assert not any("mtp.sync.backend" in text for text in problems(ipc)), (
        "on a CPU they share the host's memory"
    )


def test_more_gpus_than_there_are_name_every_role(problems):
    overrides = (
        "actor.num_gpus_per_node=4",
        "ref.num_gpus_per_node=4",
        "vllm.num_engines=2",
        "algo.kl.init_coef=0.1",
    )
    found = problems(*overrides, gpus=8)
    assert any(
        t.startswith("error: GPUs: got 10 (rollout engines 2, actor 4, reference 4), expected at most the 8")
        for t in found
    )
    assert problems(*overrides, gpus=10) == []
    assert problems(*overrides, gpus=8, cluster_gpus=16) == [], "the cluster is larger than this machine"


def test_logical_gpus_of_a_host_without_cuda_are_made_to_measure(problems):
    assert problems("actor.num_gpus_per_node=4") == []


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"model_type": "bert"}, "the model family bert has no head yet; use one of qwen2"),
        ({"vision_config": {}}, "this is a vision model (qwen2), and heads are for text-only models"),
    ],
)
def test_a_model_without_support_is_refused(problems, folder, change, expected):
    (folder / "policy" / "config.json").write_text(json.dumps({**TRUNK, **change}), encoding="utf-8")
    assert any(expected in text for text in problems())


@pytest.mark.parametrize(("rate", "warned"), [(0.1, True), (0.0, False), (None, False)])
def test_a_policy_that_is_updated_with_dropout_is_warned_of(problems, folder, rate, warned):
    config = {**TRUNK, "attention_dropout": 0.0, "residual_dropout": rate}
    (folder / "policy" / "config.json").write_text(json.dumps(config), encoding="utf-8")
    expected = (
        "warning: actor.model_name_or_path: its config.json has residual_dropout 0.1, so updates compute"
    )
    assert any(text.startswith(expected) for text in problems()) == warned
    assert not any("dropout" in text for text in problems(trains_policy=False))


def test_a_family_whose_weights_nobody_has_sent_is_refused(problems, folder, monkeypatch):
    """There is none at the moment; one is added so before RL trains it."""
    monkeypatch.setattr(model, "RL_FAMILIES", FAMILIES)
    config = {**TRUNK, "model_type": "deepseek_v3"}
    (folder / "policy" / "config.json").write_text(json.dumps(config), encoding="utf-8")
    refusal = "weights of the model family deepseek_v3 cannot be sent to engines"
    assert any(refusal in text for text in problems())


@pytest.mark.parametrize("change", [{"vision_config": {}}])
def test_without_a_head_a_gpu_host_takes_every_model_and_another_those_whose_layers_the_sync_knows(
    problems, folder, change
):
    """On GPUs the job is plain OpenRLHF, its weight sync included; elsewhere ours sends the weights."""
    (folder / "policy" / "config.json").write_text(json.dumps({**TRUNK, **change}), encoding="utf-8")
    assert problems("mtp=null", gpus=8) == []
    (found,) = problems("mtp=null")
    assert "needs a host with CUDA, because elsewhere this project's weight sync" in found
    (found,) = problems("mtp=null", "ds.lora.rank=8", gpus=8)
    assert "cannot be trained with LoRA, because with LoRA this project's weight sync" in found


def test_cached_prompts_are_refused_where_engines_draft_with_linear_attention(problems, folder):
    (folder / "policy" / "config.json").write_text(json.dumps({**TRUNK, "model_type": "qwen3_next"}))
    refused = "error: vllm.enable_prefix_caching: got true, expected false where engines draft for qwen3_next"
    asked = problems("vllm.enable_prefix_caching=true")
    assert any(text.startswith(refused) for text in asked)
    for others in (problems(), problems("vllm.enable_prefix_caching=true", "mtp.rollout.speculate=false")):
        assert not any("enable_prefix_caching" in text for text in others)


@pytest.mark.parametrize(
    ("changes", "override", "expected"),
    [
        ({}, "ds.param_dtype=fp32", "mtp.rollout.dtype: got float32, expected bfloat16 for qwen3_next"),
        ({"linear_key_head_dim": 64}, "ds.param_dtype=bf16", "has linear_key_head_dim 64, expected 128"),
    ],
)
def test_linear_attention_on_a_cpu_is_held_to_what_vllm_has_there(
    problems, folder, changes, override, expected
):
    config = {**TRUNK, "model_type": "qwen3_next", **changes}
    (folder / "policy" / "config.json").write_text(json.dumps(config))
    assert any(expected in text for text in problems(override))
    assert not any(expected in text for text in problems(override, gpus=8))


def test_linear_attention_of_vllms_width_in_bfloat16_is_no_problem_of_a_cpu(problems, folder):
    config = {**TRUNK, "model_type": "qwen3_next", "linear_key_head_dim": 128}
    (folder / "policy" / "config.json").write_text(json.dumps(config))
    found = problems("ds.param_dtype=bf16")
    assert not any("head_dim" in text or "mtp.rollout.dtype" in text for text in found), found


@pytest.mark.parametrize("section", [[], ["mtp=null"]])
def test_weights_of_4_bits_are_refused_with_and_without_a_head(problems, section):
    found = problems("ds.load_in_4bit=true", *section, gpus=8)
    assert any(text.startswith("error: ds.load_in_4bit: got true, expected false") for text in found)


def test_a_quantized_checkpoint_is_refused(problems, folder):
    config = {**TRUNK, "quantization_config": {"quant_method": "fp8"}}
    (folder / "policy" / "config.json").write_text(json.dumps(config), encoding="utf-8")
    found = problems()
    assert any("the checkpoint's weights are quantized (fp8)" in text for text in found)


@pytest.mark.parametrize("name", ["quantization", "quantization_config"])
def test_engines_that_round_weights_are_refused_with_the_reason(problems, name):
    (found,) = problems(f"mtp.rollout.engine_args={{{name}: fp8}}", gpus=8)
    assert "an update is smaller than the rounding to 8 bits" in found


@pytest.mark.parametrize("name", ["embed_tokens", "lm_head", "model.embed_tokens"])
def test_adapters_on_what_the_head_shares_are_refused(problems, name):
    lora = ("ds.lora.rank=8", f"ds.lora.target_modules=[q_proj, {name}]")
    (found,) = problems(*lora)
    assert found.startswith(f"error: ds.lora.target_modules: got {name}, expected modules of the layers")
    assert problems(*lora, "mtp=null") == []


@pytest.mark.parametrize(
    ("setting", "instead"),
    [("ds.tensor_parallel_size", "ds.zero_stage 3"), ("ds.ring_attn_size", "mtp.anchor_fraction")],
)
def test_other_ways_to_split_a_trainer_are_refused_with_what_makes_room(problems, setting, instead):
    found = problems(f"{setting}=2", "actor.num_gpus_per_node=2", gpus=8)
    (refused,) = [
        text for text in found if text.startswith(f"error: {setting}: got 2, expected 1 with a head")
    ]
    assert instead in refused


def test_a_head_for_another_model_is_refused_with_both_sizes(problems, folder):
    (folder / "policy" / "config.json").write_text(
        json.dumps({**TRUNK, "hidden_size": 128}), encoding="utf-8"
    )
    assert any(
        "does not fit the policy (hidden_size: the head has 64, the policy 128); equip this policy" in t
        for t in problems()
    )


def test_a_head_of_another_family_is_refused(problems, folder):
    (folder / "policy" / "config.json").write_text(
        json.dumps({**TRUNK, "model_type": "llama"}), encoding="utf-8"
    )
    assert any("model_type: the head has qwen2, the policy llama" in text for text in problems())


def test_a_folder_that_is_no_head_is_refused(problems, folder):
    (folder / "policy" / "mtp" / "config.json").write_text(json.dumps(TRUNK), encoding="utf-8")
    assert any(
        "this is not a head: a head's config.json has the architecture EagleMTPDraft" in text
        for text in problems()
    )


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("def other(): ...", "expected a file that defines reward_func"),
        ("def reward_func(:", "is not valid Python (line 1"),
    ],
)
def test_a_reward_file_that_cannot_work_is_refused(problems, folder, source, expected):
    (folder / "reward.py").write_text(source, encoding="utf-8")
    assert any(expected in text for text in problems())


def test_data_that_is_not_json_lines_is_refused(problems, folder):
    (folder / "prompts.jsonl").write_text("1 + 1 = 2\n", encoding="utf-8")
    assert any("line 1 is no JSON object" in text for text in problems())


def test_an_earlier_run_is_not_overwritten_by_accident(problems, folder):
    out = folder / "out"
    assert problems(out=out) == []
    out.mkdir()
    (out / "metrics.jsonl").touch()
    assert any(
        "continue it with --resume or replace it with --overwrite" in text for text in problems(out=out)
    )
    assert problems(out=out, may_reuse_out=True) == []


def test_a_run_folder_that_cannot_be_written_is_refused(problems, folder, monkeypatch):
    monkeypatch.setattr("os.access", lambda path, mode: False)  # root may write anywhere
    assert any(
        f"cannot be made: this user may not write to {folder}; give another" in text
        for text in problems(out=folder / "a" / "b")
    )


def test_a_run_folder_that_is_a_file_is_refused(problems, folder):
    assert any(
        "is a file, not a folder; give another --out" in text for text in problems(out=folder / "reward.py")
    )


def test_files_are_not_looked_for_when_the_job_is_meant_for_another_machine(problems, folder):
    (folder / "reward.py").unlink()
    assert problems("actor.model_name_or_path=/elsewhere/policy", look_at_files=False) == []


def test_sampled_drafts_are_verified_as_blocks_on_a_gpu_alone(problems):
    block = "mtp.rollout.rejection_sample_method=block"
    assert any("got block" in text for text in problems(block))
    assert not any("got block" in text for text in problems(block, gpus=8))
    assert not any("got block" in text for text in problems(block, "mtp.rollout.speculate=false"))


def test_errors_come_first_and_stop_the_job(problems, folder):
    found = problems("mtp.depths=5", "rollout.temperature=0")
    assert [text.partition(":")[0] for text in found] == ["error", "warning"]
    job = load_job(folder / "job.yaml", ["rollout.temperature=0"], SPECS)
    with pytest.raises(JobErrors, match=r"rollout\.temperature"):
        require_no_errors(check(JobContext(job, Host(0))), "cannot run:")


def test_weights_are_verified_while_engines_are_paused_in_the_middle_of_responses(problems):
    """A round is one call to a worker, which looks at weights and never at requests."""
    partial = (
        "train.async_enable=true",
        "train.partial_rollout_enable=true",
        "vllm.enable_prefix_caching=true",
    )
    assert problems(*partial, gpus=8) == []


def test_adapters_are_accepted_in_every_regime(problems):
    for regime in ("frozen", "detach", "joint_policy"):
        assert problems("ds.lora.rank=8", f"mtp.regime={regime}", "actor.dual_clip=3.0") == []


OCC = ("mtp.regime=joint_policy", "mtp.coefficient.kind=occ", "actor.dual_clip=3.0")


def test_a_policy_loss_on_the_heads_log_probs_wants_its_ratio_bounded(problems):
    (found,) = problems("mtp.regime=joint_policy")
    assert found.startswith(
        "warning: actor.dual_clip: got nothing, expected about 3 with mtp.regime joint_policy"
    )
    assert problems("mtp.regime=joint_policy", "actor.dual_clip=3.0") == []
    assert problems("mtp.regime=joint_ce") == []


def test_occ_with_one_optimizer_step_per_rollout_batch_is_refused(problems):
    (found,) = problems(*OCC)
    assert found.startswith("error: mtp.coefficient.kind: got occ, expected fixed with one optimizer step")
    assert "forever" in found
    assert "lower train.batch_size to 8 or another divisor of 16, or raise train.max_epochs" in found


@pytest.mark.parametrize("more_steps", ["train.batch_size=8", "train.max_epochs=2"])
def test_occ_is_accepted_once_a_rollout_batch_has_several_optimizer_steps(problems, more_steps):
    assert problems(*OCC, more_steps) == []


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (
            ["scale=0.5"],
            "mtp.coefficient.scale: got 0.5, expected its default with kind fixed: only kind occ",
        ),
        (["occ_variant=released_code"], "mtp.coefficient.occ_variant: got released_code"),
        (["kind=occ", "value=0.3"], "mtp.coefficient.value: got 0.3, expected its default with kind occ"),
    ],
)
def test_a_setting_of_the_other_kind_of_coefficient_is_an_error(problems, overrides, expected):
    settings = [f"mtp.coefficient.{each}" for each in overrides]
    found = problems("mtp.regime=joint_policy", "train.batch_size=8", *settings)
    assert [text for text in found if text.startswith(f"error: {expected}")], found


@pytest.mark.parametrize("loss", ["actor.policy_loss_type=gspo", "actor.loss_agg_mode=seq-mean-token-mean"])
def test_a_share_of_the_anchors_is_biased_where_sequences_are_averaged(problems, loss):
    joint = ("mtp.regime=joint_policy", loss, "mtp.anchor_fraction=0.5")
    found = problems(*joint)
    assert [text for text in found if text.startswith("warning: mtp.anchor_fraction: got 0.5")], found
    assert not [text for text in problems(*joint[:2]) if "anchor_fraction" in text]


def test_occ_of_a_cross_entropy_is_refused(problems):
    found = problems("mtp.regime=joint_ce", "mtp.coefficient.kind=occ", "train.batch_size=8")
    assert any("expected fixed with joint_ce" in problem for problem in found)


@pytest.mark.parametrize("regime", ["joint_ce", "joint_policy"])
def test_a_joint_regime_runs_under_zero_3(problems, regime):
    assert problems(f"mtp.regime={regime}", "ds.zero_stage=3", "actor.dual_clip=3.0") == []


def test_settings_of_a_regime_that_is_off_are_warned_about(problems):
    found = problems("mtp.coefficient.value=0.5")
    assert [problem.split(":")[0] for problem in found] == ["warning"]
    assert "this has no effect with mtp.regime detach, in which no MTP loss reaches the policy" in found[0]
    found = problems("mtp.regime=frozen", "mtp.advantage.weighting=positive")
    assert any("mtp.advantage" in problem for problem in found)


def test_engines_may_be_tuned(problems):
    tuned = ("mtp.rollout.engine_args={kv_cache_dtype: fp8}", "mtp.rollout.async_scheduling=false")
    assert problems(*tuned, "mtp.rollout.logprobs=sampled") == []


def test_tensor_parallel_engines_are_accepted_and_counted_by_their_workers(problems):
    assert problems("vllm.tensor_parallel_size=2", "vllm.num_engines=2") == []
    assert problems("vllm.tensor_parallel_size=4") == [], (
        "workers beyond the key-value heads hold copies of them"
    )
    found = problems("vllm.tensor_parallel_size=2", "vllm.num_engines=4", gpus=8)
    assert [
        text
        for text in found
        if text.startswith("error: GPUs: got 10 (rollout engines 8 (4 x 2), actor 1, reference 1)")
    ]
    assert any("or vllm.num_engines or vllm.tensor_parallel_size" in text for text in found)


@pytest.mark.parametrize("section", [(), ("mtp=null",)], ids=["with a head", "without"])
def test_engines_whose_workers_cannot_share_the_model_evenly_are_refused(problems, section):
    found = problems("vllm.tensor_parallel_size=3", *section)
    assert [text for text in found if "tensor_parallel" in text] == [
        "error: vllm.tensor_parallel_size: got 3, expected one of 1, 2, 4, which share the model's 4 attention heads, "
        "2 key-value heads and MLP width 128 evenly; set one of them, and vllm.num_engines to the engines that the "
        "GPUs for rollouts then make"
    ]


PAIR = (
    "algo.advantage.estimator=gae",
    "reward.remote_url=null",
    "reward.model_name_or_path=Org/rm",
    "train.colocate_critic_reward=true",
    "critic.num_gpus_per_node=1",
    "reward.num_gpus_per_node=1",
)


def test_critic_and_reward_model_share_a_second_group_of_gpus_beside_the_shared_one(problems):
    """OpenRLHF waits for that group for ever where the GPUs suffice for the first only."""
    together = ("train.colocate_all=true", *PAIR)
    assert problems(*together, gpus=2, look_at_files=False) == []
    found = problems(*together, gpus=1, look_at_files=False)
    assert [
        t for t in found if t.startswith("error: GPUs: got 2 (actor 1, critic 1), expected at most the 1")
    ]


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (
            ["critic.num_gpus_per_node=2"],
            "error: critic.num_gpus_per_node: train.colocate_critic_reward has the critic share the reward model's "
            "GPUs, but the critic has 2 GPUs and the reward model 1 GPU",
        ),
        (
            ["critic.num_nodes=2", "reward.num_gpus_per_node=2"],
            "error: critic.num_gpus_per_node: train.colocate_critic_reward has the critic share the reward model's "
            "GPUs, but the critic has 2 GPUs (2 nodes of 1)",
        ),
        (
            ["train.colocate_all=true", "train.colocate_critic_reward=false", "critic.num_gpus_per_node=4"],
            "error: critic.num_gpus_per_node: train.colocate_all puts the critic model on the actor's GPUs, but it",
        ),
    ],
)
def test_roles_that_share_gpus_must_fit_there(problems, overrides, expected):
    found = problems(*PAIR, *overrides, look_at_files=False)
    assert [text for text in found if text.startswith(expected)], found


@pytest.mark.parametrize(
    ("overrides", "setting"),
    [
        (["ds.deepcompile=true", "mtp=null"], "ds.deepcompile"),
        (["ds.overlap_comm=true", "ds.zero_stage=1"], "ds.overlap_comm"),
    ],
)
def test_what_deepspeed_cannot_do_with_dynamic_batches_is_refused(problems, overrides, setting):
    dynamic = ("train.dynamic_batch_enable=true", "ds.attn_implementation=flash_attention_2")
    found = problems(*dynamic, *overrides, gpus=8)
    assert [
        t for t in found if t.startswith(f"error: {setting}: ") and "with train.dynamic_batch_enable" in t
    ], found
    assert problems(*overrides, gpus=8) == []
    assert problems(*dynamic, "ds.overlap_comm=true", gpus=8) == []


@pytest.mark.parametrize(("batch", "rest"), [(12, 4), (32, 16)])
def test_a_batch_that_does_not_divide_says_how_large_the_last_update_is(problems, batch, rest):
    found = problems(f"train.batch_size={batch}")
    assert any(f"the last update of each rollout has {rest} samples" in text for text in found)


@pytest.mark.parametrize(
    ("prompts", "ranks", "expected"),
    [
        (8, 8, None),
        (5, 2, None),
        (
            5,
            8,
            "5 prompt(s) are not a multiple of rollout.batch_size = 4: 4 responses of the last rollout",
        ),
        (1, 8, "1 prompt(s) give 4 responses, and 8 ranks need at least one each"),
    ],
)
def test_prompts_that_cannot_be_shared_out_are_counted_before_the_start(folder, prompts, ranks, expected):
    (folder / "prompts.jsonl").write_text('{"input": "1+1", "label": "2"}\n' * prompts, encoding="utf-8")
    job = load_job(folder / "job.yaml", [f"actor.num_gpus_per_node={ranks}"], SPECS)
    found = [c for c in check(JobContext(job, Host(0))) if c.setting == "data.prompt_dataset"]
    assert [c.text.startswith(expected or "") for c in found] == [True] * (expected is not None)


def test_a_driver_that_does_not_answer_is_what_is_wrong(folder):
    broken = Host(0, driver_problem="nvidia-smi failed with exit code 18: version mismatch")

    def found(*overrides: str) -> list[str]:
        return [str(c) for c in check(JobContext(load_job(folder / "job.yaml", overrides, SPECS), broken))]

    (text,) = found("ds.attn_implementation=flash_attention_2", "ds.packing_samples=true")
    assert text.startswith("GPUs: nvidia-smi failed with exit code 18: version mismatch, so that nothing is")
    assert "and ds.packing_samples, ds.attn_implementation would need them" in text
    assert "CUDA_VISIBLE_DEVICES= to run on the CPU" in text
    levels = {c.level for c in check(JobContext(load_job(folder / "job.yaml", [], SPECS), broken))}
    assert levels == {"warning"}, "a job for the CPU runs without the driver"


def test_gpus_of_another_vendor_are_said_not_to_count(folder):
    job = load_job(folder / "job.yaml", [], SPECS)
    (text,) = map(str, check(JobContext(job, Host(0, not_counted="AMD"))))
    assert text.startswith("GPUs: AMD GPUs are not used, because this needs CUDA")


def test_a_folder_that_is_called_like_a_data_file_is_refused(problems, folder):
    (folder / "x.jsonl").mkdir()
    [text] = problems("data.prompt_dataset=./x.jsonl")
    assert text.startswith(f"error: data.prompt_dataset: {folder}/x.jsonl is a folder, and OpenRLHF reads")
    assert "is a folder, and OpenRLHF reads a path in .jsonl as a file; rename it" in text


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b'x = "caf\xe9"\n', "is not valid Python (line 1: (unicode error)"),
        (b"def reward_func(): \0", "is not valid Python ("),
        (b"x = " + b"(" * 5000, "is not valid Python ("),
        (b"# coding: latin-1\nx = 'caf\xe9'\ndef reward_func(): ...\n", None),
    ],
)
def test_a_reward_file_that_python_cannot_read_is_refused(problems, folder, content, expected):
    (folder / "reward.py").write_bytes(content)
    assert ([text for text in problems() if "reward.remote_url" in text] == []) is (expected is None)
    assert expected is None or any(expected in text for text in problems())


@pytest.mark.parametrize("gpus", [0, 2])
def test_a_head_of_several_blocks_may_draft_anywhere(problems, gpus):
    blocks = [text for text in problems("mtp.num_blocks=2", gpus=gpus) if "mtp.num_blocks" in text]
    assert all("the head's own number of blocks" in text for text in blocks), blocks
