"""What does not fit on a GPU is said before the job starts, from the model's sizes."""

from collections.abc import Callable
from pathlib import Path

import pytest

from openrlhf_mtp.config.checks.memory import trainer
from openrlhf_mtp.config.job import load_job
from openrlhf_mtp.config.job_context import JobContext
from openrlhf_mtp.config.machine.host import Host
from openrlhf_mtp.config.memory import Moment, TrainerMemory, trainer_memory
from openrlhf_mtp.upstream.openrlhf.flags import flag_specs
from tests.unit.config.equipped import HEAD, TRUNK, write_config

SPECS = flag_specs()
Problems = Callable[..., list[str]]

CHECKPOINTED = "actor.gradient_checkpointing_enable=true"
A_24_GB_GPU = Host(1, gpu_memory_gib=24.0)
LARGE = {
    **TRUNK,
    "hidden_size": 896,
    "intermediate_size": 4864,
    "num_hidden_layers": 24,
    "vocab_size": 151_936,
    "max_position_embeddings": 32_768,
}


@pytest.fixture
def on_a_24_gb_gpu(folder: Path, problems: Problems) -> Problems:
    """Check the job for a model of half a billion parameters on one GPU."""
    write_config(folder / "policy" / "config.json", LARGE)
    write_config(folder / "policy" / "mtp" / "config.json", HEAD, **LARGE)

    def run(*overrides: str) -> list[str]:
        given = ("data.max_len=1024", "train.colocate_all=true", CHECKPOINTED, *overrides)
        return problems(*given, host=A_24_GB_GPU)

    return run


def test_logits_that_do_not_fit_are_a_warning_that_names_the_micro_batch(on_a_24_gb_gpu):
    half = "vllm.gpu_memory_utilization=0.4"
    (found,) = on_a_24_gb_gpu(half, "train.micro_batch_size=8", "rollout.micro_batch_size=4")
    assert found.startswith(
        "warning: train.micro_batch_size: the logits of a micro-batch of samples as long as data.max_len take 11.6 GiB"
    )
    assert "and a GPU has 14.4 GiB (a colocated engine keeps the rest of 24.0)" in found
    assert "and vllm.enable_sleep true" in found
    (found,) = on_a_24_gb_gpu(half, "train.micro_batch_size=1", "rollout.micro_batch_size=16")
    assert found.startswith(
        "warning: rollout.micro_batch_size: the logits of a micro-batch of samples as long as data.max_len take "
        "13.9 GiB"
    )
    assert on_a_24_gb_gpu(half, "train.micro_batch_size=2", "rollout.micro_batch_size=4") == []
    sleeping = (half, "vllm.enable_sleep=true", "train.micro_batch_size=8", "rollout.micro_batch_size=4")
    assert on_a_24_gb_gpu(*sleeping) == []


def test_weights_and_optimizer_that_do_not_fit_are_refused(on_a_24_gb_gpu):
    (found,) = on_a_24_gb_gpu("vllm.gpu_memory_utilization=0.9")
    assert found.startswith("error: actor.num_gpus_per_node: weights, gradients and optimizer take ")
    assert "set vllm.enable_sleep true, use more GPUs" in found


@pytest.mark.parametrize(
    ("overrides", "bytes_of_a_parameter"),
    [
        ([], 16),
        (["ds.adam_offload=true"], 4),
        (["ds.lora.rank=8"], 2),
        (["actor.num_gpus_per_node=4", "ds.zero_stage=0"], 16),
        (["actor.num_gpus_per_node=4", "ds.zero_stage=1"], 2 + 2 + 12 / 4),
        (["actor.num_gpus_per_node=4"], 2 + 14 / 4),
        (["actor.num_gpus_per_node=4", "ds.zero_stage=3"], 16 / 4),
    ],
)
def test_states_are_split_over_the_ranks_as_zero_splits_them(folder, overrides, bytes_of_a_parameter):
    job = load_job(folder / "job.yaml", ["mtp=null", *overrides], SPECS)
    s = JobContext(job, Host(8))
    assert s.shape is not None
    memory = trainer_memory(s)
    assert memory is not None
    assert memory.states == pytest.approx(s.shape.policy_parameters() * bytes_of_a_parameter, rel=1e-4)


def test_dynamic_batches_hold_as_many_tokens_as_they_may(folder):
    overrides = (
        "train.dynamic_batch_enable=true",
        "train.max_tokens_per_gpu=4096",
        "rollout.max_tokens_per_gpu=64",
    )
    memory = trainer_memory(JobContext(load_job(folder / "job.yaml", overrides, SPECS), Host(8)))
    assert memory is not None
    assert memory.training == 4096 * TRUNK["vocab_size"] * 10
    assert memory.experience == 128 * TRUNK["vocab_size"] * 6, "one sample of full length, whatever the limit"


def test_the_example_for_one_gpu_of_24_gb_fits_there(project_root, tmp_path):
    qwen = {**LARGE, "num_attention_heads": 14, "tie_word_embeddings": True}
    write_config(tmp_path / "config.json", qwen)
    example = project_root / "examples" / "gsm8k_qwen2.5-0.5b_1gpu" / "job.yaml"

    def found(*overrides: str) -> list[str]:
        job = load_job(example, [f"actor.model_name_or_path={tmp_path}", *overrides], SPECS)
        return [str(problem) for problem in trainer(JobContext(job, A_24_GB_GPU))]

    assert found() == []
    awake = ("vllm.enable_sleep=false", "vllm.gpu_memory_utilization=0.4")
    assert found(*awake, "train.micro_batch_size=8"), "what it had before"


def test_the_setting_of_whatever_needs_most_is_named(on_a_24_gb_gpu):
    alone = ("vllm.enable_sleep=true", "train.micro_batch_size=1", "rollout.micro_batch_size=1")
    assert on_a_24_gb_gpu(*alone) == []
    (found,) = on_a_24_gb_gpu(*alone, CHECKPOINTED.replace("true", "false"), "data.max_len=6000")
    assert found.startswith(
        "warning: actor.gradient_checkpointing_enable: what the layers keep of a micro-batch"
    )
    assert "; set it true, or lower train.micro_batch_size or data.max_len" in found
    (found,) = on_a_24_gb_gpu(*alone, "mtp.sync.bucket_mib=16384")
    assert found.startswith("warning: mtp.sync.bucket_mib: a bucket of weights takes 16.0 GiB")


def test_an_engine_without_room_for_one_sequence_is_a_warning(on_a_24_gb_gpu):
    alone = ("vllm.enable_sleep=true", "train.micro_batch_size=1", "rollout.micro_batch_size=1")
    (found,) = on_a_24_gb_gpu(*alone, "vllm.gpu_memory_utilization=0.1")
    assert found.startswith(
        "warning: vllm.gpu_memory_utilization: of 0.1 x 24.0 GiB a worker of an engine needs 1.2 GiB"
    )
    assert "or lower mtp.rollout.max_num_seqs or max_num_batched_tokens" in found
    fewer = ("mtp.rollout.max_num_seqs=8", "mtp.rollout.max_num_batched_tokens=1024")
    assert on_a_24_gb_gpu(*alone, "vllm.gpu_memory_utilization=0.15", *fewer) == []


def test_a_long_response_pays_for_its_head_in_parts(folder):
    def head(length: int, *overrides: str) -> int:
        given = [f"data.max_len={length}", "train.micro_batch_size=1", *overrides]
        memory = trainer_memory(JobContext(load_job(folder / "job.yaml", given, SPECS), Host(8)))
        assert memory is not None
        return memory.head

    whole = head(2048)
    assert head(4096) < 1.5 * whole, "a second part keeps little"
    assert head(4096, "mtp.anchor_fraction=0.5") == whole
    assert head(2048, "mtp.regime=joint_policy") == whole, "its own chain is gone when the term's begins"
    assert head(2048, "mtp.regime=frozen") == 0


def test_a_joint_term_pays_for_a_chain_of_its_own_and_two_gradients(folder):
    def memory(*overrides: str) -> TrainerMemory:
        given = ["data.max_len=2048", "train.micro_batch_size=1", "mtp.regime=joint_policy", *overrides]
        found = trainer_memory(JobContext(load_job(folder / "job.yaml", given, SPECS), Host(8)))
        assert found is not None
        return found

    matrix = TRUNK["vocab_size"] * TRUNK["hidden_size"] * 2
    joint = memory()
    assert joint.joint > joint.head / 2
    assert joint.left == 2 * matrix
    assert memory("ds.zero_stage=3").joint == joint.joint + matrix, "the output head is whole until backward"
    assert memory("ds.lora.rank=4").left == 0
    detached = memory("mtp.regime=detach")
    assert (detached.joint, detached.left) == (0, 0)
    assert joint.moments[Moment.BACKWARD] == detached.moments[Moment.BACKWARD] + joint.left


def test_a_policy_that_no_rank_of_the_stage_before_rl_holds_is_refused(problems):
    small = Host(4, gpu_memory_gib=1e-4)
    (found,) = [
        text for text in problems(host=small, trains_policy=False) if "mtp.pretrain.num_ranks" in text
    ]
    assert "on each of 1 rank(s)" in found
    wanted = found.rpartition("num_ranks to ")[2].removesuffix(" or more")
    sharded = (
        "ds.zero_stage=3",
        f"mtp.pretrain.num_ranks={wanted}",
        f"mtp.pretrain.batch_size={64 * int(wanted)}",
    )
    assert not [
        text for text in problems(*sharded, host=small, trains_policy=False) if "weights take" in text
    ]
    assert [
        text for text in problems(*sharded[1:], host=small, trains_policy=False) if "weights take" in text
    ]
    (found,) = [
        text
        for text in problems("ds.zero_stage=3", "mtp.pretrain.num_ranks=2", host=small, trains_policy=False)
        if "weights take" in text
    ]
    assert "set num_ranks to" in found, "the stage is set already"


def test_what_each_rank_holds_whole_counts_beside_its_share(problems):
    """Tiny policy, float32: embedding and output head alone are larger than this GPU."""
    tiny = Host(4, gpu_memory_gib=1e-6)
    many = ("ds.zero_stage=3", "mtp.pretrain.num_ranks=64", "mtp.pretrain.batch_size=4096")
    (found,) = [text for text in problems(*many, host=tiny, trains_policy=False) if "weights take" in text]
    assert "embedding and output head, which each rank needs whole" in found
    assert found.endswith("take larger GPUs")
