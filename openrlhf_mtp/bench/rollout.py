"""`openrlhf-mtp bench rollout`: tokens per second with and without drafts, at batch 1, 4 and 16.

On a GPU a checkpoint is measured as it is. On a CPU a tiny model decodes too fast to be limited by memory, so it is
replaced by a stand-in of about 270M parameters with the same distributions (`bench.stand_in`); the output says so.
"""

from __future__ import annotations

import platform
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from rich.table import Table

from openrlhf_mtp.bench.harness import now, take_turns
from openrlhf_mtp.bench.ratios import Ratio
from openrlhf_mtp.bench.report import default_device, device_name, publish, table
from openrlhf_mtp.bench.rollout_engine import Workload, generate, prepare_process, running_engine
from openrlhf_mtp.bench.rollout_subject import (
    STAND_IN_DTYPE,
    Subject,
    count_parameters,
    make_workload,
    settings_for,
)
from openrlhf_mtp.config.settings.mtp import DType, MTPSettings
from openrlhf_mtp.rollout.ended_responses import EndedResponses, acceptance_metrics
from openrlhf_mtp.runlog import metrics
from openrlhf_mtp.runlog.run_folder import writable

RESULT = "bench_rollout.json"
STAND_IN_BELOW = 100_000_000  # parameters; larger models are limited by memory on a CPU too


@dataclass(frozen=True)
class Speed:
    """One setting at one batch: tokens per second of each repeat, and what verification did (empty without drafts)."""

    batch: int
    tok_s: tuple[float, ...]
    acceptance: dict[str, float]


@dataclass(frozen=True)
class Comparison:
    """Both settings at one batch."""

    batch: int
    plain: Speed
    drafted: Speed

    @property
    def ratio(self) -> Ratio:
        """Tokens per second, drafted over plain."""
        return Ratio.of_medians(self.drafted.tok_s, self.plain.tok_s)


Report = Callable[[Speed], None]
"""Called after each batch, so that a long measurement shows where it is."""


def bench_rollout(
    model: str | None,
    out: Path,
    *,
    head: Path | None = None,
    prompts: Path | None = None,
    chat_template: bool = True,
    repeats: int = 3,
    dtype: DType = "bfloat16",
) -> int:
    """Measure, print the table, write `bench_rollout.json` into `out`, and return 0.

    Args:
        model: folder of a policy; default the quickstart's.
        out: where the result and the stand-in go.
        head: the head's folder; default `mtp` inside the policy's.
        prompts: JSON lines with an `input` each; default the quickstart's, or a few arithmetic questions.
        chat_template: put each prompt into the tokenizer's chat template, where it has one.
        repeats: timed repetitions of each batch.
        dtype: precision of policy and head; a stand-in has its own.

    Raises:
        JobError: a folder is missing, or the head does not fit.
    """
    subject = Subject.find(model, head, prompts)
    subject.require_files()
    writable(out)
    device = default_device()
    prepare_process(on_cpu=device == "cpu")
    tokens = 64 if device == "cpu" else 256
    workload = make_workload(subject, max_new_tokens=tokens, repeats=repeats, chat_template=chat_template)
    policy, mtp, note = stand_in_or_policy(subject, out, device, dtype)
    rows = compare(policy, mtp, workload, show_speed)
    publish(out, RESULT, to_json(rows, note), [render(rows, note)])
    return 0


def stand_in_or_policy(
    subject: Subject, out: Path, device: str, dtype: DType, *, stand_in: bool = True
) -> tuple[Path, MTPSettings, dict[str, Any]]:
    """The folder to measure, how an engine drafts with its head, and the description of both.

    Args:
        subject: the policy and its head.
        out: where a stand-in goes.
        device: where it runs; on a CPU a small policy is replaced by a stand-in.
        dtype: precision of policy and head; a stand-in has its own.
        stand_in: false measures a small policy as it is.
    """
    on_cpu = device == "cpu"
    policy, parameters = subject.policy, count_parameters(subject.policy)
    is_small = stand_in and on_cpu and parameters < STAND_IN_BELOW
    mtp = settings_for(subject, on_cpu=on_cpu, dtype=STAND_IN_DTYPE if is_small else dtype)
    if is_small:
        from openrlhf_mtp.bench.stand_in import cached_stand_in

        mtp = mtp.model_copy(update={"head": None})
        policy, parameters = cached_stand_in(subject.policy, subject.head, out / "stand_in")
    note = describe(subject, parameters, mtp.rollout.dtype, device_name(device), is_stand_in=is_small)
    return policy, mtp, note


def show_speed(speed: Speed) -> None:
    """A line for each batch that is done, plain text so that it reads the same without a terminal."""
    setting = "drafted" if speed.acceptance else "plain"
    rates = ", ".join(f"{rate:.1f}" for rate in speed.tok_s)
    print(f"{setting}, batch {speed.batch}: {rates} tok/s", file=sys.stderr, flush=True)


def compare(model_dir: Path, mtp: MTPSettings, workload: Workload, report: Report) -> list[Comparison]:
    """Both settings in turn, in this process: token by token first, then drafted with the head."""
    plain = mtp.model_copy(update={"rollout": mtp.rollout.model_copy(update={"speculate": False})})
    without = measure(model_dir, plain, workload, report)
    drafted = measure(model_dir, mtp, workload, report)
    return [Comparison(slow.batch, slow, fast) for slow, fast in zip(without, drafted, strict=True)]


def measure(model_dir: Path, mtp: MTPSettings, workload: Workload, report: Report) -> list[Speed]:
    """Every batch of one setting, by one engine; see `running_engine` for the arguments."""
    speeds = []
    with running_engine(model_dir, mtp, workload) as engine:
        for batch in workload.batches:
            speeds.append(_measure_batch(engine, batch, workload))
            report(speeds[-1])
    return speeds


@dataclass(frozen=True)
class _Repeat:
    tok_s: float
    ended: EndedResponses


def _measure_batch(engine: Any, batch: int, workload: Workload) -> Speed:
    def repeat() -> _Repeat:
        start = now()
        responses = generate(engine, batch, workload)
        seconds = now() - start
        tokens = sum(len(response.token_ids) for response in responses)
        return _Repeat(tokens / seconds, EndedResponses.of_outputs(responses))

    repeats = take_turns({"": repeat}, workload.repeats)[""].counted
    ended = EndedResponses.joined([one.ended for one in repeats])
    return Speed(batch, tuple(one.tok_s for one in repeats), acceptance_metrics(ended))


def describe(
    subject: Subject, parameters: int, dtype: str, device: str, *, is_stand_in: bool
) -> dict[str, Any]:
    """A description of the measurement: policy, head, prompts, size, precision, device."""
    import vllm

    return {
        "policy": str(subject.policy),
        "head": str(subject.head),
        "prompts": None if subject.prompts is None else str(subject.prompts),
        "parameters": parameters,
        "dtype": dtype,
        "stand_in": (
            "a stand-in: the policy's distributions at a larger model's cost, by zero-padded width and upper layers "
            "that write zeros"
            if is_stand_in
            else None
        ),
        "device": device,
        "machine": platform.machine(),
        "vllm": vllm.__version__,
        "temperature": 1.0,
    }


def to_json(comparisons: Sequence[Comparison], note: Mapping[str, Any]) -> dict[str, Any]:
    """The whole result as plain values."""
    rows = [
        {
            "batch": row.batch,
            "plain_tok_s": list(row.plain.tok_s),
            "drafted_tok_s": list(row.drafted.tok_s),
            "ratio": row.ratio.middle,
            "ratio_low": row.ratio.low,
            "ratio_high": row.ratio.high,
            **row.drafted.acceptance,
        }
        for row in comparisons
    ]
    return {**note, "rows": rows}


def render(comparisons: Sequence[Comparison], note: Mapping[str, Any]) -> Table:
    """A row for each batch."""
    title = (
        f"{note['policy']}\n{note['parameters'] / 1e6:.0f}M parameters, {note['dtype']}, {note['device']}, "
        f"vLLM {note['vllm']}, temperature 1"
    )
    if note["stand_in"] is not None:
        title += f"\n{note['stand_in']}"
    caption = (
        "tok/s: median of the repeats. Ratio: of the medians; range: between the extremes of all repeats.\n"
        "Length: tokens per target forward. By depth: drafts accepted up to there."
    )
    columns = ("batch", "plain tok/s", "drafted tok/s", "ratio", "range", "length", "by depth")
    return table(title, caption, columns, map(_row, comparisons), wrap=set(columns) - {"range", "by depth"})


def _row(row: Comparison) -> tuple[str, ...]:
    acceptance = row.drafted.acceptance
    return (
        str(row.batch),
        f"{median(row.plain.tok_s):.1f}",
        f"{median(row.drafted.tok_s):.1f}",
        f"{row.ratio.middle:.2f}x",
        row.ratio.interval(),
        f"{acceptance[metrics.SPEC_MEAN_ACCEPTANCE_LENGTH]:.2f}",
        " ".join(f"{value:.2f}" for name, value in acceptance.items() if "/depth_" in name),
    )
