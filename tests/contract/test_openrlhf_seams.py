"""The places in OpenRLHF 0.11.2 where our classes are put are there and have the shape we rely on.

OpenRLHF has no plug-in points: collaborators are found by the global names of their module, and our classes override
methods by name. What a new version renames must fail here with its name, not in the middle of a run.
"""

from __future__ import annotations

import ast
import functools
import importlib.util
import inspect
from pathlib import Path
from typing import Any

import pytest

from openrlhf_mtp.training.controller.step_row import STATUS_NAMES
from tests.processes import in_fresh_process

SOURCE = Path(next(iter(importlib.util.find_spec("openrlhf").submodule_search_locations)))
ENTRY, ACTOR = "openrlhf.cli.train_ppo_ray", "openrlhf.trainer.ray.ppo_actor"
PPO, ASYNC = "openrlhf.trainer.ppo_trainer", "openrlhf.trainer.ppo_trainer_async"

# what we replace, and whether it must be a Ray actor class, a class or a function
GLOBALS = {
    (ENTRY, "PolicyModelActor"): "ray actor",
    (ENTRY, "create_vllm_engines"): "function",
    (ENTRY, "placement_group"): "function",
    (ENTRY, "train"): "function",
    ("openrlhf.trainer.ray.launcher", "placement_group"): "function",
    (PPO, "PPOTrainer"): "ray actor",
    (ASYNC, "PPOTrainerAsync"): "ray actor",
    (ASYNC, "TrainingActor"): "ray actor",
    (ASYNC, "GenerateSamplesActor"): "ray actor",
    **{
        (module, name): kind
        for module in (PPO, ASYNC)
        for name, kind in {"prepare_datasets": "function", "SamplesGenerator": "class"}.items()
    },
    (PPO, "RemoteExperienceMaker"): "class",
    (ACTOR, "PolicyModelActor"): "ray actor",
    (ACTOR, "Actor"): "class",
    (ACTOR, "ActorPPOTrainer"): "class",
    (ACTOR, "ray"): "module",
}

# parameters we pass or take over, in order; a method of ours has upstream's signature
SIGNATURES = {
    (ENTRY, "train"): "args",
    (ENTRY, "create_vllm_engines"): "num_engines tensor_parallel_size pretrain seed full_determinism "
    "enable_prefix_caching enforce_eager max_model_len shared_pg gpu_memory_utilization vllm_enable_sleep "
    "logprobs_mode agent_func_path remote_rm_url max_images_per_prompt",
    (ACTOR, "ActorPPOTrainer.__init__"): "self strategy actor ema_model actor_optim actor_scheduler ema_beta "
    "micro_train_batch_size buffer_limit buffer_cpu_offload eps_clip tokenizer dataloader_pin_memory "
    "vllm_engines kwargs",
    (ACTOR, "ActorPPOTrainer._init_vllm_sync_group"): "self backend",
    (ACTOR, "ActorPPOTrainer.ppo_train"): "self kl_ctl",
    (ACTOR, "ActorPPOTrainer.training_step"): "self experience kl_ctl step loss_batch_info",
    (ACTOR, "ActorPPOTrainer.broadcast_to_vllm"): "self",
    (ACTOR, "PolicyModelActor.init_model_from_pretrained"): "self strategy pretrain max_steps vllm_engines",
    (ACTOR, "PolicyModelActor.save_checkpoint"): "self tag client_states metric_value metric_key",
    (ACTOR, "PolicyModelActor.save_model"): "self",
    ("openrlhf.models", "Actor.forward"): "self sequences action_mask attention_mask return_output "
    "allgather_logits return_logprobs ring_attn_group packed_seq_lens return_entropy mm_inputs",
    (
        "openrlhf.trainer.ray.launcher",
        "BaseModelActor.__init__",
    ): "self world_size rank master_addr master_port",
    ("openrlhf.trainer.ray.launcher", "BaseModelActor._setup_distributed"): "self strategy",
    (PPO, "PPOTrainer.fit"): "self global_step",
    (PPO, "PPOTrainer.evaluate"): "self global_step generate_kwargs",
    (PPO, "PPOTrainer.save_logs_and_checkpoints"): "self global_step logs_dict client_states",
    (PPO, "PPOTrainer._compute_rollout_stats"): "self experiences",
    (PPO, "PPOTrainer.init_checkpoint_states"): "self",
    (ASYNC, "TrainingActor.fit"): "self global_step",
    (ASYNC, "TrainingActor.save_best_checkpoint"): "self eval_metrics global_step client_states",
    ("openrlhf.utils.deepspeed", "DeepspeedStrategy.backward"): "self loss model _optimizer kwargs",
    ("openrlhf.trainer.ppo_utils", "NaiveReplayBuffer.setup_dynamic_batch"): "self strategy",
    (ACTOR, "iter_grad_accum_global_norm"): "data_iter strategy accumulated_gradient mask_fn",
    (PPO, "prepare_datasets"): "strategy tokenizer",
    (PPO, "SamplesGenerator._dispatch_prompts_to_vllm"): "self prompts labels images generate_kwargs",
    (PPO, "SamplesGenerator._process_response_into_experience"): "self response generate_kwargs",
    (PPO, "RemoteExperienceMaker.split_rollout_samples"): "self rollout_samples",
    (PPO, "RemoteExperienceMaker.make_experience_batch"): "self rollout_samples",
    (ASYNC, "PPOTrainerAsync.__init__"): "self pretrain strategy actor_model_group critic_model_group "
    "reward_model_group reference_model_group vllm_engines generate_kwargs",
    ("openrlhf.utils.deepspeed", "DeepspeedStrategy.save_ckpt"): "self model save_dir tag max_num max_mem "
    "client_state save_latest metric_value metric_key",
    ("openrlhf.utils.deepspeed", "DeepspeedStrategy.load_ckpt"): "self model load_dir tag load_module_strict "
    "load_optimizer_states load_lr_scheduler_states load_module_only",
    ("openrlhf.utils.deepspeed", "DeepspeedStrategy.__init__"): "self seed full_determinism max_norm "
    "micro_train_batch_size train_batch_size zero_stage args",
}

# a function constructs or calls these by the module-global name, so that replacing the global replaces them
LOOKED_UP = {
    (ACTOR, "PolicyModelActor.init_model_from_pretrained"): {"Actor", "ActorPPOTrainer"},
    (ENTRY, "train"): {"PolicyModelActor", "create_vllm_engines", "placement_group"},
    (ASYNC, "PPOTrainerAsync.__init__"): {"TrainingActor", "GenerateSamplesActor"},
    (ASYNC, "GenerateSamplesActor.__init__"): {"prepare_datasets", "SamplesGenerator"},
    (PPO, "PPOTrainer.__init__"): {"prepare_datasets", "SamplesGenerator"},
    (PPO, "BasePPOTrainer.__init__"): {"RemoteExperienceMaker"},
    (ACTOR, "ActorPPOTrainer.ppo_train"): {"DataLoader", "iter_grad_accum_global_norm"},
    ("openrlhf.trainer.ray.ppo_critic", "CriticPPOTrainer.ppo_train"): {
        "DataLoader",
        "iter_grad_accum_global_norm",
    },
    ("openrlhf.utils.deepspeed.deepspeed", "DeepspeedStrategy._ds_init_train_model"): {"get_scheduler"},
}


def _undecorated(value: Any) -> Any:
    """The class behind `@ray.remote`, and behind the tracing that Ray wraps around its methods."""
    value = value.__ray_metadata__.modified_class if hasattr(value, "__ray_metadata__") else value
    return inspect.unwrap(value)


def _find(module: str, path: str) -> Any:
    found = importlib.import_module(module)
    for name in path.split("."):
        found = getattr(_undecorated(found), name)
    return _undecorated(found)


def _parameters(module: str, path: str) -> list[str]:
    """Names of a function's parameters, without the one that Ray adds to an actor's methods."""
    return [name for name in inspect.signature(_find(module, path)).parameters if name != "_ray_trace_ctx"]


def _kind(value: Any) -> str:
    if hasattr(value, "__ray_metadata__"):
        return "ray actor"
    return {True: "class"}.get(inspect.isclass(value), "module" if inspect.ismodule(value) else "function")


def _looked_up(module: str, path: str) -> set[str]:
    """Global names a function loads, those of its own imports left out."""
    function = _find(module, path)
    tree = ast.parse(inspect.cleandoc("\n" + inspect.getsource(function)))
    imported = {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom | ast.Import)
        for alias in node.names
    }
    return set(function.__code__.co_names) - imported


def look() -> dict[str, Any]:
    """Everything the tests ask about, as plain values, from one import of OpenRLHF."""
    from openrlhf_mtp.upstream.processes import prepare_process

    prepare_process()
    from openrlhf_mtp.training import ray_actor
    from openrlhf_mtp.training.controller import experience, loop, sampling

    ours = {
        (ACTOR, "ActorPPOTrainer"): ray_actor.PolicyTrainer,
        (ACTOR, "PolicyModelActor"): ray_actor.PolicyActor,
        (PPO, "PPOTrainer"): loop.SyncController,
        (ASYNC, "TrainingActor"): loop.AsyncTrainingController,
        (ASYNC, "PPOTrainerAsync"): loop.AsyncController,
        (ASYNC, "GenerateSamplesActor"): loop.AsyncGeneratingController,
        (PPO, "SamplesGenerator"): sampling.TrainingSamples,
        (PPO, "RemoteExperienceMaker"): experience.EvenExperienceMaker,
    }
    return {
        "kinds": {key: _kind(vars(importlib.import_module(key[0])).get(key[1])) for key in GLOBALS},
        "signatures": {key: _parameters(*key) for key in SIGNATURES},
        "looked up": {key: _looked_up(*key) for key in LOOKED_UP},
        "subclasses": {key: issubclass(cls, _find(*key)) for key, cls in ours.items()},
        "imported inside train": inspect.getsource(_find(ENTRY, "train")),
    }


@pytest.fixture(scope="module")
def facts() -> dict[str, Any]:
    return in_fresh_process(look)


@pytest.mark.parametrize("key", list(GLOBALS), ids=".".join)
def test_what_we_replace_is_there(facts, key):
    assert facts["kinds"][key] == GLOBALS[key]


@pytest.mark.parametrize("key", list(SIGNATURES), ids=".".join)
def test_signatures_are_the_ones_we_rely_on(facts, key):
    assert facts["signatures"][key] == SIGNATURES[key].split()


@pytest.mark.parametrize("key", list(LOOKED_UP), ids=".".join)
def test_collaborators_are_looked_up_as_module_globals(facts, key):
    assert LOOKED_UP[key] <= facts["looked up"][key]


def test_the_entry_point_imports_its_controllers_when_it_runs(facts):
    """`train` takes the controllers from their modules at call time, which is why binding those modules works."""
    source = facts["imported inside train"]
    assert "from openrlhf.trainer.ppo_trainer import PPOTrainer" in source
    assert "from openrlhf.trainer.ppo_trainer_async import PPOTrainerAsync" in source


def test_our_classes_are_subclasses_of_what_they_stand_in_for(facts):
    assert all(facts["subclasses"].values()), facts["subclasses"]


@functools.cache
def _written_names() -> set[str]:
    """Every string and every annotated field in OpenRLHF's trainer sources."""
    found: set[str] = set()
    for path in (SOURCE / "trainer").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.add(node.value)
            elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                found.add(node.target.id)  # a field of Experience, reported under its own name
    return found


@pytest.mark.parametrize("key", list(STATUS_NAMES))
def test_openrlhf_reports_the_numbers_we_translate(key):
    assert key in _written_names()


def test_gradient_accumulation_is_compensated_in_the_token_count():
    """The head divides by the same number as the policy; upstream says how DeepSpeed's 1 / gas is undone."""
    source = (SOURCE / "utils" / "loss_utils.py").read_text(encoding="utf-8")
    assert '"batch_num_tokens": num_tokens / gas' in source


def test_padding_and_actions_are_where_the_head_looks_for_them():
    """Column t - 1 of the action mask is for token t: the mask is cut as the log-probs are."""
    source = (SOURCE / "trainer" / "ppo_utils" / "samples_generator.py").read_text(encoding="utf-8")
    assert "action_mask[1:truncate_length]" in source
