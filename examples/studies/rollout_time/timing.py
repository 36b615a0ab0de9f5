"""One point of the study: whole rollouts by all arms, in turns, by the product's own measurement."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.logged import run_logged
from harness.runs import PROGRAM

from openrlhf_mtp.bench.whole_rollout import RESULT
from rollout_time.arms import words
from rollout_time.points import Point

TURNS = 2


def command(point: Point, out: Path, arms: Sequence[str], *, smoke: bool = False) -> list[str]:
    """The words of the measurement, as they could be typed."""
    policy, frozen, online = (path.absolute() for path in (point.policy, point.frozen, point.online))
    history = [word for file in point.history for word in ("--history", str(file.absolute()))]
    return [
        *PROGRAM,
        *("bench", "rollout", str(policy), "--head", str(frozen), "--out", str(out)),
        *("--recorded", str(point.recorded.absolute()), "--repeats", str(TURNS)),
        *("--arms", words(arms, frozen, online)),
        *(history if "suffix" in arms else ()),
        *(["--prefix-caching"] if point.prefix_caching else ()),
        *(["--no-stand-in"] if smoke else ()),
    ]


def measure(point: Point, out: Path, arms: Sequence[str], *, smoke: bool = False) -> None:
    """Measure a point, unless it was measured with these arms.

    Raises:
        FileNotFoundError: the path or the run that it is on has not come there.
        RuntimeError: the measurement ended with an error.
    """
    if is_measured(out, arms):
        return
    if missing := point.missing():
        raise FileNotFoundError(
            f"{point.pair}, {point.name}: {missing[0]} is missing; record the path first (examples/studies/replay), or "
            "for the real model run `python examples/smollm2_cpu/run.py mtp.record.rollouts=true`"
        )
    out.mkdir(parents=True, exist_ok=True)
    code = run_logged(command(point, out.absolute(), arms, smoke=smoke), out / "time.log")
    if code:
        raise RuntimeError(f"{point.pair}, {point.name} ended with exit code {code}: see {out / 'time.log'}")


def is_measured(out: Path, arms: Sequence[str]) -> bool:
    """Whether the point's result is there, with all these arms."""
    return (out / RESULT).exists() and set(arms) <= read(out)["arms"].keys()


def read(out: Path) -> dict[str, Any]:
    """The result of a point."""
    record: dict[str, Any] = json.loads((out / RESULT).read_text(encoding="utf-8"))
    return record
