"""The plan of a job, computed from its settings and the model's `config.json`; nothing is started."""

import math
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from openrlhf_mtp.config.checks import check
from openrlhf_mtp.config.engine_limits import sequences_on_gpu, tokens_on_gpu
from openrlhf_mtp.config.job_context import JobContext
from openrlhf_mtp.config.machine.precision import DTYPE_BYTES
from openrlhf_mtp.config.memory import (
    GIB,
    EngineMemory,
    TrainerMemory,
    engine_memory,
    engine_share,
    trainer_memory,
)
from openrlhf_mtp.config.model_files import ModelShape
from openrlhf_mtp.config.problem import Problem
from openrlhf_mtp.config.roles import roles, total_gpus
from openrlhf_mtp.config.sampler_memory import sampler_bytes
from openrlhf_mtp.config.settings.mtp import MTPSettings
from openrlhf_mtp.config.sync_time import Cost, bucket_bytes, costs, round_limit_s
from openrlhf_mtp.config.threads import share_out

OPTIMIZER_BYTES = 12
"""AdamW keeps a float32 copy and two moments of every parameter, split over the actor's ranks (ZeRO-2)."""

Rows = list[tuple[str, str]]


@dataclass(frozen=True)
class Plan:
    """The resolved plan: titled sections of (name, value) rows, and every problem, errors first."""

    sections: tuple[tuple[str, Rows], ...]
    problems: tuple[Problem, ...]

    @property
    def errors(self) -> int:
        """The number of problems that stop the job."""
        return sum(problem.level == "error" for problem in self.problems)


def make_plan(context: JobContext, problems: Sequence[Problem] | None = None) -> Plan:
    """Compute the plan of a job on a host; problems are those of our checks, unless more are given."""
    sections = [("Job", _job(context)), ("Roles", _roles(context)), ("Steps", _steps(context))]
    memory = trainer_memory(context)
    if memory is not None:
        sections.append(("Memory of an actor rank", _trainer(context, memory)))
    if context.host.has_cuda:
        sections.append(("Each rollout engine", _engine(context, context.mtp or MTPSettings())))
    engine = engine_memory(context)
    if engine is not None and context.engines:
        sections.append(("Memory of an engine's worker", _engine_memory(context, engine)))
    if context.mtp is not None:
        sections += [
            ("Head", _head(context, context.mtp)),
            ("Weight sync", _sync(context, context.mtp)),
            ("Memory of the head", _memory(context, context.mtp)),
        ]
    return Plan(tuple(sections), tuple(check(context) if problems is None else problems))


def render(plan: Plan, width: int) -> str:
    """Plain text for a terminal of `width` columns; of the problems only how many there are."""
    lines: list[str] = []
    for title, rows in plan.sections:
        lines += [title, *_table(rows, width), ""]
    warnings = len(plan.problems) - plan.errors
    found = f"Problems: {plan.errors} error(s), {warnings} warning(s)" if plan.problems else "No problems."
    return "\n".join([*lines, found])


def _job(context: JobContext) -> Rows:
    threads = share_out(context)
    family = (
        context.model_config.get("model_type", "unknown")
        if context.model_config
        else "not available: skipped"
    )
    return [
        ("file", context.job.source),
        ("paths", f"relative to {Path.cwd()}"),
        ("host", str(context.host)),
        ("precision", _precision(context)),
        *([] if threads is None else [("threads", str(threads))]),
        ("policy", context.policy or "nothing"),
        ("family", str(family)),
        ("algorithm", context.estimator or ""),
        ("mode", "async" if context.on("train.async_enable") else "sync"),
    ]


def _precision(context: JobContext) -> str:
    if context.rollout_dtype == context.precision.dtype:
        return str(context.precision)
    return f"{context.precision}; engines {context.rollout_dtype}"


def _roles(context: JobContext) -> Rows:
    rows = []
    for role in roles(context):
        place = f"shares the {role.shares}'s" if role.shares else f"{role.gpus} GPU(s)"
        workers = f" of {role.workers} workers" if role.workers > 1 else ""
        rows.append((role.name, f"{role.processes} process(es){workers}, {place}"))
    return [*rows, ("total", f"{total_gpus(context)} GPU(s)")]


def expected_rollouts(context: JobContext) -> int | None:
    """RL steps of the job, fewer if prompts are filtered out; None when the data set is not available."""
    if context.prompts is None:
        return None
    return len(context.updates.rollouts(context.prompts)) * context.number("train.num_episodes")


def _steps(context: JobContext) -> Rows:
    updates, prompts = context.updates, context.prompts
    rows = [
        (
            "a rollout",
            f"{updates.rollout_prompts} prompts x {updates.samples_per_prompt} = {context.samples_per_step} responses",
        ),
        ("policy updates", f"{updates.steps(context.samples_per_step)} optimizer step(s) a rollout"),
    ]
    if prompts is None:
        return [*rows, ("rollouts", "depends on the data set, which is not available: skipped")]
    rollouts = expected_rollouts(context)
    rows.append(
        (
            "rollouts",
            f"about {rollouts} ({prompts} prompts, {context.number('train.num_episodes')} episode(s))",
        )
    )
    rest = prompts % updates.rollout_prompts
    if rest:
        last = updates.rollouts(prompts)[-1]
        rows.append(
            (
                "last of an episode",
                f"{rest} prompts = {last} responses, {updates.steps(last)} optimizer step(s)",
            )
        )
    return rows


def _head(context: JobContext, mtp: MTPSettings) -> Rows:
    drafts = (
        f"{mtp.rollout.draft_sample_method} drafts, {mtp.rollout.rejection_sample_method} verification"
        if mtp.rollout.speculate
        else "off: the engines decode token by token"
    )
    rows = [
        ("folder", str(context.head_folder)),
        ("depths", f"{mtp.depths}, over {mtp.num_blocks} block(s)"),
        ("regime", f"{mtp.regime}: {_regime(mtp)}"),
        ("speculation", drafts),
    ]
    if mtp.regime != "frozen" and mtp.anchor_fraction < 1.0:
        rows.append(("positions", f"{mtp.anchor_fraction:g} of them, chosen at random in each head step"))
    if mtp.regime != "frozen" and mtp.advantage.weighting != "none":
        rows.append(("samples", f"weighted by their advantage, {mtp.advantage.weighting}"))
    return rows


def _regime(mtp: MTPSettings) -> str:
    """The regime in words: what is trained on which gradient."""
    if mtp.regime == "frozen":
        return "not trained during RL"
    trained = f"trained with {mtp.objective_text}"
    if not mtp.is_joint:
        return f"{trained}, policy untouched"
    loss = "cross-entropy" if mtp.regime == "joint_ce" else "policy loss"
    factor = f"{mtp.coefficient.value:g}"
    if mtp.coefficient.kind == "occ":
        factor = f"OCC ({mtp.coefficient.occ_variant})"
    return f"{trained}; its {loss} reaches the policy times {factor}"


def _sync(context: JobContext, mtp: MTPSettings) -> Rows:
    settings = mtp.sync
    every = f"every {settings.verify_every} round(s)" if settings.verify_every else "never"
    possible = costs(has_cuda=context.host.has_cuda, colocated=context.colocates_engines)
    auto = f"auto: {next(iter(possible))}"
    rows = [("transport", auto if settings.backend == "auto" else settings.backend), ("verified", every)]
    if context.shape is None:
        return [("weights", "policy and head; sizes not available: skipped"), *rows]
    size = DTYPE_BYTES[context.rollout_dtype]
    policy = (context.shape.sent_tensors(), context.shape.policy_parameters() * size)
    head = (context.shape.head_tensors(mtp.num_blocks), context.shape.head_parameters(mtp.num_blocks) * size)
    workers = context.number("vllm.tensor_parallel_size")
    each = f" of {workers} workers" if workers > 1 else ""
    bucket = bucket_bytes(policy[1] + head[1], settings.bucket_mib)
    buckets = sum(math.ceil(nbytes / bucket) for _, nbytes in (policy, head))
    return [
        ("policy", f"{policy[0]} tensors, {_size(policy[1])}"),
        ("head", f"{head[0]} tensors, {_size(head[1])}"),
        (
            "a round",
            f"{_size(policy[1] + head[1])} in about {buckets} bucket(s) to {context.engines} engine(s){each}",
        ),
        *rows,
        ("expected", _expected(possible, policy[1] + head[1], context.engine_gpus)),
        ("limit", f"{round_limit_s(settings.timeout_s, policy[1] + head[1]):.0f} s a round"),
    ]


def _expected(possible: Mapping[str, Cost], nbytes: int, workers: int) -> str:
    """Seconds of a round by transport, and of a first one that is verified in full."""
    each = [
        f"{cost.seconds(nbytes, workers):.2g} s over {name} (the first {cost.seconds(nbytes, workers, first=True):.2g})"
        for name, cost in possible.items()
    ]
    return "about " + ", ".join(each)


def _engine(context: JobContext, mtp: MTPSettings) -> Rows:
    """The engine's batches on a GPU (`config.engine_limits`)."""
    depths = mtp.depths if context.mtp is not None and mtp.rollout.speculate else 0
    sequences = sequences_on_gpu(mtp.rollout.max_num_seqs)
    tokens = tokens_on_gpu(mtp.rollout.max_num_batched_tokens, sequences, 1 + depths)
    rows = [
        ("batches", f"at most {sequences} sequences, and {tokens} tokens in a forward pass"),
    ]
    if context.shape is not None:
        peak = sampler_bytes(sequences, depths, context.shape.vocab_size)
        rows.append(("sampling", f"at most {_size(peak)} on each worker, beside weights and cache"))
    return rows


def _memory(context: JobContext, mtp: MTPSettings) -> Rows:
    if context.shape is None:
        return [("estimate", "the model's config.json is not available: skipped")]
    parameters = context.shape.head_parameters(mtp.num_blocks)
    rows = [("parameters", _count(parameters))]
    if mtp.regime != "frozen":
        ranks = max(1, context.ranks("actor"))
        rows += [
            (
                "weights, gradient",
                f"{_size(2 * DTYPE_BYTES[context.precision.dtype] * parameters)} on each trainer rank",
            ),
            ("optimizer", f"{_size(OPTIMIZER_BYTES * parameters // ranks)} on each of {ranks} rank(s)"),
        ]
    if mtp.rollout.speculate:
        size = DTYPE_BYTES[context.rollout_dtype]
        workers = context.number("vllm.tensor_parallel_size")
        split = f", shared by {workers} workers" if workers > 1 else ""
        rows.append(
            (
                "engine",
                f"{_size(size * parameters)} on each, and {_cache(context.shape, mtp, size)} of cache a token{split}",
            )
        )
    return rows


def _trainer(context: JobContext, memory: TrainerMemory) -> Rows:
    rows = [
        ("process", _size(memory.process)),
        ("states", f"{_size(memory.states)} of weights, gradients and optimizer"),
        ("layers", f"at most {_size(memory.activations)} in training"),
        (
            "logits",
            f"at most {_size(memory.training)} in training, {_size(memory.experience)} making experience",
        ),
        *([("head", f"at most {_size(memory.head)} for its chain and loss")] if memory.head else []),
        ("peak", f"about {_size(memory.peak)}, in {memory.worst}"),
    ]
    kept = engine_share(context)
    return [*rows, ("engine", f"keeps {kept:.0%} of the GPU meanwhile")] if kept else rows


def _engine_memory(context: JobContext, memory: EngineMemory) -> Rows:
    rows = [
        ("process", _size(memory.process)),
        ("weights", _size(memory.weights)),
        ("largest step", f"{_size(memory.forward)} in the layers, {_size(memory.sampler)} in sampling"),
        ("cache", f"{_size(memory.token)} a token"),
    ]
    gpu = context.host.gpu_memory_gib
    if memory.cache is not None:
        rows.append(
            ("peak", f"about {_size(memory.fixed + memory.cache)}, {_size(memory.cache)} of it cache")
        )
    elif context.host.has_cuda and gpu is not None:
        left = memory.cache_of(context.real("vllm.gpu_memory_utilization") * gpu * GIB)
        tokens = max(0, int(left // memory.token))
        full = f"{tokens / context.max_len:.1f} sequences of data.max_len"
        rows.append(("left for the cache", f"about {_size(max(0, int(left)))}: {tokens} tokens, {full}"))
    return rows


def _cache(shape: ModelShape, mtp: MTPSettings, size: int) -> str:
    return _size(2 * shape.num_kv_heads * shape.head_dim * size * mtp.num_blocks)


def _table(rows: Rows, width: int) -> Iterator[str]:
    label = max(len(name) for name, _ in rows) + 2
    for name, value in rows:
        yield from textwrap.wrap(
            f"  {name:<{label}}{value}",
            width,
            subsequent_indent=" " * (label + 2),
            break_on_hyphens=False,
        )


def _size(nbytes: int) -> str:
    for unit, factor in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if nbytes >= factor:
            return f"{nbytes / factor:.2f} {unit}"
    return f"{nbytes} B"


def _count(number: int) -> str:
    for unit, factor in (("B", 10**9), ("M", 10**6), ("k", 10**3)):
        if number >= factor:
            return f"{number / factor:.2f}{unit}"
    return str(number)
