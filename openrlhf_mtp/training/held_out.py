"""Acceptance of a head on responses it is not trained on, in both stages."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from numpy.typing import NDArray

from openrlhf_mtp.config.settings.objective import ObjectiveSettings
from openrlhf_mtp.runlog.anchor_records import joined
from openrlhf_mtp.runlog.metrics import (
    MTP_ALPHA,
    MTP_ALPHA_GREEDY,
    MTP_EXPECTED_LENGTH,
    MTP_LOSS,
    depth_metric,
    held_out,
)
from openrlhf_mtp.training.head_batch import HeadBatch
from openrlhf_mtp.training.head_metrics import anchor_records
from openrlhf_mtp.training.head_trainer import HeadTrainer


class HeldOut(NamedTuple):
    """An evaluation of the head.

    Attributes:
        metrics: loss, overlaps and expected length over all ranks, named `eval/mtp/...`.
        records: this rank's anchors one by one, as `records.write_records` takes them; empty without any.
    """

    metrics: dict[str, float]
    records: Mapping[str, NDArray[Any]]


def evaluate_head(
    head_trainer: HeadTrainer, settings: ObjectiveSettings, batches: Iterable[HeadBatch]
) -> HeldOut:
    """Measure the head on every anchor of `batches`, without a gradient (collective).

    The loss is the objective that `settings` end with, whatever its schedule trains with at the moment.
    """
    measured = HeadTrainer(
        engine=None,
        head=head_trainer.head,
        trunk=head_trainer.trunk,
        depths=head_trainer.depths,
        settings=ObjectiveSettings(objective=settings.objective, depth_decay=settings.depth_decay),
        temperature=head_trainer.temperature,
        trunk_sharded=head_trainer.trunk_sharded,
    )
    parts = []
    for batch in batches:
        parts.append(anchor_records(measured.accumulate(batch, 1.0)))
        del batch  # with its logits, before the next one's are computed
    bases = [MTP_LOSS, MTP_EXPECTED_LENGTH]
    bases += [
        depth_metric(base, j)
        for base in (MTP_ALPHA, MTP_ALPHA_GREEDY)
        for j in range(1, head_trainer.depths + 1)
    ]
    row = measured.drain()
    return HeldOut(
        {held_out(name): row[name] for name in bases if name in row}, joined(parts) if parts else {}
    )
