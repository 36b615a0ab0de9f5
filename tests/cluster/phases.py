"""Where in a step the tiny run is, seen from its volume: the reward leaves a mark for each response that it rates.

Rows of metrics tell the end of a step alone, and the driver's output comes seconds late, longer than the step.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from tests.cluster.api import until
from tests.cluster.runs import steps
from tests.engine import rl_jobs

Phase = Literal["generation", "training"]
EVALUATED = rl_jobs.HELD_OUT * rl_jobs.JOB["eval"]["n_samples_per_prompt"]
"""Responses that are rated before the first step."""
RATED = rl_jobs.JOB["rollout"]["batch_size"] * rl_jobs.JOB["rollout"]["n_samples_per_prompt"]
"""Responses that are rated in a step; each as soon as it is generated, in the rollout pod."""
HOLDABLE = (
    rl_jobs.REWARD
    + """
import time

rate = reward_func

def reward_func(queries, prompts, labels, **given):
    here = os.path.dirname(__file__)
    while os.path.exists(os.path.join(here, "hold")):
        open(os.path.join(here, "held"), "a").close()
        time.sleep(0.05)
    return rate(queries, prompts, labels, **given)
"""
)
"""The tiny job's reward, which waits while a file `hold` lies beside it."""


def make_holdable(folder: Path) -> None:
    """Give the run on a volume a reward that can be held; before it is installed."""
    (folder / "assets/reward.py").write_text(HOLDABLE, encoding="utf-8")


def phase(folder: Path) -> Phase:
    """Of the step after the last that was logged; in a run's first attempt, once it has logged its evaluation."""
    logged = max(steps(folder))
    rated = (folder / "assets/reward_calls").stat().st_size - EVALUATED - logged * RATED
    return "training" if rated == RATED else "generation"


@contextmanager
def within(wanted: Phase, folder: Path) -> Iterator[None]:
    """Enter while a step generates, which it does until this is left; or when it has just begun to train (0.4 s)."""
    if wanted == "training":
        until("a step that trains", lambda: phase(folder) == "training", 120, 0.01)
        yield
        return
    hold = folder / "assets/hold"
    hold.touch()
    try:
        until("a response that waits for its reward", (folder / "assets/held").exists, 120, 0.01)
        yield
    finally:
        hold.unlink()
