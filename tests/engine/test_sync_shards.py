"""Reading a tensor-parallel engine back: the digests of its workers' shards add up to the checkpoint's.

vLLM's own layers are built as each worker of a group would build them, loaded by their own loaders, packed, and
read back; no group of processes is needed for that.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any
from unittest.mock import patch

import pytest

from tests.engine.tiny import in_engine_process

HIDDEN, HEADS, HEAD_SIZE, INTERMEDIATE, VOCABULARY = 64, 4, 16, 96, 200
PATCHED = (
    "vllm.model_executor.layers.linear",
    "vllm.model_executor.layers.vocab_parallel_embedding",
    "vllm.model_executor.parameter",
)


def build(kv_heads: int) -> Any:
    """One attention-and-MLP block with embedding, output head, norm and a replicated projection."""
    from torch import nn
    from vllm.model_executor.layers.layernorm import RMSNorm
    from vllm.model_executor.layers.linear import (
        ColumnParallelLinear,
        MergedColumnParallelLinear,
        QKVParallelLinear,
        ReplicatedLinear,
        RowParallelLinear,
    )
    from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead, VocabParallelEmbedding

    model = nn.Module()
    model.embed_tokens = VocabParallelEmbedding(VOCABULARY, HIDDEN)
    model.qkv_proj = QKVParallelLinear(HIDDEN, HEAD_SIZE, HEADS, kv_heads, bias=True)
    model.o_proj = RowParallelLinear(HEADS * HEAD_SIZE, HIDDEN, bias=True)
    model.gate_up_proj = MergedColumnParallelLinear(HIDDEN, [INTERMEDIATE] * 2, bias=False)
    model.wide = ColumnParallelLinear(HIDDEN, 2 * HIDDEN, bias=False)
    model.proj = ReplicatedLinear(2 * HIDDEN, HIDDEN, bias=False)
    model.norm = RMSNorm(HIDDEN)
    model.lm_head = ParallelLMHead(VOCABULARY, HIDDEN)
    return model


def load(model: Any, tensors: dict[str, Any]) -> None:
    """Load checkpoint tensors through each layer's own loader, then process as vLLM does after loading."""
    shards = {f"{n}_proj": ("qkv_proj", n) for n in "qkv"} | {
        "gate_proj": ("gate_up_proj", 0),
        "up_proj": ("gate_up_proj", 1),
    }
    for name, tensor in tensors.items():
        owner, leaf = name.lstrip(".").rsplit(".", 1)
        layer, *shard = shards.get(owner, (owner,))
        parameter = getattr(getattr(model, layer), leaf)
        if hasattr(parameter, "weight_loader"):
            parameter.weight_loader(parameter, tensor, *shard)
        else:
            parameter.data.copy_(tensor)
    for module in model.children():
        if hasattr(module, "quant_method"):
            module.quant_method.process_weights_after_loading(module)


def read_back(workers: int, kv_heads: int, columns: int | None) -> dict[str, list[str]]:
    """What verification says of a healthy group, and of one whose worker 0 holds another value somewhere."""
    import torch
    from vllm.config import VllmConfig, set_current_vllm_config

    from openrlhf_mtp.sync.loaded_layers import loaded_layers, manifest_of
    from openrlhf_mtp.sync.readback import Probe, stale

    torch.manual_seed(0)
    tensors: dict[str, Any] = {}
    rows, changed = [], []
    probe = Probe(columns, seed=3)
    for rank in range(workers):
        with ExitStack() as stack:
            stack.enter_context(set_current_vllm_config(VllmConfig()))
            for module in PATCHED:
                stack.enter_context(patch(f"{module}.get_tensor_model_parallel_rank", return_value=rank))
                stack.enter_context(
                    patch(f"{module}.get_tensor_model_parallel_world_size", return_value=workers)
                )
            model = build(kv_heads)
            layers = loaded_layers(model, workers)
            if not tensors:
                tensors = {spec.name: torch.randn(spec.shape) for spec in manifest_of(layers).tensors}
            load(model, tensors)
            rows.append(probe.read(layers))
            if rank == 0:
                other = {name: tensor + 1 for name, tensor in tensors.items()}
                fresh = build(kv_heads)
                load(fresh, other)
                changed.append(probe.read(loaded_layers(fresh, workers)))
            else:
                changed.append(rows[-1])
    expected = {name: probe.expected(tensor) for name, tensor in tensors.items()}
    return {
        "names": sorted(tensors),
        "shapes": [
            list(tensors[name].shape) for name in (".k_proj.weight", ".q_proj.bias", "lm_head.weight")
        ],
        "healthy": stale(expected, rows),
        "changed": sorted({line.split(" ")[0] for line in stale(expected, changed)}),
    }


CASES = {
    f"{workers} workers, {kv_heads} key-value heads, {columns or 'all'} columns": (workers, kv_heads, columns)
    for workers, kv_heads in ((1, 2), (2, 2), (4, 2), (2, 1))
    for columns in (None, 16)
}


def read_back_all() -> dict[str, Any]:
    """All cases in one process, which spends most of its time importing vLLM."""
    return {name: {**read_back(*case), "kv_heads": case[1]} for name, case in CASES.items()}


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    results: dict[str, Any] = in_engine_process(__file__, "read_back_all")
    return results


@pytest.mark.parametrize("case", CASES)
def test_shards_add_up_to_the_checkpoint(found: dict[str, Any], case: str):
    """A healthy group has no stale tensor; with one worker changed every tensor is named."""
    result = found[case]
    assert result["shapes"] == [
        [result["kv_heads"] * HEAD_SIZE, HIDDEN],
        [HEADS * HEAD_SIZE],
        [VOCABULARY, HIDDEN],
    ]
    assert result["healthy"] == []
    assert result["changed"] == result["names"]
