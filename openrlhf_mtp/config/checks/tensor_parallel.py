"""Tensor-parallel engines: what their workers can share evenly. vLLM refuses the rest after minutes of start-up."""

from collections.abc import Iterator

from openrlhf_mtp.config.job_context import JobContext
from openrlhf_mtp.config.model_files import ModelShape
from openrlhf_mtp.config.problem import Problem, error


def even_shards(context: JobContext) -> Iterator[Problem]:
    """Each worker holds as many attention heads and as much of the MLP as any other. Key-value heads may be copied."""
    workers = context.number("vllm.tensor_parallel_size")
    if context.shape is None or is_even(context.shape, workers):
        return
    shape = context.shape
    fits = ", ".join(str(n) for n in range(1, shape.num_heads + 1) if is_even(shape, n))
    yield error(
        "vllm.tensor_parallel_size",
        workers,
        f"one of {fits}, which share the model's {shape.num_heads} attention heads, {shape.num_kv_heads} key-value "
        f"heads and MLP width {shape.intermediate_size} evenly",
        "set one of them, and vllm.num_engines to the engines that the GPUs for rollouts then make",
    )


def is_even(shape: ModelShape, workers: int) -> bool:
    """Whether vLLM can split a model over so many workers (`QKVParallelLinear`, `MergedColumnParallelLinear`)."""
    fewer, more = sorted((workers, shape.num_kv_heads))
    split = (shape.num_heads, shape.intermediate_size, *([shape.expert_size] if shape.experts else []))
    return more % fewer == 0 and all(size % workers == 0 for size in split)
