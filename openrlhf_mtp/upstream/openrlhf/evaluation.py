"""Keep the responses of an evaluation, which OpenRLHF's controller scores and drops."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from openrlhf_mtp.upstream.replacement import Method, Wrapping

SAMPLES = Wrapping(
    name="an evaluation's samples are kept",
    target="openrlhf.trainer.ppo_utils.samples_generator",
    touches=("SamplesGenerator.generate_eval_samples",),
    reason="`evaluate` returns rewards alone, and the head is measured on the same responses",
    versions="openrlhf 0.11.2",
)


@contextmanager
def kept_samples(generator: Any) -> Iterator[list[Any]]:
    """Within this context the list receives what the samples generator returns for an evaluation."""
    kept: list[Any] = []

    def keeping(generate: Method) -> Method:
        def generate_and_keep(*args: Any, **kwargs: Any) -> Any:
            samples = generate(*args, **kwargs)
            kept.extend(samples)
            return samples

        return generate_and_keep

    with SAMPLES.around(generator, keeping):
        yield kept
