"""The list of weights both sides must agree on before the first byte is sent, and where its tensors come from.

Pure: no torch.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

from openrlhf_mtp.config.machine.precision import DTYPE_BYTES

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class TensorSpec:
    """One tensor under its checkpoint name, with its full (unsharded) shape and its dtype on the wire."""

    name: str
    shape: tuple[int, ...]
    dtype: str

    def __post_init__(self) -> None:
        if self.dtype not in DTYPE_BYTES:
            raise ValueError(
                f"{self.name}: dtype {self.dtype} cannot be synced; supported: {', '.join(sorted(DTYPE_BYTES))}"
            )

    @property
    def nbytes(self) -> int:
        return prod(self.shape) * DTYPE_BYTES[self.dtype]

    @property
    def rows(self) -> int:
        """Slices of dim 0; a scalar is one."""
        return self.shape[0] if self.shape else 1

    @property
    def row_nbytes(self) -> int:
        """Bytes of a row."""
        return prod(self.shape[1:]) * DTYPE_BYTES[self.dtype]


@dataclass(frozen=True)
class Manifest:
    """All tensors of one model (policy or head), in the order in which they travel."""

    tensors: tuple[TensorSpec, ...]

    def __post_init__(self) -> None:
        counts = Counter(spec.name for spec in self.tensors)
        twice = [name for name, count in counts.items() if count > 1]
        if twice:
            raise ValueError(f"these tensors are listed twice: {', '.join(twice)}")

    @property
    def nbytes(self) -> int:
        return sum(spec.nbytes for spec in self.tensors)

    def by_name(self) -> dict[str, TensorSpec]:
        return {spec.name: spec for spec in self.tensors}

    def to_wire(self) -> list[list[Any]]:
        """Plain lists that any RPC can carry; `from_wire` is the inverse."""
        return [[spec.name, list(spec.shape), spec.dtype] for spec in self.tensors]

    @classmethod
    def from_wire(cls, rows: Iterable[Iterable[Any]]) -> Manifest:
        return cls(tuple(TensorSpec(name, tuple(shape), dtype) for name, shape, dtype in rows))


@dataclass(frozen=True)
class WeightSource:
    """One model's tensors under checkpoint names, as the trainer holds them.

    Attributes:
        manifest: full shapes, and the dtype on the wire (the engine's), which may differ from the trainer's.
        tensors: starts a fresh pass that yields (name, full tensor) in the manifest's order. A tensor is only used
            until the next one is asked for, so a pass can gather sharded parameters one at a time.
    """

    manifest: Manifest
    tensors: Callable[[], Iterable[tuple[str, Tensor]]]


def held_by_engine(workers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """An engine's answer to `sync_manifest`, from those of all its workers (`ReceivingWorker.mtp_manifest`).

    Each worker holds its shards of the same full tensors, on a device of its own.

    Returns:
        `policy` and `head` as `Manifest.to_wire` rows, and `places`, one of each worker in the order of their ranks.
    """
    first = workers[0]
    parts = {part: first[part] for part in ("policy", "head")}
    assert all(worker[part] == parts[part] for worker in workers for part in parts), "shards of other tensors"
    return {**parts, "places": [worker["place"] for worker in workers]}


def diff(trainer: Manifest, engine: Manifest) -> list[str]:
    """Every difference, one line each, empty when the two sides agree (order does not count).

    >>> a = Manifest((TensorSpec("w", (2, 3), "float32"),))
    >>> diff(a, Manifest((TensorSpec("w", (3, 2), "float32"),)))
    ['w: shape [2, 3] in the trainer, [3, 2] in the engine']
    """
    ours, theirs = trainer.by_name(), engine.by_name()
    lines = [f"{name}: missing in the engine" for name in ours if name not in theirs]
    lines += [f"{name}: missing in the trainer" for name in theirs if name not in ours]
    for name in ours.keys() & theirs.keys():
        a, b = ours[name], theirs[name]
        if a.shape != b.shape:
            lines.append(f"{name}: shape {list(a.shape)} in the trainer, {list(b.shape)} in the engine")
        if a.dtype != b.dtype:
            lines.append(f"{name}: dtype {a.dtype} in the trainer, {b.dtype} in the engine")
    return sorted(lines)
