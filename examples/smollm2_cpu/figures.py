"""The figures that the example ends with, as a table on the terminal."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.text import Text

from openrlhf_mtp.bench.rollout import RESULT
from openrlhf_mtp.cli.quickstart.table import row, stage_times
from openrlhf_mtp.config.run_files import REPORT, SUMMARY
from openrlhf_mtp.runlog import metrics

Metrics = Mapping[str, Mapping[str, float]]
NOT_MEASURED = "not measured"


def print_figures(out: Path, record: Mapping[str, Any]) -> None:
    """Print the table of a finished run in `out`.

    Args:
        out: the example's folder.
        record: `stages`: seconds and peak memory of each stage.
    """
    summary = json.loads((out / "rl" / SUMMARY).read_text(encoding="utf-8"))
    bench = json.loads((out / "bench" / RESULT).read_text(encoding="utf-8"))
    Console().print(render(summary, bench, record["stages"]))
    print(f"\nReports: {out / 'pretrain' / REPORT} (the head before RL) and {out / 'rl' / REPORT}")


def render(
    summary: Mapping[str, Any], bench: Mapping[str, Any], stages: Mapping[str, Mapping[str, float]]
) -> RenderableType:
    """Lay out the table: a figure, and below it its meaning."""
    found: Metrics = summary["metrics"]
    shares = ", ".join(f"{part} {share:.0%}" for part, share in summary["time_share"].items())
    seconds = {name: stage["seconds"] for name, stage in stages.items()}
    peak = max(stage["peak_memory_gib"] for stage in stages.values())
    rows: list[RenderableType] = [Text("Results", style="bold")]
    rows += row("reward on held-out prompts", change(found, metrics.EVAL_ACCURACY), "before → after RL")
    rows += row("reward in training", change(found, metrics.POLICY_REWARD), "first → last RL step")
    rows += row(
        "acceptance length",
        change(found, metrics.SPEC_MEAN_ACCEPTANCE_LENGTH),
        "tokens for each forward pass of the policy, first → last RL step; 1 without drafts, at most 4 with 3",
    )
    rows += row(
        "unexplained acceptance", gap(found), "the trainer's replay of the acceptance length minus it"
    )
    rows += row("acceptance by depth", by_depth(found), "drafts accepted up to there, mean over RL")
    rows += row(
        "log-prob gap",
        f"≤ {found[metrics.SPEC_LOGPROB_GAP]['max']:.1e} nat"
        if metrics.SPEC_LOGPROB_GAP in found
        else NOT_MEASURED,
        "difference between engine and trainer in the log-prob of a sampled token",
    )
    rows += row("decoding with drafts against without", speed(bench), "tokens per second, by batch")
    rows += row("time of an RL step", shares, "share of each part")
    rows += row("wall time", stage_times(seconds), "of the stages, without set-up")
    rows += row("peak memory", f"{peak:.1f} GiB", "all processes together")
    return Group(*rows)


def change(found: Metrics, name: str) -> str:
    """The first and the last value of a metric."""
    return f"{found[name]['first']:.2f} → {found[name]['last']:.2f}" if name in found else NOT_MEASURED


def gap(found: Metrics) -> str:
    """The difference between the trainer's and the engine's acceptance length, mean over RL."""
    if metrics.SPEC_LENGTH_GAP not in found:
        return NOT_MEASURED
    return f"{found[metrics.SPEC_LENGTH_GAP]['mean']:+.3f} tokens"


def by_depth(found: Metrics) -> str:
    """The acceptance rate at each depth."""
    rates, depth = [], 1
    while (name := metrics.depth_metric(metrics.SPEC_ACCEPTANCE_RATE, depth)) in found:
        rates.append(f"{found[name]['mean']:.2f}")
        depth += 1
    return " ".join(rates) or NOT_MEASURED


def speed(bench: Mapping[str, Any]) -> str:
    """Each batch's rates and their ratio."""
    return ", ".join(
        f"batch {one['batch']} {one['ratio']:.2f}× "
        f"({median(one['plain_tok_s']):.0f} → {median(one['drafted_tok_s']):.0f})"
        for one in bench["rows"]
    )
