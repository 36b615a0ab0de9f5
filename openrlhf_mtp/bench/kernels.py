"""The row kernels against the memory's own speed, forward and backward, beside `speculators`' kernels.

The least traffic of three passes over R rows of drafts and as many of targets: the first reads both, the second reads
both, the third reads both and writes the gradient, 7 R V numbers. A copy of R V numbers moves 2 R V.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any

import torch
from rich.table import Table
from torch import Tensor

from openrlhf_mtp.bench.harness import take_turns, timed
from openrlhf_mtp.bench.loss_forms import speculators_tv
from openrlhf_mtp.bench.report import table
from openrlhf_mtp.losses.kernels.rows import row_gradient_, row_statistics
from openrlhf_mtp.losses.kernels.types import RowGradients

VOCABULARIES = (32_000, 128_000, 151_936)
PASSES_MOVE, COPY_MOVES = 7, 2
LOGITS = 2**29
"""Draft logits of a measurement: 1 GiB in bf16, far more than a cache holds, and launches are lost in it."""


@dataclass(frozen=True)
class KernelSpeed:
    """Speed of the row kernels at one vocabulary.

    Attributes:
        vocab: its size.
        rows: rows of drafts and of targets.
        seconds: statistics and gradient of the overlap, median of the repeats.
        bytes_per_s: least traffic over `seconds`.
        copy_bytes_per_s: of copying the drafts, measured in turn.
        speculators_seconds: forward and backward of its total variation on the same logits; None where it cannot run.
    """

    vocab: int
    rows: int
    seconds: float
    bytes_per_s: float
    copy_bytes_per_s: float
    speculators_seconds: float | None

    @property
    def share(self) -> float:
        """The share of a copy's bandwidth that the kernels reach."""
        return self.bytes_per_s / self.copy_bytes_per_s


def measure_kernels(vocab: int, dtype: str, device: str, repeats: int, logits: int = LOGITS) -> KernelSpeed:
    """Measure one vocabulary, the three in turn."""
    rows = max(1, logits // vocab)
    generator = torch.Generator(device).manual_seed(0)

    def normal() -> Tensor:
        return torch.randn(rows, vocab, generator=generator, device=device, dtype=getattr(torch, dtype)).mul_(
            3.0
        )

    draft, target, space = normal(), normal(), normal()
    own, tokens = torch.arange(rows, device=device), torch.zeros(rows, dtype=torch.long, device=device)
    weight = torch.ones(rows, device=device)

    def ours() -> None:
        scalars = row_statistics(space, target, own, tokens)
        row_gradient_(space, target, own, tokens, scalars, RowGradients(alpha=weight))

    def theirs() -> None:
        speculators_tv(device)(draft[None].requires_grad_(), target[None]).sum().backward()

    work: dict[str, Callable[[], object]] = {
        "copy": lambda: space.copy_(draft),
        "ours": ours,
        "speculators": theirs,
    }
    runs = take_turns({name: partial(timed, run) for name, run in work.items()}, repeats)
    seconds = {name: median(one.counted) for name, one in runs.items() if not one.problem}
    moved = rows * vocab * draft.element_size()
    return KernelSpeed(
        vocab,
        rows,
        seconds["ours"],
        PASSES_MOVE * moved / seconds["ours"],
        COPY_MOVES * moved / seconds["copy"],
        seconds.get("speculators"),
    )


def render_kernels(kernels: Sequence[KernelSpeed], note: Mapping[str, Any]) -> Table:
    """The row kernels beside a copy."""
    title = f"Row kernels, forward and backward: {note['device']}, {note['dtype']}"
    caption = (
        "Share: least traffic of the three passes per second, over that of a copy. Speculators: its seconds."
    )
    columns = ("vocabulary", "rows", "ms", "GB/s", "copy GB/s", "share", "speculators ms")
    return table(title, caption, columns, map(_row, kernels))


def _row(one: KernelSpeed) -> tuple[str, ...]:
    return (
        f"{one.vocab:,}",
        f"{one.rows:,}",
        f"{one.seconds * 1e3:.2f}",
        f"{one.bytes_per_s / 1e9:,.0f}",
        f"{one.copy_bytes_per_s / 1e9:,.0f}",
        f"{one.share:.0%}",
        "-" if one.speculators_seconds is None else f"{one.speculators_seconds * 1e3:.2f}",
    )
