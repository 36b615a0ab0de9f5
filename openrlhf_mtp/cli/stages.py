"""Work in stages that is not done twice: a stage is skipped when it finished before and its inputs are unchanged."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console


@dataclass(frozen=True)
class Stage:
    """One stage.

    Attributes:
        name: shown to the user, and the name of the stage's mark on the disk.
        does: what it does, in a few words.
        inputs: files whose content decides the result, besides the results of the stages before.
        run: does it; it must cope with what an interrupted attempt left behind.
    """

    name: str
    does: str
    inputs: Sequence[Path]
    run: Callable[[], None]


def run_stages(stages: Sequence[Stage], marks: Path, console: Console) -> dict[str, float]:
    """Run the stages in order, those whose result does not stand already.

    Args:
        stages: in order; a stage that runs again makes all after it run again.
        marks: folder with a file for each finished stage.
        console: where the stages are announced.

    Returns:
        Seconds that each stage took when it ran, by name.
    """
    marks.mkdir(parents=True, exist_ok=True)
    seconds: dict[str, float] = {}
    fingerprint = ""
    for number, stage in enumerate(stages, start=1):
        fingerprint = _fingerprint(fingerprint, stage)
        mark = marks / f"{stage.name}.json"
        done = _read_mark(mark)
        if done.get("fingerprint") == fingerprint:
            seconds[stage.name] = float(done["seconds"])
            console.print(f"[{number}/{len(stages)}] {stage.name}: done before", markup=False)
            continue
        console.print(f"[{number}/{len(stages)}] {stage.name}: {stage.does}", markup=False)
        mark.unlink(missing_ok=True)
        started = time.monotonic()
        stage.run()
        seconds[stage.name] = round(time.monotonic() - started, 1)
        mark.write_text(
            json.dumps({"fingerprint": fingerprint, "seconds": seconds[stage.name]}) + "\n", "utf-8"
        )
    return seconds


def _fingerprint(before: str, stage: Stage) -> str:
    digest = hashlib.sha256(f"{before}\n{stage.name}\n".encode())
    for path in stage.inputs:
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def _read_mark(path: Path) -> dict[str, str | float]:
    try:
        mark: dict[str, str | float] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return mark
