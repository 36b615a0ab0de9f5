"""Memory that a worker of a rollout engine needs: weights of policy and head, a pass, the sampler, the cache."""

from dataclasses import dataclass

from openrlhf_mtp.config.engine_limits import sequences_on_gpu, tokens_on_gpu
from openrlhf_mtp.config.job_context import JobContext
from openrlhf_mtp.config.machine.precision import DTYPE_BYTES
from openrlhf_mtp.config.model_files import ModelShape
from openrlhf_mtp.config.sampler_memory import sampler_bytes
from openrlhf_mtp.config.settings.mtp import MTPSettings

GIB = 1 << 30

PROCESS = {True: 3 << 29, False: 5 << 28}
"""With CUDA: its context, libraries, communicators and CUDA graphs. Without: the libraries' code and data, and
what vLLM allocates beside the rest; from two measured engines (docs/measured.md)."""


@dataclass(frozen=True)
class EngineMemory:
    """Bytes on one worker of an engine.

    Attributes:
        process: there before the first tensor.
        weights: of policy and head.
        forward: one forward pass of as many tokens as a step may have.
        sampler: of a step of as many sequences as may decode at once.
        token: key-value cache of one token, the head's layers included.
        cache: key-value cache in all; None where vLLM takes what is left of the GPU.
    """

    process: int
    weights: int
    forward: int
    sampler: int
    token: int
    cache: int | None

    @property
    def fixed(self) -> int:
        """All but the cache."""
        return self.process + self.weights + self.forward + self.sampler

    def cache_of(self, total: float) -> float:
        """The cache that is left of the bytes an engine may have; negative if they do not suffice."""
        return total - self.fixed


def engine_memory(context: JobContext) -> EngineMemory | None:
    """The estimate; None when the model's sizes are not known."""
    shape = context.shape
    if shape is None:
        return None
    mtp = context.mtp or MTPSettings()
    drafts = context.mtp is not None and mtp.rollout.speculate
    depths = mtp.depths if drafts else 0
    sequences = sequences_on_gpu(mtp.rollout.max_num_seqs)
    tokens = tokens_on_gpu(mtp.rollout.max_num_batched_tokens, sequences, 1 + depths)
    each = DTYPE_BYTES[context.rollout_dtype]
    workers = context.number("vllm.tensor_parallel_size")
    parameters = shape.policy_parameters() + (shape.head_parameters(mtp.num_blocks) if drafts else 0)
    gib = None if context.host.has_cuda else mtp.rollout.kv_cache_gib
    return EngineMemory(
        process=PROCESS[context.host.has_cuda],
        weights=parameters * each // workers,
        forward=_forward(shape, tokens, each, workers),
        sampler=sampler_bytes(sequences, depths, shape.vocab_size),
        token=_cache_of_a_token(shape, each, workers, shape.num_layers + (mtp.num_blocks if drafts else 0)),
        cache=None if gib is None else int(gib * GIB),
    )


def _forward(shape: ModelShape, tokens: int, each: int, workers: int) -> int:
    """The widest point of a layer: the MLP's two projections and their product, and the residual stream's copies."""
    return tokens * each * (3 * shape.intermediate_size // workers + 6 * shape.hidden_size)


def _cache_of_a_token(shape: ModelShape, each: int, workers: int, layers: int) -> int:
    """Keys and values; workers beyond the key-value heads hold copies."""
    heads = max(1, shape.num_kv_heads // workers)
    return 2 * heads * shape.head_dim * each * layers
