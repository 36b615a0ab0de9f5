"""The read-back after a round, on both sides: the trainer's expectation, an engine's answer, and the comparison.

vLLM-CPU packs linear weights when it loads them and leaves `.weight` empty, so a stale packed copy is invisible to
any look at parameters. An engine therefore runs every linear layer on columns of the identity matrix: the output is
the weight itself, exactly (each output is 1 * w plus zeros). Generation multiplies by what is digested here.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from openrlhf_mtp.sync.buckets import Bucket, view
from openrlhf_mtp.sync.convolution import taps
from openrlhf_mtp.sync.digest import add, digest_sum, integers, sampled_columns
from openrlhf_mtp.sync.errors import StaleWeights

if TYPE_CHECKING:  # needs vLLM, which a trainer can do without
    from openrlhf_mtp.sync.loaded_layers import LoadedLayer

READ_BACK_ELEMENTS = 1 << 24  # of one product with the identity: 64 MiB in float32

Digests = Mapping[str, int]
"""The trainer's, of one model: checkpoint name -> digest of the probed columns."""
Rows = Sequence[Sequence[Any]]
"""A worker's, of one model: [checkpoint name, layer, copies, digest] of each tensor in each layer."""
WorkerDigests = Mapping[str, Rows]
"""A worker's, of "policy" and, when its engine drafts, "head"."""


@dataclass(frozen=True)
class Probe:
    """The columns of every matrix that are read back after a round; vectors are read whole.

    Attributes:
        columns: how many of each matrix, None for all.
        seed: chooses them.
    """

    columns: int | None
    seed: int

    def chosen(self, width: int) -> Tensor | None:
        """Column numbers [n] of a matrix of that width; None for all."""
        return sampled_columns(width, self.columns, self.seed)

    def expected(self, tensor: Tensor) -> int:
        """The digest of what engines will read back of a tensor [rows, columns] or [rows], or of what will have reached
        a layer that is tried [rows, ...]."""
        return integers([self.expected_sum(tensor)])[0]

    def expected_sum(self, rows: Tensor, row_offset: int = 0) -> Tensor:
        """Compute what some rows of a tensor add to its digest: an int64 scalar on their device.

        Args:
            rows: [n, columns] or [n], from row `row_offset` of the tensor on; further dimensions count as columns.
        """
        rows = rows.flatten(1) if rows.dim() > 1 else rows
        numbers = self.chosen(rows.shape[1]) if rows.dim() > 1 else None
        if numbers is None:
            return digest_sum(rows, row_offset=row_offset)
        chosen = rows[:, numbers.to(rows.device)]
        return digest_sum(chosen, row_offset=row_offset, columns=numbers)

    @torch.inference_mode()
    def read(self, layers: Sequence[LoadedLayer]) -> Rows:
        """In a worker: the digests of what it computes with."""
        places: list[list[Any]] = []
        sums: list[Tensor] = []
        for layer in layers:
            if layer.kind == "packed":
                continue
            blocks = [
                [
                    digest_sum(block[rows.start : rows.stop], row_offset=rows.row_offset, columns=numbers)
                    for rows in layer.slices
                ]
                for numbers, block in self._blocks(layer)
            ]
            for i, rows in enumerate(layer.slices):
                places.append([rows.spec.name, f"{layer.path}.{layer.attribute}", rows.copies])
                sums.append(sum((block[i] for block in blocks), start=_nothing(layer)))
        return [[*place, total] for place, total in zip(places, integers(sums), strict=True)]

    def _blocks(self, layer: LoadedLayer) -> Iterator[tuple[Tensor | None, Tensor]]:
        """(column numbers in the full tensor [n], values [local rows, n]) until all chosen columns are read."""
        if layer.kind == "vector":
            spec = layer.slices[
                0
            ].spec  # some CPU kernels keep biases in float32; the value is the checkpoint's
            yield None, getattr(layer.module, layer.attribute).to(getattr(torch, spec.dtype))
            return
        full_width = prod(layer.slices[0].spec.shape[1:])
        numbers = self.chosen(full_width)
        if numbers is None:
            numbers = torch.arange(full_width)
        lo, hi = layer.column_offset, layer.column_offset + layer.width
        numbers = numbers[(numbers >= lo) & (numbers < hi)]
        if layer.kind == "absorbed":
            whole = _put_together(layer.module)
            yield numbers, whole[:, numbers.to(whole.device)]
            return
        if layer.kind == "table":
            weight: Any = getattr(layer.module, layer.attribute).flatten(1)
            yield numbers, weight[:, numbers.to(weight.device)]
            return
        if layer.kind == "convolution":
            yield numbers, taps(layer.module)[:, numbers]
            return
        rows = layer.slices[-1].stop
        for chunk in numbers.split(max(1, READ_BACK_ELEMENTS // rows)):
            yield chunk, _multiply(layer, chunk - lo)


def _nothing(layer: LoadedLayer) -> Tensor:
    """The digest of no columns, for a shard that holds none of the chosen ones."""
    parameter: Any = getattr(layer.module, layer.attribute)
    return torch.zeros((), dtype=torch.int64, device=parameter.device)


def _put_together(attention: Any) -> Tensor:
    """[heads (P + V), rank]: the projection, of latent attention's factors [heads, P, rank] and [heads, rank, V]."""
    whole: Tensor = torch.cat([attention.W_UK_T, attention.W_UV.transpose(1, 2)], 1).flatten(0, 1)
    return whole


def _multiply(layer: LoadedLayer, local_columns: Tensor) -> Tensor:
    """[local rows, n]: those columns of the weight, by running the layer on columns of the identity."""
    module: Any = layer.module
    device, dtype = module.weight.device, module.params_dtype
    unit = torch.zeros(len(local_columns), layer.width, dtype=dtype, device=device)
    unit[torch.arange(len(local_columns), device=device), local_columns.to(device)] = 1
    columns: Tensor = module.quant_method.apply(module, unit, bias=None).t()
    return columns


def add_expected(expected: dict[str, int], probe: Probe, bucket: Bucket, buffer: Tensor) -> None:
    """On the trainer: add what a bucket's rows contribute to the digests that engines must read back.

    Args:
        expected: checkpoint name -> digest of the rows so far.
        buffer: [bucket.size] uint8, filled; its device does the work and is waited for once.
    """
    sums = [probe.expected_sum(view(slot, buffer), slot.start) for slot in bucket.slots]
    for slot, found in zip(bucket.slots, integers(sums), strict=True):
        expected[slot.spec.name] = add(expected.get(slot.spec.name, 0), found)


def compare(
    expected: Mapping[str, Digests], engines: Sequence[Sequence[WorkerDigests]], tried: Sequence[str] = ()
) -> None:
    """On the trainer: hold what the workers of each engine read back against what was sent.

    Args:
        expected: "policy" and, if it was sent, "head".
        engines: for each engine, what each of its workers read back.
        tried: what trials found wrong (`sync.trial`), one line each.

    Raises:
        StaleWeights: names every tensor that an engine does not compute with.
    """
    problems = [
        f"engine {number} {part}: {line}"
        for number, workers in enumerate(engines)
        for part, digests in expected.items()
        for line in stale(digests, [worker[part] for worker in workers])
    ] + list(tried)
    if problems:
        raise StaleWeights(
            "after the round these weights are not the ones the engines compute with:\n  "
            + "\n  ".join(problems)
        )


def stale(expected: Digests, workers: Sequence[Rows]) -> list[str]:
    """Every tensor of one model that an engine does not compute with, one line each.

    A tensor that every worker holds whole (copies = workers) must agree on each of them; one that is sharded must add
    up over the workers to `copies` times the trainer's digest.

    Args:
        expected: the trainer's digests.
        workers: for each worker of the engine its `Rows`.
    """
    per_layer: dict[tuple[str, str, int], list[int]] = defaultdict(list)
    for rows in workers:
        for name, layer, copies, found in rows:
            per_layer[name, layer, copies].append(found)
    problems = [
        f"{name}: not read back by the engine" for name in expected.keys() - {key[0] for key in per_layer}
    ]
    for (name, layer, copies), digests in per_layer.items():
        if name not in expected:
            problems.append(f"{name} (layer {layer}): not sent by the trainer")
        elif copies == len(workers):
            bad = [str(i) for i, found in enumerate(digests) if found != expected[name]]
            if bad:
                problems.append(f"{name} (layer {layer}, worker {', '.join(bad)})")
            if len(digests) != len(workers):
                problems.append(
                    f"{name} (layer {layer}): read back by {len(digests)} of {len(workers)} workers"
                )
        elif add(*digests) != add(*[expected[name]] * copies):
            problems.append(f"{name} (layer {layer}, sharded over {len(workers)} workers)")
    return sorted(problems)
