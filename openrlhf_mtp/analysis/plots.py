"""What draws each figure. A function returns None when no run has what it shows."""

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure

from openrlhf_mtp import metrics
from openrlhf_mtp.analysis import style
from openrlhf_mtp.analysis.summary import OTHER, TIME_PARTS, row_parts
from openrlhf_mtp.run_folder import Run

Runs = Sequence[Run]
BINS, FEWEST_TOKENS = 12, 8


def reward(runs: Runs) -> Figure | None:
    """Training reward and held-out accuracy over steps."""
    return _over_steps(
        runs,
        ("policy/reward", "Reward on training prompts", "score"),
        ("eval/accuracy", "Accuracy on held-out prompts", "fraction"),
    )


def acceptance(runs: Runs) -> Figure | None:
    """Accepted share per depth, and tokens per target forward (dashed: what the trainer's overlaps promise)."""
    depths = max((_depths(run, metrics.SPEC_ACCEPTANCE_RATE) for run in runs), default=0)
    if depths == 0:
        return None
    single = len(runs) == 1
    figure, axes = style.panels(2 if single else depths + 1)
    for number, run in enumerate(runs):
        for j in range(1, depths + 1):
            panel = axes[0] if single else axes[j - 1]
            colour = _depth_colour(j) if single else _colour(number)
            name = f"depth {j}" if single else run.name
            _draw(panel, run, metrics.depth_metric(metrics.SPEC_ACCEPTANCE_RATE, j), colour, name)
            style.label(panel, "Accepted drafts by depth" if single else f"Accepted at depth {j}", "fraction")
            style.unit_interval(panel)
        _draw(axes[-1], run, "spec/mean_acceptance_length", _colour(number), "engine" if single else run.name)
        _draw(
            axes[-1],
            run,
            "mtp/expected_length",
            _colour(number),
            "promised" if single else f"{run.name}, promised",
            "--",
        )
    style.label(axes[-1], "Mean acceptance length", "tokens per target forward")
    style.lengths(axes[-1], depths)
    for panel in axes:
        style.legend(panel)
    return figure


def entropy_acceptance(runs: Runs) -> Figure | None:
    """Entropy of the policy against acceptance, one point a step; per token beside it where records were kept."""
    points = {run.name: _entropy_points(run) for run in runs}
    if not any(len(entropy) for entropy, _ in points.values()):
        return None
    recorded = [run for run in runs if run.records]
    figure, axes = style.panels(1 + bool(recorded))
    for number, (name, (entropy, accepted)) in enumerate(points.items()):
        shades = [to_rgba(_colour(number), alpha) for alpha in np.linspace(0.35, 1.0, len(entropy))]
        axes[0].scatter(entropy, accepted, s=16, c=shades, linewidths=0, label=name)
        if len(entropy) >= 3 and np.ptp(entropy) > 0:
            slope, offset = np.polyfit(entropy, accepted, 1)
            ends = np.array([entropy.min(), entropy.max()])
            axes[0].plot(
                ends,
                slope * ends + offset,
                color=_colour(number),
                linewidth=1.2,
                label=f"slope {slope:+.2f} per nat",
            )
    style.label(axes[0], "One point a step (later steps darker)", "acceptance rate", "policy entropy (nat)")
    if recorded:
        _per_token(axes[1], recorded)
    for panel in axes:
        style.legend(panel)
    return figure


def time_split(runs: Runs) -> Figure | None:
    """Seconds of each step by part, one panel a run."""
    timed = [run for run in runs if any(row_parts(row) for row in run.rows)]
    if not timed:
        return None
    figure, axes = style.panels(len(timed))
    for panel, run in zip(axes, timed, strict=True):
        rows = [row for row in run.rows if row_parts(row)]
        steps = [row[metrics.STEP] for row in rows]
        base = np.zeros(len(rows))
        for part in [*(name for name, _ in TIME_PARTS), OTHER]:
            seconds = np.array([row_parts(row).get(part, 0.0) for row in rows])
            if seconds.any():
                panel.bar(steps, seconds, 0.85, bottom=base, color=style.PART_COLOURS[part], label=part)
            base += seconds
        style.label(panel, "Time of a step" if len(timed) == 1 else run.name, "s")
        style.legend(panel)
    return figure


def throughput(runs: Runs) -> Figure | None:
    """Generated tokens per second and response length."""
    return _over_steps(
        runs,
        (metrics.ROLLOUT_TOK_S, "Rollout throughput, all engines", "token/s"),
        ("policy/response_length", "Response length", "token"),
    )


def sync(runs: Runs) -> Figure | None:
    """Seconds of a synchronisation, of which verification."""
    figure = _over_steps(runs, ("time/sync_s", "Synchronisation", "s"))
    if figure is not None:
        for number, run in enumerate(runs):
            name = "verification" if len(runs) == 1 else f"{run.name}, verification"
            _draw(figure.axes[0], run, "sync/verify_s", _colour(number), name, "--")
        style.legend(figure.axes[0])
    return figure


def head(runs: Runs) -> Figure | None:
    """The head as its trainer sees it: loss, overlap per depth, expected length; held-out values as dashed lines."""
    shown = [run for run in runs if run.series(metrics.MTP_LOSS)[0]]
    if not shown:
        return None
    figure, axes = style.panels(3)
    depths = max(_depths(run, metrics.MTP_ALPHA) for run in shown)
    single = len(shown) == 1
    for number, run in enumerate(shown):
        for panel, name in ((axes[0], metrics.MTP_LOSS), (axes[2], "mtp/expected_length")):
            _draw(panel, run, name, _colour(number), run.name)
            _draw(panel, run, f"eval/{name}", _colour(number), "held-out", "--")
        for j in range(1, depths + 1) if single else sorted({1, depths}):
            name = metrics.depth_metric(metrics.MTP_ALPHA, j)
            colour = _depth_colour(j) if single else _colour(number)
            _draw(axes[1], run, name, colour, f"depth {j}" if single else f"{run.name}, depth {j}")
            _draw(axes[1], run, f"eval/{name}", colour, "held-out", "--")
    style.label(axes[0], "Loss of the head", "loss")
    _scale(axes[0], [value for run in shown for value in run.series(metrics.MTP_LOSS)[1]], "loss")
    style.label(axes[1], "Overlap with the policy", "probability")
    style.label(axes[2], "Expected length", "tokens per target forward")
    style.unit_interval(axes[1])
    style.lengths(axes[2], depths)
    for panel in axes:
        style.legend(panel)
    return figure


def policy(runs: Runs) -> Figure | None:
    """What shows early that the policy is unwell: entropy, gradient norm, engine-trainer gap."""
    return _over_steps(
        runs,
        ("policy/entropy", "Policy entropy", "nat"),
        ("policy/grad_norm", "Policy gradient norm", "norm"),
        ("spec/logprob_gap", "Engine-trainer log-prob gap, mean", "nat"),
    )


def _over_steps(runs: Runs, *wanted: tuple[str, str, str]) -> Figure | None:
    """Panels of (metric, title, unit), those that some run has; a line a run."""
    present = [one for one in wanted if any(run.series(one[0])[0] for run in runs)]
    if not present:
        return None
    figure, axes = style.panels(len(present))
    for panel, (metric, title, unit) in zip(axes, present, strict=True):
        for number, run in enumerate(runs):
            _draw(panel, run, metric, _colour(number), run.name)
        style.label(panel, title, unit)
        _scale(panel, [value for run in runs for value in run.series(metric)[1]], unit)
        style.legend(panel)
    return figure


def _scale(axes: Axes, values: list[float], unit: str) -> None:
    """0 to 1 for shares and for scores within it; from 0 for what cannot be negative; as it comes otherwise."""
    finite = [value for value in values if math.isfinite(value)]
    if not finite or min(finite) < 0:
        return
    if unit in ("fraction", "score") and max(finite) <= 1:
        style.unit_interval(axes)
    else:
        style.from_zero(axes, max(finite))


def _draw(axes: Axes, run: Run, metric: str, colour: str, name: str, dash: str = "-") -> None:
    steps, values = run.series(metric)
    if steps:
        style.line(axes, steps, values, colour, name, dash)


def _colour(number: int) -> str:
    return style.RUN_COLOURS[number % len(style.RUN_COLOURS)]


def _depth_colour(j: int) -> str:
    return style.DEPTH_COLOURS[(j - 1) % len(style.DEPTH_COLOURS)]


def _depths(run: Run, base: str) -> int:
    """How many depths a run logged under `base`."""
    depth = 0
    while run.series(metrics.depth_metric(base, depth + 1))[0]:
        depth += 1
    return depth


def _entropy_points(run: Run) -> tuple[np.ndarray, np.ndarray]:
    """Entropy and acceptance rate of the steps that have both."""
    names = ("policy/entropy", metrics.SPEC_ACCEPTANCE_RATE)
    pairs = np.array(
        [[row[name] for name in names] for row in run.rows if all(name in row for name in names)]
    )
    pairs = pairs.reshape(-1, 2)
    pairs = pairs[np.isfinite(pairs).all(axis=1)]
    return pairs[:, 0], pairs[:, 1]


def _per_token(axes: Axes, runs: Runs) -> None:
    """Mean overlap at depth 1 over tokens of similar entropy, first and last recorded step of each run."""
    for number, run in enumerate(runs):
        steps = sorted(run.records)
        for step, dash in dict.fromkeys([(steps[0], "--"), (steps[-1], "-")]):
            records = run.records[step]
            counted = np.isfinite(records.entropy) & np.isfinite(records.alpha[:, 0])
            entropy, alpha = records.entropy[counted], records.alpha[counted, 0]
            if not len(entropy):
                continue
            group = np.minimum(BINS - 1, BINS * entropy / max(entropy.max(), 1e-9)).astype(int)
            filled = [g for g in range(BINS) if (group == g).sum() >= FEWEST_TOKENS]
            means = np.array(
                [(entropy[group == g].mean(), alpha[group == g].mean()) for g in filled]
            ).reshape(-1, 2)
            name = f"step {step}" if len(runs) == 1 else f"{run.name}, step {step}"
            axes.plot(
                *zip(*means, strict=True), dash, color=_colour(number), marker="o", markersize=3, label=name
            )
    style.label(axes, "One point a group of tokens, depth 1", "overlap", "policy entropy at the token (nat)")
    style.unit_interval(axes)
