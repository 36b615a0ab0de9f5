"""The figure of a whole run: where the time of a step goes, and the reward against time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from openrlhf_mtp.analysis import style


def draw(
    measured: Mapping[str, Sequence[Mapping[str, Any]]], parts: Sequence[str], reward: float | None
) -> Figure:
    """Draw two panels: seconds of a step by part, and the reward against time.

    Args:
        measured: arm -> its runs' figures (`bench.whole_run.figures`).
        parts: of a step, from the bottom up.
        reward: a level to mark.
    """
    figure, (times, rewards) = style.panels(2)
    bottom = np.zeros(len(measured))
    for part in parts:
        heights = np.array([np.median([run["parts"][part] for run in runs]) for runs in measured.values()])
        times.bar(list(measured), heights, 0.6, bottom=bottom, color=style.PART_COLORS[part], label=part)
        bottom += heights
    style.label(times, "Time of a step", "s", "")
    style.legend(times)
    for (arm, runs), color in zip(measured.items(), style.GROUP_COLORS, strict=False):
        for run in runs:
            style.line(rewards, run["elapsed"], run["rewards"], color, arm)
    if reward is not None:
        rewards.axhline(reward, color=style.INK, linewidth=0.8, linestyle=":")
    style.label(rewards, "Reward against time", "score", "s, evaluations left out")
    style.legend(rewards)
    return figure
