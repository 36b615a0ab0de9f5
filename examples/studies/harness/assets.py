"""What all studies start from, made once: the base policy, the prompts, and a fresh head for each seed.

RUNS/policy            taught by task/base_policy.py
RUNS/data              prompts of task/prompts.py
RUNS/equipped/seed_S   the policy with a fresh head, whose random part has seed S
"""

import fcntl
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from task.walk import Dial

from harness.study import STUDIES

DEPTHS = 3


@dataclass(frozen=True)
class Scale:
    """How large the shared things are, in a study's full form and in its two-minute form."""

    dial: Dial
    reward: tuple[float, float]
    train: int
    evaluation: int


FULL = Scale(Dial(), reward=(0.25, 0.38), train=1600, evaluation=128)
SMOKE = Scale(Dial(steps=8), reward=(0.0, 1.0), train=32, evaluation=8)


def make_assets(runs: Path, scale: Scale, seeds: list[int]) -> None:
    """Make what is not there yet; each folder appears only when it is complete."""
    dial = [word for name, value in asdict(scale.dial).items() for word in (f"--{name}", str(value))]
    band = ["--reward", *map(str, scale.reward)]
    sizes = ["--train", str(scale.train), "--eval", str(scale.evaluation)]
    make_once(runs / "policy", lambda out: _script("base_policy.py", out, [*dial, *band]))
    make_once(runs / "data", lambda out: _script("prompts.py", out, [*dial, *sizes]))
    for seed in seeds:
        make_once(equipped(runs, seed), lambda out, seed=seed: _equip(runs / "policy", out, seed))


def equipped(runs: Path, seed: int) -> Path:
    """The policy with the fresh head of a seed."""
    return runs / "equipped" / f"seed_{seed}"


def make_once(folder: Path, make: Callable[[Path], None]) -> None:
    """Make a folder that is not there yet; it appears only when it is complete.

    Of several studies that need it at once, one makes it and the others wait.

    Args:
        folder: what is made.
        make: is given the folder to fill, which does not exist.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f".{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # ends with the process, however it ends
        if folder.exists():
            return
        partial = folder.with_name(f".{folder.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        make(partial)
        partial.rename(folder)


def _script(name: str, out: Path, options: list[str]) -> None:
    command = [sys.executable, "-W", "ignore::FutureWarning", str(STUDIES / "task" / name), "--out", str(out)]
    subprocess.run([*command, *options], check=True)


def _equip(policy: Path, out: Path, seed: int) -> None:
    from openrlhf_mtp.heads.formats.equip import equip

    equip(policy, out, depths=DEPTHS, seed=seed)
