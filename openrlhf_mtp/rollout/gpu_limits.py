"""Sequences, tokens and CUDA graphs of an engine on a GPU, where the job leaves them open (`config.engine_limits`).

vLLM captures graphs of up to 512 tokens (1,024 on Blackwell), which with 3 drafts are 128 sequences: above, a decode
step runs without a graph.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from openrlhf_mtp.config.engine_limits import sequences_on_gpu, tokens_on_gpu

_GRAPHS = ("cudagraph_capture_sizes", "max_cudagraph_capture_size", "compilation_config")


def gpu_limits(arguments: Mapping[str, Any], *, graphs_up_to: int) -> dict[str, Any]:
    """Arguments of vLLM's engine that complete a job's own; none replaces one that is set.

    Args:
        arguments: the engine's, as the job and OpenRLHF set them.
        graphs_up_to: tokens of the largest CUDA graph that vLLM captures by itself on this GPU.
    """
    sequences = sequences_on_gpu(arguments.get("max_num_seqs"))
    speculative = arguments.get("speculative_config") or {}
    a_step = 1 + speculative.get("num_speculative_tokens", 0)
    tokens = tokens_on_gpu(arguments.get("max_num_batched_tokens"), sequences, a_step)
    limits: dict[str, Any] = {"max_num_seqs": sequences, "max_num_batched_tokens": tokens}
    has_graphs = not arguments.get("enforce_eager") and not any(name in arguments for name in _GRAPHS)
    if has_graphs and min(sequences * a_step, tokens) > graphs_up_to:
        limits["cudagraph_capture_sizes"] = capture_sizes(sequences, a_step, tokens, graphs_up_to)
    return limits


def capture_sizes(sequences: int, a_step: int, tokens: int, graphs_up_to: int) -> list[int]:
    """vLLM's own sizes, and every decode step of more tokens, in steps of sequences as wide as vLLM's.

    A step of decoding has `a_step` tokens a sequence, and its graph is used only for a multiple of that.
    """
    own = {1, 2, 4, *range(8, min(256, graphs_up_to + 1), 8), *range(256, graphs_up_to + 1, 16)}
    counts = {1, 2, 4, *range(8, min(256, sequences + 1), 8), *range(256, sequences + 1, 16), sequences}
    return sorted(size for size in own | {count * a_step for count in counts} if size <= tokens)
