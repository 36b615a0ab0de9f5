"""The trained head at several sampling temperatures, each on responses that the policy sampled at it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch

from openrlhf_mtp.config.run_files import RESPONSES
from openrlhf_mtp.config.settings.objective import ObjectiveSettings
from openrlhf_mtp.runlog.temperature_sweep import TemperaturePoint
from openrlhf_mtp.training.head_batch import HeadBatch
from openrlhf_mtp.training.head_trainer import HeadTrainer

FEWEST_RESPONSES = 2


def responses_at(out: Path, temperature: float) -> Path:
    """The folder of a run's responses at another temperature than the stage's own."""
    return out / RESPONSES / f"temperature_{temperature:g}"


@torch.no_grad()
def measure(
    head_trainer: HeadTrainer, batches: Iterable[HeadBatch], temperature: float
) -> TemperaturePoint | None:
    """Entropy and replayed acceptance length, on this rank alone.

    Args:
        head_trainer: of the stage; its head and trunk are measured.
        batches: responses sampled at `temperature`, with targets at it.
        temperature: at which the head is taken, too.

    Returns:
        None if fewer than two responses are long enough for a draft: there would be no standard error.
    """
    measured = HeadTrainer(
        engine=None,
        head=head_trainer.head,
        trunk=head_trainer.trunk,
        depths=head_trainer.depths,
        settings=ObjectiveSettings(),
        temperature=temperature,
        verifies_blocks=head_trainer.verifies_blocks,
    )
    entropy, anchors = 0.0, 0.0
    counts: list[tuple[float, float]] = []
    for batch in batches:
        output = measured.loss(batch)
        entropy += float(output.sums.entropy_sum)
        anchors += float(output.sums.depth_count[0])
        counts += [(float(drafts), float(accepted)) for drafts, accepted in measured.replay(output).responses]
        del batch, output  # with its logits, before the next one's are computed
    if len(counts) < FEWEST_RESPONSES:
        return None
    length, error = length_of(counts)
    return TemperaturePoint(temperature, entropy / anchors, length, error, len(counts))


def length_of(counts: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Tokens per target forward over all responses, and its standard error as of a ratio of sums over responses.

    >>> length_of([(10.0, 20.0), (10.0, 10.0)])
    (2.5, 0.5)
    """
    drafts, accepted = (math.fsum(column) for column in zip(*counts, strict=True))
    share = accepted / drafts
    if len(counts) < 2:
        return 1.0 + share, math.inf
    deviations = math.fsum((own - share * tried) ** 2 for tried, own in counts)
    return 1.0 + share, math.sqrt(len(counts) / (len(counts) - 1) * deviations) / drafts
