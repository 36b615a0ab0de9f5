"""OpenRLHF's iteration over micro-batches, with the whole optimizer step in view of each. Checked on openrlhf 0.11.2.

OpenRLHF normalizes a loss over all micro-batches of an optimizer step and hands the training step only the
normalizers. OCC's coefficient and the advantage weights need the micro-batches themselves before the first backward.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

Windows = Callable[..., Iterator[tuple[Any, dict[str, Any]]]]
StepWindows = Callable[..., Iterator[tuple[Any, "StepInfo"]]]


class StepInfo(dict[str, Any]):
    """OpenRLHF's loss normalizers, passed on as keyword arguments, with what they were computed from.

    Attributes:
        micro_batches: this rank's micro-batches of the optimizer step.
        micro_batch_index: which of them this is, from 0.
    """

    def __init__(self, normalizers: dict[str, Any], micro_batches: list[Any], micro_batch_index: int) -> None:
        super().__init__(normalizers)
        self.micro_batches = micro_batches
        self.micro_batch_index = micro_batch_index

    @property
    def completes_step(self) -> bool:
        """Whether this micro-batch is the optimizer step's last."""
        return self.micro_batch_index + 1 == len(self.micro_batches)


def with_windows(iterate: Windows) -> StepWindows:
    """`openrlhf.utils.loss_utils.iter_grad_accum_global_norm` whose second item is a `StepInfo`.

    It fetches an optimizer step's micro-batches before it yields the first, so what was fetched since the last yield
    is the step.
    """

    def iterate_with_windows(items: Iterable[Any], *args: Any) -> Iterator[tuple[Any, StepInfo]]:
        fetched: list[Any] = []

        def recorded() -> Iterator[Any]:
            for item in items:
                fetched.append(item)
                yield item

        window: list[Any] = []
        index = 0
        for item, normalizers in iterate(recorded(), *args):
            if index == len(window):
                window, index = list(fetched), 0
                fetched.clear()
            yield item, StepInfo(normalizers, window, index)
            index += 1

    return iterate_with_windows


def dynamic_window(
    replay_buffer: Any, step: int, normalizers: dict[str, Any], previous: StepInfo | None = None
) -> StepInfo:
    """The same for dynamic batches, whose optimizer steps the replay buffer marks by their last micro-batch.

    Args:
        replay_buffer: OpenRLHF's, after `setup_dynamic_batch`.
        step: number of the micro-batch in this pass.
        normalizers: of its optimizer step.
        previous: of the micro-batch before; its micro-batches are kept if it is of the same optimizer step.
    """
    ends = [n for n, is_last in enumerate(replay_buffer.dynamic_optimizer_step) if is_last]
    last = next(n for n in ends if n >= step)
    first = max((n + 1 for n in ends if n < step), default=0)
    if step > first and previous is not None:
        return StepInfo(normalizers, previous.micro_batches, step - first)
    micro_batches = [replay_buffer.collate_fn([replay_buffer[n]]) for n in range(first, last + 1)]
    return StepInfo(normalizers, micro_batches, step - first)
