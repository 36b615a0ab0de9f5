"""A draw that is thrown away leaves a request's generator where it was; the others move on."""

from __future__ import annotations

from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import torch

from openrlhf_mtp.upstream.vllm import seeds


class Runner:
    """vLLM's model runner as far as generators go: every row is sampled, and discarded draws are taken back."""

    def __init__(self, discarded: list[bool]) -> None:
        generators = {row: torch.Generator().manual_seed(row) for row in range(len(discarded))}
        self.input_batch = SimpleNamespace(num_reqs=len(discarded), generators=generators)
        self.discard_request_mask = SimpleNamespace(np=np.array(discarded))

    def _sample(self) -> dict[int, float]:
        return {
            row: float(torch.rand(1, generator=generator))
            for row, generator in self.input_batch.generators.items()
        }

    def _bookkeeping_sync(self) -> None:
        for row, generator in self.input_batch.generators.items():
            if self.discard_request_mask.np[row]:
                generator.set_offset(generator.get_offset() - 4)


def patched() -> Any:
    """A fresh subclass with the patch on it."""
    runner = type("GPUModelRunner", (Runner,), {})
    runners = ModuleType("runners")
    vars(runners)["GPUModelRunner"] = runner
    seeds.PATCH.apply(runners)
    assert seeds.PATCH.probe(runners)
    return runner


def test_a_seeded_row_draws_the_same_however_often_its_draw_was_thrown_away() -> None:
    runner = patched()
    once = runner([False, False])._sample()
    cut = runner([True, False])
    for _ in range(3):
        cut._sample()
        cut._bookkeeping_sync()
    assert sorted(cut.input_batch.generators) == [0, 1]
    cut.discard_request_mask.np[0] = False
    now = cut._sample()
    assert now[0] == once[0]
    assert now[1] != once[1]
