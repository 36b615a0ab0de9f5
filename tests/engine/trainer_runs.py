"""OpenRLHF's policy worker with our classes, on tiny models, without Ray and without rollout engines.

The real `PolicyActor` is built in a process of its own (one a rank, gloo between them) by OpenRLHF's own methods:
DeepSpeed, loss, replay buffer and optimizer are the ones of a job. Only the rollouts are made up: random tokens, with
log-probs of the policy as it is then, so that a run is a function of its settings and its seed.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

from openrlhf_mtp.training.pretrain.responses import Response, ResponseCache
from tests import packed_attention
from tests.engine.tiny import write_checkpoint

PROMPTS, SAMPLES_PER_PROMPT = 4, 4
TRAIN_BATCH = 8
"""Two optimizer steps a rollout batch."""

LEARNING_RATE = 1e-3
POLICY_MAX_NORM = 0.05
"""Below every gradient norm of these runs, so that the policy's clipping is active in each step."""

VOCABULARY = 256


# the job --------------------------------------------------------------------------------------------------


def write_policy(folder: Path, *, tied: bool = False, changes: dict[str, Any] | None = None) -> Path:
    """A tiny random policy with a random head and a tokenizer, as `openrlhf-mtp equip` would leave it.

    Args:
        folder: to write into.
        tied: whether embedding and output head are one.
        changes: of the configuration; by default those of a Qwen2.
    """
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    write_checkpoint(folder, {"tie_word_embeddings": tied, **(changes or {"model_type": "qwen2"})})
    words = Tokenizer(models.WordLevel({"<pad>": 0, "<eos>": 1, "<unk>": 2}, unk_token="<unk>"))
    PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="<eos>").save_pretrained(
        folder
    )
    return folder


def arguments(folder: Path, out: Path, mtp: dict[str, Any] | None, **flags: Any) -> Any:
    """The job's parsed and validated arguments; `flags` are OpenRLHF's, with `__` for a dot."""
    from openrlhf_mtp.config.settings.mtp import MTPSettings
    from openrlhf_mtp.training.controller.context import RunContext
    from openrlhf_mtp.upstream.openrlhf.flags import parse

    chosen = {
        "actor.model_name_or_path": folder,
        "actor.num_gpus_per_node": int(os.environ["WORLD_SIZE"]),
        "actor.adam.lr": LEARNING_RATE,
        "actor.max_norm": POLICY_MAX_NORM,
        "actor.lr_scheduler": "constant",
        "algo.advantage.estimator": "group_norm",
        "algo.kl.init_coef": 0,
        "ckpt.path": out / "checkpoints",
        "ckpt.output_dir": out / "final",
        "data.prompt_dataset": "none",
        "ds.attn_implementation": "sdpa",
        "ds.param_dtype": "bf16",
        "ds.zero_stage": 2,
        "reward.remote_url": "none",
        "rollout.batch_size": PROMPTS,
        "rollout.n_samples_per_prompt": SAMPLES_PER_PROMPT,
        "train.batch_size": TRAIN_BATCH,
        "train.micro_batch_size": 2,
        "vllm.num_engines": 1,
        "vllm.sync_backend": "gloo",
    } | {name.replace("__", "."): value for name, value in flags.items()}
    argv = ["--train.full_determinism_enable"]
    for name, value in chosen.items():
        values = value if isinstance(value, list) else [] if value is True else [value]
        argv += [f"--{name}", *map(str, values)]
    args: Any = parse(argv)
    args.mtp = None if mtp is None else MTPSettings.model_validate(mtp)
    args.run = RunContext(run_folder=str(out), monitor_factory=_no_engines, count_generated=_no_engines)
    return args


def prepare() -> None:
    """What every process of a job does first."""
    from openrlhf_mtp.upstream.processes import prepare_process

    prepare_process()
    import torch

    # The deterministic mode fills new memory with NaN: for DeepSpeed's reduction buffers 1 GB a backward pass.
    torch.utils.deterministic.fill_uninitialized_memory = False


@contextmanager
def sharded_at_once() -> Iterator[None]:
    """ZeRO-3 shards parameters again right after their use, as it does with a large model's. Of a tiny one it keeps
    all, and no flag of OpenRLHF changes that."""
    prepare()
    from openrlhf.utils.deepspeed import deepspeed as upstream

    sizes = {f"stage3_{name}": 0 for name in ("param_persistence_threshold", "max_reuse_distance")}

    def configured(make: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
        def made(*args: Any, **kwargs: Any) -> dict[str, Any]:
            config = make(*args, **kwargs)
            config["zero_optimization"] |= sizes
            return config

        return made

    with (
        mock.patch.object(upstream, "get_train_ds_config", configured(upstream.get_train_ds_config)),
        mock.patch.object(upstream, "get_eval_ds_config", configured(upstream.get_eval_ds_config)),
    ):
        yield


def build_actor(args: Any) -> Any:
    """The policy worker of this rank, as OpenRLHF's launcher builds it."""
    prepare()
    from openrlhf.utils import get_strategy

    from openrlhf_mtp.training.ray_actor import PolicyActor

    ranks, rank = int(os.environ["WORLD_SIZE"]), int(os.environ["RANK"])
    actor = PolicyActor(ranks, rank, os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"])
    os.environ["LOCAL_RANK"] = str(rank)
    actor.init_model_from_pretrained(get_strategy(args), args.actor.model_name_or_path, max_steps=1000)
    return actor


def build_float32_actor(args: Any) -> Any:
    """In half precisions two ways of adding up could not be compared."""
    args.ds.param_dtype = "fp32"
    if (
        args.ds.packing_samples
    ):  # dynamic batches come with it; it comes with flash-attention, which a CPU has not
        prepare()
        args.ds.attn_implementation = packed_attention.register()
    return build_actor(args)


def build_pretrain_worker(
    folder: Path,
    out: Path,
    responses: Path,
    pretrain: dict[str, Any],
    *,
    param_dtype: str = "bf16",
    zero_stage: int = 2,
) -> Any:
    """The pre-RL stage's worker of this rank, resumed from `out` if there is something to resume."""
    prepare()
    from openrlhf_mtp.cli.pretrain import pretrain_strategy
    from openrlhf_mtp.training.pretrain.worker import HeadPretrainWorker

    ranks, rank = int(os.environ["WORLD_SIZE"]), int(os.environ["RANK"])
    settings = {"kl_warmup_steps": 1, "num_ranks": ranks, **pretrain}
    args = arguments(folder, out, {"pretrain": settings}, ds__zero_stage=zero_stage)
    args.ds.param_dtype = param_dtype
    worker = HeadPretrainWorker(ranks, rank, os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"])
    os.environ["LOCAL_RANK"] = str(rank)
    worker.setup(pretrain_strategy(args, args.mtp), str(folder), str(folder / "mtp"), str(responses), 0)
    return worker


def _no_engines(engines: list[Any]) -> Any:
    raise AssertionError("this stage measures no engines")


def write_responses(folder: Path) -> Path:
    """Responses of uneven lengths to 48 prompts, so that equal weights for micro-batches would show."""
    draw = random.Random(0)

    def tokens(low: int, high: int) -> tuple[int, ...]:
        return tuple(draw.randrange(3, VOCABULARY) for _ in range(draw.randrange(low, high)))

    responses = [Response(prompt, tokens(3, 8), tokens(2, 30)) for prompt in range(48)]
    ResponseCache(folder, {}).write(0, responses)
    return folder


# made-up rollouts -----------------------------------------------------------------------------------------


def rollout(actor: Any, seed: int, samples: int | None = None) -> Iterator[Any]:
    """One rollout batch as experiences of one sequence each: the whole batch, whatever the number of ranks.

    `samples` is their number where it is not a full rollout's.
    """
    import torch
    from openrlhf.trainer.ppo_utils.experience import Experience

    draw = torch.Generator().manual_seed(seed)
    settings = actor.strategy.args.rollout
    for _ in range(samples or settings.batch_size * settings.n_samples_per_prompt):
        prompt, response = (
            int(torch.randint(low, high, (), generator=draw)) for low, high in ((3, 8), (2, 24))
        )
        tokens = torch.randint(3, VOCABULARY, (1, prompt + response), generator=draw)
        action_mask = torch.zeros(1, prompt + response - 1, dtype=torch.bool)
        action_mask[:, prompt - 1 :] = True
        attention_mask = torch.ones_like(tokens)
        advantage = torch.randn(1, 1, generator=draw)
        log_probs = actor.forward(tokens, action_mask, attention_mask)
        yield Experience(
            sequences=tokens,
            attention_mask=attention_mask,
            action_mask=action_mask,
            action_log_probs=log_probs,
            base_action_log_probs=log_probs - 0.1,
            # an engine that differs by a third in the odds of a token, so that importance sampling has something to do
            rollout_log_probs=log_probs + 0.3 * torch.randn(log_probs.shape, generator=draw),
            advantages=advantage * action_mask,
            rewards=advantage[0],
            response_length=torch.tensor([float(response)]),
            total_length=torch.tensor([float(prompt + response)]),
            truncated=torch.tensor([0.0]),
            info={"reward": advantage[0]},
        )


def train(
    actor: Any, seeds: Sequence[int], *, own_order: bool = False, samples: int | None = None
) -> list[dict[str, float]]:
    """One rollout batch and its updates for each seed; OpenRLHF's status with the head's metrics, for each.

    `samples` is a rollout's number of them where it is not a full one's. OpenRLHF shuffles a rollout batch with the
    process's random state, which no checkpoint holds; `own_order` makes each batch's order a function of its seed.
    """
    import torch

    statuses = []
    for seed in seeds:
        ranks, rank = actor._world_size, actor._rank
        for number, experience in enumerate(list(rollout(actor, seed, samples))):
            if number % ranks == rank:
                actor.append(experience)
        if own_order:
            torch.manual_seed(seed)
        statuses.append(actor.fit(actor.strategy.args.algo.kl.init_coef))
    return statuses


# what a run ends with -------------------------------------------------------------------------------------


def policy_parameters(actor: Any) -> dict[str, Any]:
    """The policy's parameters in the precision that trains, and DeepSpeed's float32 masters of them."""
    from deepspeed.utils import safe_get_full_fp32_param

    found = {}
    for name, parameter in actor.actor.model.module.named_parameters():
        found[name] = parameter.detach().clone()
        found[f"float32 {name}"] = safe_get_full_fp32_param(parameter).clone()
    return found


def sent(actor: Any) -> dict[str, Any]:
    """What engines would get of the policy now, adapters merged and whole (collective under ZeRO-3)."""
    from openrlhf_mtp.training.trunk import unwrapped
    from openrlhf_mtp.training.weight_source import policy_source

    stage = actor.strategy.args.ds.zero_stage
    source = policy_source(unwrapped(actor.actor.model), "float32", sharded=stage == 3)
    return {name: weight.detach().clone() for name, weight in source.tensors()}


def head_masters(trainer: Any) -> dict[str, Any]:
    """The float32 masters of a `HeadTrainer`'s head, or its parameters where nothing trains it."""
    from deepspeed.utils import safe_get_full_fp32_param

    read = safe_get_full_fp32_param if trainer.engine is not None else (lambda parameter: parameter.detach())
    return {name: read(parameter).clone() for name, parameter in trainer.head.named_parameters()}


def largest_difference(first: dict[str, Any], second: dict[str, Any]) -> float:
    """max |a - b| over all tensors of two equally named sets."""
    assert first.keys() == second.keys()
    return max((first[name].float() - second[name].float()).abs().max().item() for name in first)


def distance(first: dict[str, Any], second: dict[str, Any]) -> float:
    """L2 norm of the difference over all tensors of two equally named sets."""
    assert first.keys() == second.keys()
    return float(sum((first[name] - second[name]).double().square().sum() for name in first) ** 0.5)
