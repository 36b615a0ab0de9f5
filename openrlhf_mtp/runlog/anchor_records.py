"""Per-anchor values of some steps: `records/step_000010.npz` in a run folder.

A step keeps a few thousand anchors, which is what the figures of entropy against acceptance are drawn from. Anchors of
the rollout are the responses the step trained on; held-out ones come from an evaluation on prompts that are not
trained on, and lie beside them as `records/heldout_000010.npz`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from openrlhf_mtp.config.atomic_files import atomic_path
from openrlhf_mtp.config.run_files import RECORDS

FILES = f"{RECORDS}/*.npz"
"""The files of records in a run folder, for a message."""

Split = Literal["rollout", "heldout"]
_PREFIX: dict[Split, str] = {"rollout": "step_", "heldout": "heldout_"}

Values = NDArray[np.float32]


@dataclass(frozen=True)
class Records:
    """Values of one step; depth j is column j - 1, NaN where the anchor does not count at that depth.

    Attributes:
        entropy: of the policy's distribution that depth j is compared with, nat [N, k].
        alpha: overlap sum_v min(p, q), what a sampled draft is accepted with [N, k].
        greedy: p(argmax q), what a greedy draft of the same head would be accepted with [N, k].
        response: a number for the response an anchor is from, because tokens of a response are no independent
            measurements [N]; None if it was not kept.
    """

    entropy: Values
    alpha: Values
    greedy: Values
    response: NDArray[np.int32] | None = None

    @property
    def depths(self) -> int:
        """Number of depths k."""
        return int(self.alpha.shape[1])


def write_records(
    out: Path,
    step: int,
    entropy: NDArray[Any],
    alpha: NDArray[Any],
    greedy: NDArray[Any] | None = None,
    *,
    response: NDArray[Any] | None = None,
    split: Split = "rollout",
) -> None:
    """Keep one step's anchors in the run folder `out`; see `Records` for the arrays."""
    greedy = np.full_like(alpha, np.nan) if greedy is None else greedy
    shapes = [entropy.shape, alpha.shape, greedy.shape]
    if alpha.ndim != 2 or set(shapes) != {alpha.shape}:
        raise ValueError(f"expected entropy, alpha and greedy of one shape [N, k], got {shapes}")
    if response is not None and response.shape != alpha.shape[:1]:
        raise ValueError(f"expected response [N] with N = {len(alpha)}, got {response.shape}")
    arrays = {"entropy": entropy, "alpha": alpha, "greedy": greedy}
    kept: dict[str, NDArray[Any]] = {name: array.astype(np.float32) for name, array in arrays.items()}
    if response is not None:
        kept["response"] = response.astype(np.int32)
    folder = out / RECORDS
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{_PREFIX[split]}{step:06d}.npz"
    with atomic_path(path) as partial, partial.open("wb") as file:
        np.savez_compressed(file, **kept)  # type: ignore[arg-type]


def joined(parts: Sequence[Mapping[str, NDArray[Any]]], limit: int = 8192) -> dict[str, NDArray[Any]]:
    """Arrays of several micro-batches as one, at most `limit` anchors; responses of different parts stay apart.

    >>> one = {"alpha": np.ones((2, 3)), "response": np.array([0, 0])}
    >>> joined([one, one])["response"].tolist()
    [0, 0, 1, 1]
    """
    arrays = {name: np.concatenate([part[name] for part in parts])[:limit] for name in parts[0]}
    if "response" in arrays:
        sizes = [int(part["response"].max(initial=-1)) + 1 for part in parts]
        starts = np.repeat(np.cumsum([0, *sizes[:-1]]), [len(part["response"]) for part in parts])
        arrays["response"] = arrays["response"] + starts[:limit]
    return arrays


def read_records(out: Path, split: Split, warn: Callable[[str], None]) -> dict[int, Records]:
    """The recorded steps of a run folder in their order; `warn` is told of each file that cannot be read."""
    found = {}
    for path in record_files(out, split):
        try:
            with np.load(path) as stored:
                response = stored.get("response")
                records = Records(stored["entropy"], stored["alpha"], stored["greedy"], response)
            if not records.entropy.shape == records.alpha.shape == records.greedy.shape:
                raise ValueError("arrays of different shapes")
        except (OSError, ValueError, KeyError, EOFError, BadZipFile):
            warn(f"{RECORDS}/{path.name} could not be read and was left out")
        else:
            found[step_of(path)] = records
    return found


def record_files(out: Path, split: Split) -> list[Path]:
    """The files of a split, in the order of their steps."""
    return sorted((out / RECORDS).glob(f"{_PREFIX[split]}*.npz"))


def drop_records(out: Path, *, after_step: int) -> None:
    """Remove what later steps recorded; a resumed run will record them again."""
    for split in _PREFIX:
        for path in record_files(out, split):
            if step_of(path) > after_step:
                path.unlink()


def step_of(path: Path) -> int:
    """The step in a record's file name."""
    return int(path.stem.rpartition("_")[2])
