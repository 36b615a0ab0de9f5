"""Memory that a trainer rank needs of its GPU: its states, and the logits of one micro-batch, from sizes alone.

Logits are estimated at their worst, every sequence `data.max_len` long. Activations are not counted: with gradient
checkpointing they are small beside the logits, and without it nothing here can know them.
"""

from dataclasses import dataclass

from openrlhf_mtp.config.job_context import JobContext
from openrlhf_mtp.config.machine.precision import DTYPE_BYTES
from openrlhf_mtp.config.model_files import ModelShape

GIB = 1 << 30

ADAM_BYTES = 12
"""AdamW's float32 copy and two moments of a parameter."""

FORWARD_LOGIT_BYTES = 6
"""Of one logit: 16 bits from the model and the float32 copy that OpenRLHF makes (`Actor.forward`)."""
TRAINING_LOGIT_BYTES = 10
"""The same and the float32 gradient."""


@dataclass(frozen=True)
class TrainerMemory:
    """Bytes on the GPU of one rank of the actor.

    Attributes:
        states: weights, gradients and optimizer of the policy and its head, as ZeRO leaves them on a rank.
        training: logits of a training micro-batch.
        experience: logits of a forward pass over finished rollouts.
    """

    states: int
    training: int
    experience: int

    @property
    def peak(self) -> int:
        """The most at once."""
        return self.states + max(self.training, self.experience)


def trainer_memory(context: JobContext) -> TrainerMemory | None:
    """The estimate; None when the model's sizes are not known."""
    if context.shape is None:
        return None
    vocab = context.shape.vocab_size
    return TrainerMemory(
        states=_policy_states(context, context.shape) + _head_states(context, context.shape),
        training=_tokens(context, "train") * vocab * TRAINING_LOGIT_BYTES,
        experience=_tokens(context, "rollout") * vocab * FORWARD_LOGIT_BYTES,
    )


def engine_share(context: JobContext) -> float:
    """Share of a trainer's GPU that an engine keeps while the trainer works."""
    shares = context.colocates_engines and not context.on("vllm.enable_sleep")
    return context.real("vllm.gpu_memory_utilization") if shares else 0.0


def _policy_states(context: JobContext, shape: ModelShape) -> int:
    parameters, stage, ranks = shape.policy_parameters(), context.zero_stage, context.ranks("actor")
    if context.lora_rank:  # the adapters themselves are small
        return DTYPE_BYTES[context.precision.dtype] * parameters // (ranks if stage == 3 else 1)
    return _on_a_rank(context, stage, parameters, 0 if context.on("ds.adam_offload") else ADAM_BYTES)


def _head_states(context: JobContext, shape: ModelShape) -> int:
    """The head has a ZeRO engine of its own, of stage 2 at most."""
    if context.mtp is None or context.mtp.regime == "frozen":
        return 0
    stage = min(2, context.zero_stage)
    return _on_a_rank(context, stage, shape.head_parameters(context.mtp.num_blocks), ADAM_BYTES)


def _on_a_rank(context: JobContext, stage: int, parameters: int, optimizer: int) -> int:
    """ZeRO-1 splits the optimizer over the ranks, ZeRO-2 the gradients too, ZeRO-3 the weights too."""
    each = DTYPE_BYTES[context.precision.dtype]  # of a weight, and of a gradient
    whole = each * (stage < 3) + each * (stage < 2) + optimizer * (stage < 1)
    split = 2 * each + optimizer - whole
    return parameters * whole + parameters * split // context.ranks("actor")


def _tokens(context: JobContext, phase: str) -> int:
    """Most tokens in one forward pass of a rank in `train` or `rollout` (making experience)."""
    longest = context.max_len
    tokens = context.number(f"{phase}.micro_batch_size") * longest
    if context.dynamic_batches:
        limit = context.job.value(f"{phase}.max_tokens_per_gpu")
        budget = limit if isinstance(limit, int) else context.number("train.max_tokens_per_gpu")
        return max(budget, -(-longest // context.number("ds.ring_attn_size")))
    return -(-tokens // context.number("ds.ring_attn_size"))
