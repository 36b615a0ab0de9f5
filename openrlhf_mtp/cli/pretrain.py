"""`openrlhf-mtp pretrain`: generate the policy's own responses with vLLM, then train the head on them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from openrlhf_mtp.cli.failures import user_facing_errors
from openrlhf_mtp.cli.machine import settle, this_machine
from openrlhf_mtp.cli.messages import say
from openrlhf_mtp.cli.progress.run_line import follow_run
from openrlhf_mtp.cli.ray_session import ray_session
from openrlhf_mtp.cli.train import PLACEMENT_TIMEOUT_S, openrlhf_arguments, prepare_run_folder
from openrlhf_mtp.config.errors import JobError
from openrlhf_mtp.config.head_contract import head_folder
from openrlhf_mtp.config.job import Job
from openrlhf_mtp.config.job_context import JobContext
from openrlhf_mtp.config.run_files import CHECKPOINTS, RESPONSES
from openrlhf_mtp.config.settings.mtp import MTPSettings
from openrlhf_mtp.runlog import notices
from openrlhf_mtp.runlog.run import read_run
from openrlhf_mtp.runlog.run_folder import write_summary

if TYPE_CHECKING:
    from openrlhf_mtp.cli.generation import Shard

PROMPTS_PER_SHARD = 256
"""Responses are written in shards of this many prompts; a run that is cut off loses at most two."""


warn = partial(say, "warning")
"""Tells the user something while the stage goes on."""


def run_pretrain(
    job: Job, out: Path, *, resume: bool = False, overwrite: bool = False, verbose: bool = False
) -> int:
    """The whole stage; returns 0. The trained head is in `out/head`; use it with `mtp.head`.

    Args:
        job: the same job file as for RL; its `mtp.pretrain` section counts here.
        out: the run folder; responses in `out/responses` are reused when policy, prompts and sampling are the same.
        resume: continue an interrupted stage.
        overwrite: remove an earlier run in `out` (its responses are kept if they still fit).
        verbose: show the workers' own output.
    """
    if job.mtp is None:
        raise JobError(
            f"{job.source}: got no mtp section, expected one: pretrain trains the head it describes"
        )
    job = prepare_run_folder(job, out, resume=resume, overwrite=overwrite)
    if not resume:  # the worker continues from any checkpoint that it finds
        shutil.rmtree(out / CHECKPOINTS, ignore_errors=True)
    choice = settle(JobContext(job, this_machine(job), trains_policy=False), out, resume=resume)
    args = openrlhf_arguments(job, out, choice)
    mtp: MTPSettings = args.mtp
    gpus = max(args.vllm.num_engines * args.vllm.tensor_parallel_size, mtp.pretrain.num_ranks)
    with (
        ray_session(gpus=gpus, verbose=verbose, threads=choice.trainer_threads),
        user_facing_errors(out),
    ):
        tokenizer = _tokenizer(args)
        _generate(args, mtp, tokenizer, out)
        _say_when_cut(args, out)
        _train(args, mtp, tokenizer, out)
    from openrlhf_mtp.analysis.report import write_report
    from openrlhf_mtp.analysis.summary import summarize

    write_report([out], out)
    write_summary(out, summarize(read_run(out)))
    return 0


def _tokenizer(args: Any) -> Any:
    from openrlhf.utils import get_tokenizer

    return get_tokenizer(args.actor.model_name_or_path, None, "left", None)


def tokenized_prompts(
    args: Any, tokenizer: Any, limit: int | None, room: int, tell: Callable[[str], None] = warn
) -> list[list[int]]:
    """The job's prompts, as OpenRLHF's data set class and its rollout executor turn them into tokens.

    Args:
        args: OpenRLHF's arguments.
        tokenizer: the policy's.
        limit: at most so many prompts.
        room: tokens of a prompt that the engine takes; a longer prompt loses its beginning, as in RL.
        tell: is given what a user should know about the prompts.

    Raises:
        JobError: a prompt is missing or has no token, or a token has no row in the embedding.
    """
    from openrlhf.datasets.utils import blending_datasets

    from openrlhf_mtp.training.controller.prompt_tokens import examine, tokenize
    from openrlhf_mtp.training.controller.prompts import CheckedPrompts

    strategy = _OfflineStrategy(args)
    data = blending_datasets(
        args.data.prompt_dataset,
        args.data.prompt_probs,
        strategy,
        args.train.seed,
        max_count=args.data.max_samples,
        dataset_split=args.data.prompt_split,
    )
    count = min(args.data.max_samples, len(data), limit or len(data))
    prompts = CheckedPrompts(
        data.select(range(count)), tokenizer, strategy, input_template=args.data.input_template
    )
    tokens = [tokenize(tokenizer, text) for text in prompts.prompts]
    for text in examine(args, tokenizer, tokens, of=len(tokens), room=room):
        tell(text)
    return [ids[-room:] for ids in tokens]


class _OfflineStrategy:
    """The three members that OpenRLHF's data set code reads of a strategy, outside a distributed job."""

    def __init__(self, args: Any) -> None:
        self.args = args

    def print(self, *message: object) -> None:
        """Data set loading is not worth a line here."""

    def is_rank_0(self) -> bool:
        """No second progress bar beside ours."""
        return False


def _generate(args: Any, mtp: MTPSettings, tokenizer: Any, out: Path) -> None:
    from openrlhf_mtp.cli.generation import generate_responses
    from openrlhf_mtp.training.pretrain.responses import held_out_prompts, policy_fingerprint
    from openrlhf_mtp.training.pretrain.temperature_sweep import responses_at

    settings = mtp.pretrain
    new_tokens = settings.max_new_tokens or args.rollout.max_new_tokens
    # a response without a limit of its own still needs one token of the context
    room = args.data.max_len - (new_tokens or 1)
    prompts = tokenized_prompts(args, tokenizer, settings.max_prompts, room, tell=partial(_tell, out))
    sampling = {
        "temperature": settings.temperature or args.rollout.temperature,
        "top_p": args.rollout.top_p,
        "max_tokens": new_tokens or args.data.max_len,
        "n": settings.samples_per_prompt,
        "seed": args.train.seed,
    }
    policy = policy_fingerprint(args.actor.model_name_or_path)
    shards = missing_shards(out / RESPONSES, policy, prompts, sampling)
    held_out = [prompts[at] for at in held_out_prompts(range(len(prompts)), settings.holdout_fraction)]
    for temperature in settings.swept_temperatures(sampling["temperature"]):
        at_it = sampling | {"temperature": temperature}
        shards += missing_shards(responses_at(out, temperature), policy, held_out, at_it)
    if shards:
        generate_responses(args, mtp, shards)


def missing_shards(
    folder: Path, policy: str, prompts: list[list[int]], sampling: dict[str, Any]
) -> list[Shard]:
    """The shards of responses that a folder does not have yet.

    Args:
        folder: where they go; emptied if its responses were made in another way.
        policy: the policy's fingerprint.
        prompts: token ids of each.
        sampling: arguments of vLLM's `SamplingParams`.
    """
    from openrlhf_mtp.cli.generation import Shard
    from openrlhf_mtp.training.pretrain.responses import ResponseCache, prompts_fingerprint

    made_with = {
        "policy": policy,
        "prompts": prompts_fingerprint(prompts),
        "sampling": sampling,
        "prompts_per_shard": PROMPTS_PER_SHARD,
    }
    cache = ResponseCache(folder, made_with)
    starts = range(0, len(prompts), PROMPTS_PER_SHARD)
    return [
        Shard(prompts[at : at + PROMPTS_PER_SHARD], at, sampling, cache, number)
        for number in cache.missing(len(starts))
        for at in (starts[number],)
    ]


def _say_when_cut(args: Any, out: Path) -> None:
    """Say it when most of the responses were cut at their limit."""
    from openrlhf_mtp.training.cut_responses import WORTH_A_NOTICE, cut_notice, pretrain_limit, share_cut
    from openrlhf_mtp.training.pretrain.responses import read_responses

    share = share_cut([response.cut for response in read_responses(out / RESPONSES)])
    if share is not None and share >= WORTH_A_NOTICE:
        _tell(out, cut_notice(share, *pretrain_limit(args)))


def _tell(out: Path, text: str) -> None:
    """Say something at once, and in the run's report."""
    warn(text)
    notices.say(out, text)


def _train(args: Any, mtp: MTPSettings, tokenizer: Any, out: Path) -> None:
    import ray

    from openrlhf_mtp.cluster.placement import Placements, placed_actor_group
    from openrlhf_mtp.training.pretrain.batches import planned_steps
    from openrlhf_mtp.training.pretrain.responses import read_responses, split_by_prompt
    from openrlhf_mtp.training.pretrain.worker import HeadPretrainWorker

    settings = mtp.pretrain
    train_set, _ = split_by_prompt(list(read_responses(out / RESPONSES)), settings.holdout_fraction)
    try:
        steps = planned_steps(len(train_set), settings)
    except ValueError as error:
        raise JobError(f"mtp.pretrain.batch_size: {error}") from error
    placements = Placements.from_environment(PLACEMENT_TIMEOUT_S)
    actor_group = placed_actor_group(placements.for_role("trainer"))
    workers = actor_group(1, settings.num_ranks, ray.remote(num_gpus=1)(HeadPretrainWorker))
    policy = args.actor.model_name_or_path
    call = partial(_on_all, workers, ray)
    call(
        "setup",
        strategy=pretrain_strategy(args, mtp),
        policy=policy,
        head=str(head_folder(mtp.head, policy)),
        responses=str(out / RESPONSES),
        pad_token_id=tokenizer.pad_token_id,
    )
    with follow_run(out, title="head", total=steps):
        call("train", last_step=steps)
    call("export")
    call("sweep_temperatures")


def _on_all(workers: Any, ray: ModuleType, method: str, **kwargs: Any) -> list[Any]:
    results: list[Any] = ray.get(workers.async_run_method(method, **kwargs))
    return results


def pretrain_strategy(args: Any, mtp: MTPSettings) -> Any:
    """OpenRLHF's DeepSpeed strategy with the batch sizes of the pre-RL stage."""
    from openrlhf.utils.deepspeed import DeepspeedStrategy

    strategy = DeepspeedStrategy(
        seed=args.train.seed,
        full_determinism=args.train.full_determinism_enable,
        max_norm=mtp.pretrain.optim.max_norm,
        micro_train_batch_size=mtp.pretrain.micro_batch_size,
        train_batch_size=mtp.pretrain.batch_size,
        zero_stage=args.ds.zero_stage,
        args=args,
    )
    strategy.use_dynamic_batch = False  # that is for RL; this stage's micro-batches have one size
    return strategy
