"""From the options of `bench rollout --whole` to what is measured: requests, arms, engines that are large enough."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path
from typing import Any

from openrlhf_mtp.bench.drafting import Drafting, parse_arms, require
from openrlhf_mtp.bench.lengths import parse_lengths
from openrlhf_mtp.bench.report import default_device, publish
from openrlhf_mtp.bench.requests import Request, read_recorded, with_lengths
from openrlhf_mtp.bench.rollout import stand_in_or_policy
from openrlhf_mtp.bench.rollout_arms import WholeRollout, context_of
from openrlhf_mtp.bench.rollout_engine import prepare_process
from openrlhf_mtp.bench.rollout_subject import Subject, make_workload, read_json
from openrlhf_mtp.bench.stand_in import widen_head
from openrlhf_mtp.bench.whole_rollout import RESULT, measure, render, to_record
from openrlhf_mtp.config.errors import JobError
from openrlhf_mtp.config.model_files import ModelShape, model_shape
from openrlhf_mtp.config.settings.mtp import DType, MTPSettings
from openrlhf_mtp.rollout.engine import GIB
from openrlhf_mtp.runlog.run_folder import writable

CACHE_PAGE = 128
"""Tokens of a page of the key-value cache: vLLM's on a CPU; on a GPU they are smaller."""
SPARE = 1.1
"""The cache is so much larger than what a rollout fills."""


@dataclass(frozen=True)
class Options:
    """The options of `bench rollout --whole`.

    Attributes:
        sequences: responses of a rollout; None takes all that are recorded.
        arms, lengths: see `drafting.parse_arms` and `lengths.parse_lengths`.
        recorded: the rollout of an RL step, whose prompts and lengths are taken.
        history: rollouts of steps before, which suffix drafts may come from.
        prefix_caching: of prompts.
        turns: rollouts of each arm.
        stand_in: false measures a small policy as it is.
    """

    sequences: int | None
    arms: str
    lengths: str
    recorded: Path | None = None
    history: Sequence[Path] = ()
    prefix_caching: bool = False
    turns: int = 4
    stand_in: bool = True

    def require_even_turns(self) -> None:
        """Refuse a number of turns that gives some arms more early places than others.

        Raises:
            JobError: it is odd.
        """
        if self.turns % 2:
            raise JobError(
                f"--repeats: got {self.turns}, expected an even number with --whole: the order of the arms is reversed "
                "every other time"
            )


def bench_whole_rollout(
    model: str | None,
    out: Path,
    options: Options,
    *,
    head: Path | None = None,
    prompts: Path | None = None,
    chat_template: bool = True,
    dtype: DType = "bfloat16",
) -> int:
    """Measure, print the tables, write `bench_whole_rollout.json` into `out`, and return 0.

    Args:
        model, head, prompts, chat_template, dtype: as in `rollout.bench_rollout`.
        out: where the result and the stand-in go.
        options: the rollout and its arms.

    Raises:
        JobError: an option, a folder or a package is not as it must be.
    """
    options.require_even_turns()
    subject = Subject.find(model, head, prompts)
    given = parse_arms(options.arms, subject.head)
    require(given)
    requests = recorded_requests(options)
    subject.require_files()
    for arm in given:
        if arm.head is not None:
            read_json(arm.head / "config.json")
    writable(out)
    device = default_device()
    prepare_process(on_cpu=device == "cpu", v1_runner=any(arm.needs_v1_runner for arm in given))
    workload = make_workload(subject, max_new_tokens=1, repeats=1, chat_template=chat_template)
    if requests is None:
        requests = with_lengths(workload.prompts, parse_lengths(options.lengths).draw(options.sequences or 1))
    history = [response for file in options.history for response in read_recorded(file)]
    work = WholeRollout(requests, frozenset(workload.stop_token_ids), history, options.prefix_caching)
    policy, mtp, note = stand_in_or_policy(subject, out, device, dtype, stand_in=options.stand_in)
    require_context(read_json(policy / "config.json"), context_of(requests, given, mtp.depths))
    is_widened = note["stand_in"] is not None
    arms = tuple(_widened(arm, subject.head, policy, out) for arm in given) if is_widened else given
    measured = measure(policy, roomy(mtp, policy, work, arms), arms, work, options.turns)
    note["heads"] = {arm.name: str(arm.head) for arm in given if arm.head}
    record = to_record(measured, work, note)
    publish(out, RESULT, record, render(record))
    return 0


def require_context(config: Mapping[str, Any], needed: int) -> None:
    """See that the policy can read the longest sequence with the drafts after it.

    Args:
        config: the policy's `config.json`.
        needed: tokens.

    Raises:
        JobError: its context is shorter.
    """
    context = config.get("max_position_embeddings")
    if context is not None and needed > context:
        raise JobError(
            f"--lengths, --recorded: got a sequence that takes {needed} tokens with its prompt and drafts, expected at "
            f"most {context}, the policy's max_position_embeddings; take shorter responses, or leave out the arm with "
            "the longest drafts"
        )


def recorded_requests(options: Options) -> list[Request] | None:
    """The recorded responses; None where prompts and a distribution of lengths are to be taken."""
    if options.recorded is None:
        parse_lengths(options.lengths)
        return None
    return read_recorded(options.recorded, options.sequences)


def _widened(arm: Drafting, own_head: Path, policy: Path, out: Path) -> Drafting:
    """The arm with its head in the stand-in's width."""
    if arm.head is None:
        return arm
    if arm.head == own_head:
        return replace(arm, head=policy / "mtp")
    wide = out / "stand_in_heads" / arm.name
    try:
        widen_head(arm.head, wide)
    except ValueError as problem:
        raise JobError(
            f"--arms: got {arm.name}={arm.head}, whose head cannot be widened: {problem}"
        ) from problem
    return replace(arm, head=wide)


def roomy(mtp: MTPSettings, policy: Path, work: WholeRollout, arms: Sequence[Drafting]) -> MTPSettings:
    """The settings with room for the whole rollout at once: sequences, and a cache that none has to leave."""
    drafts = max(arm.longest_draft(mtp.depths) for arm in arms)
    size = {"bfloat16": 2, "float16": 2}.get(mtp.rollout.dtype, 4)
    shape = model_shape(read_json(policy / "config.json"))
    bytes_needed = cache_bytes(shape, work.requests, drafts, size, blocks=mtp.num_blocks)
    update = {"max_num_seqs": len(work.requests), "kv_cache_gib": SPARE * bytes_needed / GIB}
    return mtp.model_copy(update={"rollout": mtp.rollout.model_copy(update=update)})


def cache_bytes(
    shape: ModelShape, requests: Sequence[Request], drafts: int, element: int, *, blocks: int
) -> int:
    """Bytes of keys and values of all sequences in full length, head included.

    Args:
        shape: the policy's.
        requests: the sequences.
        drafts: tokens beyond a sequence's end.
        element: bytes of a number.
        blocks: of the head.
    """
    pages = sum(ceil((len(each.prompt) + each.tokens + drafts) / CACHE_PAGE) for each in requests)
    token = 2 * shape.num_kv_heads * shape.head_dim * element * (shape.num_layers + blocks)
    return (pages + 1) * CACHE_PAGE * token
