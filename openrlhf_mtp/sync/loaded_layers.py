"""A checkpoint's tensors in a vLLM model: the layer and rows that hold each of them. Runs in the worker.

vLLM fuses q/k/v and gate/up, shards over tensor-parallel workers, pads the vocabulary and shares tied embeddings.
The layers are read off the modules that vLLM built, so they show what this engine holds, not what a config promises.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from torch import nn
from vllm.model_executor.layers.attention import MLAAttention
from vllm.model_executor.layers.fused_moe.activation import MoEActivation
from vllm.model_executor.layers.fused_moe.routed_experts import RoutedExperts
from vllm.model_executor.layers.fused_moe.unquantized_fused_moe_method import UnquantizedFusedMoEMethod
from vllm.model_executor.layers.linear import (
    ColumnParallelLinear,
    LinearBase,
    MergedColumnParallelLinear,
    QKVParallelLinear,
    ReplicatedLinear,
    RowParallelLinear,
    UnquantizedLinearMethod,
)
from vllm.model_executor.layers.vocab_parallel_embedding import (
    ParallelLMHead,
    UnquantizedEmbeddingMethod,
    VocabParallelEmbedding,
)

from openrlhf_mtp.config.families import FUSED
from openrlhf_mtp.config.machine.precision import dtype_name
from openrlhf_mtp.sync.convolution import PLAIN, is_packed
from openrlhf_mtp.sync.manifest import Manifest, TensorSpec


@dataclass(frozen=True)
class Slice:
    """One checkpoint tensor inside one layer of this worker.

    Attributes:
        spec: the full tensor.
        start, stop: its rows in the layer's local tensor.
        row_offset: place of row `start` in the full tensor.
        copies: how many of the engine's workers hold each element (1 when sharded, all of them when replicated).
    """

    spec: TensorSpec
    start: int
    stop: int
    row_offset: int
    copies: int


@dataclass(frozen=True)
class LoadedLayer:
    """One tensor of a layer, with the checkpoint tensors in it.

    Attributes:
        path: of the module in the model.
        module: the layer.
        kind: "linear" is used through a matrix product and "convolution" through a kernel; "table" and "vector" are
            read directly from the parameter; "absorbed" are the factors that latent attention takes a projection apart
            into; "packed" is not read back but tried (`sync.trial`).
        attribute: name of the parameter.
        slices: the checkpoint tensors, in the order of their rows.
        column_offset, width: the layer holds columns [column_offset, column_offset + width) of the full tensors.
    """

    path: str
    module: nn.Module
    kind: Literal["linear", "convolution", "table", "vector", "absorbed", "packed"]
    attribute: str
    slices: tuple[Slice, ...]
    column_offset: int = 0
    width: int = 1


ROUTER_BIAS = "e_score_correction_bias"
"""Added to a router's scores to choose experts; DeepSeek-V3's is a parameter of the router's linear layer."""

Names = tuple[tuple[str, str], ...]
"""What to replace in a module's path for a checkpoint's name (`config.native_layouts.engine_names`)."""


def loaded_layers(
    model: nn.Module, workers: int, shared_with: nn.Module | None = None, names: Names = ()
) -> list[LoadedLayer]:
    """Everything this worker holds of a model, in module order; a tied output head under the embedding's name.

    Args:
        model: vLLM's, the target or the draft.
        workers: tensor-parallel size of the engine.
        shared_with: modules that also belong to this model are left out (a draft shares embedding and output head
            with its target).
        names: what differs between this model's paths and a checkpoint's names.

    Raises:
        ValueError: lists every layer whose weights can neither be read back exactly nor tried (quantized ones).
    """
    foreign = set() if shared_with is None else {id(module) for module in shared_with.modules()}
    layers: list[LoadedLayer] = []
    problems: list[str] = []
    for path, module in model.named_modules():
        if id(module) in foreign:
            continue
        try:
            layers.extend(_tensors_of(path, module, model, workers))
        except ValueError as error:
            problems.append(str(error))
    if problems:
        raise ValueError("the engine holds weights that cannot be synced:\n  " + "\n  ".join(problems))
    return [_renamed(layer, names) for layer in layers]


def packed_layers(model: nn.Module, workers: int, names: Names = ()) -> list[LoadedLayer]:
    """Those of kind "packed", also while the model is being loaded again."""
    return [
        _renamed(_experts(path, module, workers), names)
        for path, module in model.named_modules()
        if isinstance(module, RoutedExperts)
    ]


def _renamed(layer: LoadedLayer, names: Names) -> LoadedLayer:
    """The same layer with its tensors under a checkpoint's names."""
    for in_engine, in_checkpoint in names:
        slices = (
            replace(held, spec=replace(held.spec, name=held.spec.name.replace(in_engine, in_checkpoint)))
            for held in layer.slices
        )
        layer = replace(layer, slices=tuple(slices))
    return layer


def manifest_of(layers: list[LoadedLayer]) -> Manifest:
    """The checkpoint tensors of loaded layers; one that several use (tied embeddings) is listed once."""
    specs = {held.spec.name: held.spec for layer in layers for held in layer.slices}
    return Manifest(tuple(specs.values()))


def tied_output_heads(model: nn.Module) -> Iterator[tuple[ParallelLMHead, str]]:
    """Output heads that share their parameter with an embedding, with the embedding's path."""
    tables = {
        id(module.weight): path
        for path, module in model.named_modules()
        if isinstance(module, VocabParallelEmbedding) and not isinstance(module, ParallelLMHead)
    }
    for module in model.modules():
        if isinstance(module, ParallelLMHead) and id(module.weight) in tables:
            yield module, tables[id(module.weight)]


def _tensors_of(path: str, module: nn.Module, model: nn.Module, workers: int) -> Iterator[LoadedLayer]:
    if isinstance(module, LinearBase) and path.endswith(".conv1d"):
        yield from _convolution(path, module, workers)
    elif isinstance(module, LinearBase):
        yield from _linear(path, module, workers)
    elif isinstance(module, VocabParallelEmbedding):
        yield _vocabulary(path, module, model, workers)
    elif isinstance(module, MLAAttention):
        yield _absorbed(path, module, model, workers)
    elif isinstance(module, RoutedExperts):
        yield _experts(path, module, workers)  # its router's bias is the router's too, and read back there
    else:
        for name, parameter in module.named_parameters(recurse=False):
            full = f"{path}.{name}"
            # torch's own linear layer multiplies by the parameter itself
            is_plain = isinstance(module, nn.Linear) and name == "weight"
            if parameter.dim() != 1 and not is_plain:
                raise ValueError(
                    f"{full}: {type(module).__name__} with shape {list(parameter.shape)} is not supported"
                )
            spec = TensorSpec(full, tuple(parameter.shape), dtype_name(parameter.dtype))
            rows = (Slice(spec, 0, len(parameter), 0, workers),)
            if is_plain:
                yield LoadedLayer(path, module, "table", name, rows, 0, parameter.shape[1])
            else:
                yield LoadedLayer(path, module, "vector", name, rows)


def _linear(path: str, layer: LinearBase, workers: int) -> Iterator[LoadedLayer]:
    if not isinstance(layer.quant_method, UnquantizedLinearMethod):
        raise ValueError(
            f"{path}: quantized with {type(layer.quant_method).__name__}; use an unquantized engine"
        )
    dtype = dtype_name(layer.params_dtype)
    sharded_input = isinstance(layer, RowParallelLinear) and layer.tp_size > 1
    width = layer.input_size_per_partition if isinstance(layer, RowParallelLinear) else layer.input_size
    slices, bias_slices, start = [], [], 0
    for name, full_rows, rows, shard, copies in _rows(path, layer, workers):
        weight = TensorSpec(f"{name}.weight", (full_rows, layer.input_size), dtype)
        slices.append(Slice(weight, start, start + rows, shard * rows, 1 if sharded_input else copies))
        bias = TensorSpec(f"{name}.bias", (full_rows,), dtype)
        bias_slices.append(Slice(bias, start, start + rows, shard * rows, copies))
        start += rows
    offset = layer.tp_rank * width if sharded_input else 0
    yield LoadedLayer(path, layer, "linear", "weight", tuple(slices), offset, width)
    if layer.bias is not None:
        yield LoadedLayer(path, layer, "vector", "bias", tuple(bias_slices))
    of_router = getattr(layer, ROUTER_BIAS, None)
    if of_router is not None:
        spec = TensorSpec(f"{path}.{ROUTER_BIAS}", tuple(of_router.shape), dtype_name(of_router.dtype))
        whole = (Slice(spec, 0, len(of_router), 0, workers),)
        yield LoadedLayer(path, layer, "vector", ROUTER_BIAS, whole)


def _convolution(path: str, layer: LinearBase, workers: int) -> Iterator[LoadedLayer]:
    """Linear attention's convolution [C, 1, W], which vLLM holds in a linear layer."""
    if workers > 1:
        raise ValueError(f"{path}: convolutions of engines with several workers are not supported")
    channels, width = layer.output_size, layer.input_size
    spec = TensorSpec(f"{path}.weight", (channels, 1, width), dtype_name(layer.params_dtype))
    whole = (Slice(spec, 0, channels, 0, 1),)
    if is_packed(layer):
        yield LoadedLayer(path, layer, "convolution", "weight", whole, 0, width)
        yield LoadedLayer(path, layer, "table", PLAIN, whole, 0, width)
    else:
        yield LoadedLayer(path, layer, "table", "weight", whole, 0, width)


def _absorbed(path: str, layer: MLAAttention, model: nn.Module, workers: int) -> LoadedLayer:
    """The projection of latent keys and values [heads (P + V), rank], which a decoding step has multiplied into queries
    and outputs: it computes with copies that loading makes of it."""
    if workers > 1:
        raise ValueError(f"{path}: latent attention in engines with several workers is not supported")
    name = next(name for name, module in model.named_modules() if module is layer.kv_b_proj)
    rows = layer.num_heads * (layer.qk_nope_head_dim + layer.v_head_dim)
    spec = TensorSpec(f"{name}.weight", (rows, layer.kv_lora_rank), dtype_name(layer.kv_b_proj.params_dtype))
    return LoadedLayer(path, layer, "absorbed", "W_UV", (Slice(spec, 0, rows, 0, 1),), 0, layer.kv_lora_rank)


def _rows(path: str, layer: LinearBase, workers: int) -> Iterator[tuple[str, int, int, int, int]]:
    """(checkpoint name, full rows, local rows, which shard, copies) of each tensor in a layer, in row order."""
    parent, _, leaf = path.rpartition(".")
    if leaf in OF_STATES:
        yield from _projections_of_states(path, layer, workers)
        return
    if isinstance(layer, QKVParallelLinear | MergedColumnParallelLinear):
        if leaf not in FUSED:
            raise ValueError(f"{path}: unknown fused layer; known: {', '.join(FUSED)}")
        names = [f"{parent}.{name}" for name in FUSED[leaf]]
    else:
        names = [path]
    tp, rank, spread = layer.tp_size, layer.tp_rank, workers // layer.tp_size
    if isinstance(layer, QKVParallelLinear):
        replicas = layer.num_kv_head_replicas
        q, k, v = names
        query = layer.num_heads * layer.head_size
        key, value = layer.num_kv_heads * layer.head_size, layer.num_kv_heads * layer.v_head_size
        yield q, query * tp, query, rank, spread
        yield k, key * tp // replicas, key, rank // replicas, spread * replicas
        yield v, value * tp // replicas, value, rank // replicas, spread * replicas
    elif isinstance(layer, MergedColumnParallelLinear):
        for name, size in zip(names, layer.output_sizes, strict=True):
            yield name, size, size // tp, rank, spread
    elif isinstance(layer, ColumnParallelLinear):
        yield path, layer.output_size, layer.output_size // tp, rank, spread
    elif isinstance(layer, RowParallelLinear | ReplicatedLinear):
        yield path, layer.output_size, layer.output_size, 0, workers
    else:
        raise ValueError(f"{path}: linear layer of type {type(layer).__name__} is not supported")


OF_STATES: dict[str, tuple[tuple[str, int], ...]] = {
    "in_proj_qkvz": (("in_proj_qkv", 3), ("in_proj_z", 1)),
    "in_proj_ba": (("in_proj_b", 1), ("in_proj_a", 1)),
}
"""Linear attention's projections: Qwen3.5's tensors in the order of the rows, and how many of vLLM's parts each has."""


def _projections_of_states(
    path: str, layer: LinearBase, workers: int
) -> Iterator[tuple[str, int, int, int, int]]:
    """Rows as `_rows` gives them. Qwen3-Next keeps one tensor of each kind under vLLM's own name."""
    if workers > 1:
        raise ValueError(f"{path}: linear attention in engines with several workers is not supported")
    assert isinstance(layer, MergedColumnParallelLinear), "vLLM fuses these"
    parent, _, leaf = path.rpartition(".")
    parts = OF_STATES[leaf] if len(layer.output_sizes) > 1 else ((leaf, 1),)
    sizes = iter(layer.output_sizes)
    for name, count in parts:
        rows = sum(next(sizes) for _ in range(count))
        yield f"{parent}.{name}", rows, rows, 0, 1


def _vocabulary(path: str, layer: VocabParallelEmbedding, model: nn.Module, workers: int) -> LoadedLayer:
    if not isinstance(layer.quant_method, UnquantizedEmbeddingMethod):
        raise ValueError(
            f"{path}: quantized with {type(layer.quant_method).__name__}; use an unquantized engine"
        )
    if layer.num_added_embeddings or getattr(layer, "bias", None) is not None:
        raise ValueError(f"{path}: added vocabulary and biased output heads are not supported")
    is_head = isinstance(layer, ParallelLMHead)
    tied: dict[nn.Module, str] = dict(tied_output_heads(model)) if is_head else {}
    spec = TensorSpec(
        f"{tied.get(layer, path)}.weight",
        (layer.org_vocab_size, layer.embedding_dim),
        dtype_name(layer.params_dtype),
    )
    indices = layer.shard_indices
    rows = Slice(spec, 0, indices.num_org_elements, indices.org_vocab_start_index, workers // layer.tp_size)
    return LoadedLayer(
        path, layer, "linear" if is_head else "table", "weight", (rows,), 0, layer.embedding_dim
    )


def _experts(path: str, layer: RoutedExperts, workers: int) -> LoadedLayer:
    """The experts of a layer, under the names of transformers' stacked tensors."""
    config = layer.moe_config
    unknown = {
        f"quantized with {type(layer.quant_method).__name__}": not isinstance(
            layer.quant_method, UnquantizedFusedMoEMethod
        ),
        "experts spread over workers": config.use_ep or config.is_sequence_parallel,
        "copies of experts": config.num_experts != config.num_logical_experts,
        "biases": config.has_bias,
        f"activation {config.activation.value}": config.activation is not MoEActivation.SILU,
        "scaled router weights": layer.routed_scaling_factor != 1.0 or layer.apply_router_weight_on_input,
    }
    if any(unknown.values()):
        what = ", ".join(name for name, there in unknown.items() if there)
        raise ValueError(f"{path}: experts with {what} are not supported")
    parent, dtype = path.removesuffix(".routed_experts"), dtype_name(layer.params_dtype)
    experts, hidden, width = config.num_experts, config.hidden_dim, config.intermediate_size
    specs = (
        TensorSpec(f"{parent}.gate_up_proj", (experts, 2 * width, hidden), dtype),
        TensorSpec(f"{parent}.down_proj", (experts, hidden, width), dtype),
    )
    whole = tuple(Slice(spec, 0, 0, 0, workers) for spec in specs)
    return LoadedLayer(path, layer, "packed", "w13_weight", whole)
