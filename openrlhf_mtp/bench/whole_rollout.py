"""`openrlhf-mtp bench rollout --whole N`: seconds of whole rollouts, from the full batch to the last response.

The arms take turns, there and back (A B B A), so that a machine that slows down slows all of them and no arm always
follows the same other one. Compared is turn by turn, with the arm without drafts.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from rich.table import Table

from openrlhf_mtp.bench.drafting import NONE, Drafting
from openrlhf_mtp.bench.harness import take_turns
from openrlhf_mtp.bench.ratios import Ratio
from openrlhf_mtp.bench.report import table
from openrlhf_mtp.bench.requests import shortened
from openrlhf_mtp.bench.rollout_arms import WholeRollout, running_arms
from openrlhf_mtp.bench.timeline import FIGURES, SMALL_BATCH, Timeline, figures
from openrlhf_mtp.config.settings.mtp import MTPSettings

RESULT = "bench_whole_rollout.json"
WARM_UP = 8
"""Responses are this many times shorter in the rollout that warms an engine up."""

Measured = Mapping[str, Sequence[dict[str, float]]]
"""Arm -> the figures of each of its rollouts, in order."""
Show = Callable[[str], None]


def show_line(line: str) -> None:
    """Say where a long measurement is; plain text that reads the same without a terminal."""
    print(line, file=sys.stderr, flush=True)


def measure(
    model_dir: Path,
    mtp: MTPSettings,
    arms: Sequence[Drafting],
    work: WholeRollout,
    turns: int,
    show: Show = show_line,
) -> Measured:
    """Roll out `turns` times with each arm, in turns, all engines alive in this process.

    Args:
        model_dir: the policy.
        mtp: the engine's settings.
        arms: `none` among them.
        work: what all of them do.
        turns: an even number, so that each arm runs as often early as late in a turn.
        show: gets a line for each engine and each rollout.
    """
    assert turns % 2 == 0, "there and back again"

    def report(name: str, timeline: Timeline) -> None:
        show(
            f"{name}: {timeline.seconds:.2f} s, {timeline.tokens} tokens, "
            f"{timeline.tokens_per_forward() or 1.0:.2f} a forward"
        )

    with running_arms(model_dir, mtp, arms, work, lambda name: show(f"{name}: engine is up")) as engines:
        for engine in engines.values():
            engine.roll_out(shortened(work.requests, factor=WARM_UP))
        rollouts = {name: engine.roll_out for name, engine in engines.items()}
        runs = take_turns(rollouts, turns, report, there_and_back=True, warm=True)
    return {name: [figures(timeline) for timeline in run.counted] for name, run in runs.items()}


def against_none(measured: Measured, name: str, figure: str = "seconds") -> Ratio:
    """An arm's figure over that of the arm without drafts, turn by turn."""
    return Ratio.by_turn(*([run[figure] for run in measured[arm]] for arm in (name, NONE)))


def to_record(measured: Measured, work: WholeRollout, note: Mapping[str, Any]) -> dict[str, Any]:
    """The result as plain values: every rollout's figures, their medians, and ratios to the arm without drafts."""
    lengths = [request.tokens for request in work.requests]
    return {
        **note,
        "sequences": len(lengths),
        "tokens": sum(lengths),
        "lengths": {
            "p50": float(np.median(lengths)),
            "p95": float(np.quantile(lengths, 0.95)),
            "max": max(lengths),
        },
        "history": len(work.history),
        "prefix_caching": work.prefix_caching,
        "figures": FIGURES,
        "arms": {
            name: {
                "rollouts": list(runs),
                "median": {figure: median(run[figure] for run in runs) for figure in _shared(runs)},
                "seconds_over_none": _plain(against_none(measured, name)),
            }
            for name, runs in measured.items()
        },
    }


def _shared(runs: Sequence[Mapping[str, float]]) -> list[str]:
    """Figures that every rollout has, in their order."""
    return [name for name in FIGURES if all(name in run for run in runs)]


def _plain(ratio: Ratio) -> dict[str, float]:
    return {"median": ratio.middle, "low": ratio.low, "high": ratio.high}


def render(record: Mapping[str, Any]) -> list[Table]:
    """Two tables: what time a rollout takes, and what the drafts did."""
    title = (
        f"{record['policy']}\n{record['parameters'] / 1e6:.0f}M parameters, {record['dtype']}, {record['device']}, "
        f"vLLM {record['vllm']}, temperature 1\n"
        f"{record['sequences']} responses, {record['tokens']} tokens; lengths: median {record['lengths']['p50']:.0f}, "
        f"95 % below {record['lengths']['p95']:.0f}, longest {record['lengths']['max']}"
    )
    if record["stand_in"] is not None:
        title += f"\n{record['stand_in']}"
    times = table(
        title,
        "s: of the whole rollout, median of the turns. Change: against none, turn by\n"
        "turn; range: its extremes. Last: until 50 %, 95 % and all are complete.",
        ("form", "s", "change", "range, %", "ms/token", "50 %", "95 %", "all"),
        [_time_row(name, arm) for name, arm in record["arms"].items()],
        min_width=80,
    )
    drafts = table(
        "",
        f"Tail: share of the time with at most {SMALL_BATCH} responses left. Length: emitted tokens\n"
        "for each target forward. Before, after: a response's first end token, which it\n"
        "ignores; share: of the tokens after one. Accepted: of the drafted tokens.",
        ("form", "tail", "length", "before", "after", "share", "accepted"),
        [_draft_row(name, arm["median"]) for name, arm in record["arms"].items()],
        min_width=80,
    )
    return [times, drafts]


def _time_row(name: str, arm: Mapping[str, Any]) -> tuple[str, ...]:
    middle, ratio = arm["median"], arm["seconds_over_none"]
    percent = [f"{100 * (ratio[part] - 1):+.1f}" for part in ("median", "low", "high")]
    change = ("", "") if name == NONE else (f"{percent[0]} %", f"{percent[1]} to {percent[2]}")
    ends = (f"{middle[f'completion_{part}']:.3g}" for part in ("p50", "p95", "max"))
    return (name, f"{middle['seconds']:.3g}", *change, f"{1000 * middle['seconds_per_token']:.2f}", *ends)


def _draft_row(name: str, middle: Mapping[str, float]) -> tuple[str, ...]:
    forms = {
        "tail_share": "{:.0%}",
        "tokens_per_forward": "{:.2f}",
        "tokens_per_forward_before_end": "{:.2f}",
        "tokens_per_forward_after_end": "{:.2f}",
        "share_after_end": "{:.0%}",
        "acceptance_rate": "{:.2f}",
    }
    return (
        name,
        *(form.format(middle[figure]) if figure in middle else "–" for figure, form in forms.items()),
    )
