"""How entropy and acceptance length of one policy and head change with the sampling temperature.

The stage before RL measures this at its end and keeps it beside the head it trained; a run of RL copies it. It is what
the drift split takes its slope from: temperature moves the entropy while policy and head stay as they are, whereas
over the steps of RL the policy moves too.
"""

import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from openrlhf_mtp.config.atomic_files import write_atomically
from openrlhf_mtp.config.run_files import TEMPERATURES

FILE = TEMPERATURES
"""The file of the points in a run folder, for a message."""


@dataclass(frozen=True)
class TemperaturePoint:
    """Policy and head at one temperature, on responses that the policy sampled at it.

    Attributes:
        temperature: of sampling, and of both distributions.
        entropy: mean of the policy's entropy at the anchors, nat.
        length: tokens per target forward along the path of the engine's drafts, as the replay predicts them.
        length_error: standard error of `length` over responses, tokens.
        responses: how many there were.
    """

    temperature: float
    entropy: float
    length: float
    length_error: float
    responses: int


def write_temperatures(folder: Path, points: list[TemperaturePoint]) -> None:
    """Write the points into a head's folder or a run folder."""
    write_atomically(folder / TEMPERATURES, json.dumps([asdict(point) for point in points], indent=1) + "\n")


def read_temperatures(folder: Path, warn: Callable[[str], None]) -> list[TemperaturePoint]:
    """The points of a folder by temperature; none without the file, and `warn` is told if it cannot be read."""
    path = folder / TEMPERATURES
    if not path.exists():
        return []
    try:
        points = [TemperaturePoint(**row) for row in json.loads(path.read_text(encoding="utf-8"))]
        if not all(math.isfinite(value) for point in points for value in vars(point).values()):
            raise ValueError("a value is not finite")
    except (OSError, ValueError, TypeError):
        warn(f"{TEMPERATURES} could not be read and was left out")
        return []
    return sorted(points, key=lambda point: point.temperature)
