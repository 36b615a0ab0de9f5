"""Memory that a trainer rank needs: its states, and what one micro-batch adds at its worst moment.

Micro-batches are taken at their worst, every sequence `data.max_len` long. Fragmentation is not counted.
"""

from dataclasses import dataclass
from enum import StrEnum

from openrlhf_mtp.config.job_context import JobContext
from openrlhf_mtp.config.machine.precision import DTYPE_BYTES
from openrlhf_mtp.config.memory import layers
from openrlhf_mtp.config.model_files import ModelShape

MIB = 1 << 20

ADAM_BYTES = 12
"""AdamW's float32 copy and two moments of a parameter."""

UPDATE_BYTES = 4
"""The float32 gradient of a parameter, while the optimizer steps."""

CHUNK_LOGITS = 1 << 26
"""Logits of the head that exist at once (`losses.kernels.projection`)."""

LOGIT = 4
"""Bytes of a logit in float32, to which OpenRLHF casts them all (`Actor.forward`)."""

PROCESS = {True: 1 << 30, False: 1 << 30}
"""With CUDA: its context, libraries and communicators. Without: the libraries' code and data."""


class Moment(StrEnum):
    """A moment of an RL step, in the words of the plan."""

    HEAD = "the head's step"
    JOINT = "the joint term"
    BACKWARD = "the policy's backward"
    UPDATE = "the update"
    EXPERIENCE = "making experience"
    SYNC = "weight sync"


@dataclass(frozen=True)
class TrainerMemory:
    """Bytes on one rank of the actor.

    Attributes:
        process: there before the first tensor.
        states: weights, gradients and optimizer of the policy and its head, as ZeRO leaves them on a rank.
        update: while the optimizer steps.
        bucket: tensors on their way to the engines, on rank 0.
        activations: of the policy in a training micro-batch.
        logits: of a training micro-batch, after its forward pass.
        training: the same in its backward, with their gradients.
        experience: logits of a forward pass over finished rollouts.
        head: the head's chain and loss in a training micro-batch.
        joint: the joint term's chain, and its backward, which comes before the policy's.
        left: gradients of output head and embedding that the joint term leaves for the policy's backward.
    """

    process: int
    states: int
    update: int
    bucket: int
    activations: int
    logits: int
    training: int
    experience: int
    head: int
    joint: int = 0
    left: int = 0

    @property
    def moments(self) -> dict[Moment, int]:
        """Bytes on top of the states, by moment. The head's backward is over before the policy's begins."""
        return {
            Moment.HEAD: self.activations + self.logits + self.head,
            Moment.JOINT: self.activations + self.logits + self.joint + self.left,
            Moment.BACKWARD: self.activations + self.training + self.left,
            Moment.UPDATE: self.update,
            Moment.EXPERIENCE: self.experience,
            Moment.SYNC: self.bucket,
        }

    @property
    def worst(self) -> Moment:
        """The moment that needs most."""
        return max(self.moments, key=lambda moment: self.moments[moment])

    @property
    def peak(self) -> int:
        """The most at once."""
        return self.process + self.states + max(self.moments.values())


def trainer_memory(context: JobContext) -> TrainerMemory | None:
    """The estimate; None when the model's sizes are not known."""
    shape = context.shape
    if shape is None:
        return None
    vocab, each = shape.vocab_size, _each(context)
    in_16_bits = each if each < LOGIT else 0
    return TrainerMemory(
        process=PROCESS[context.host.has_cuda],
        states=_policy_states(context, shape) + _head_states(context, shape),
        update=UPDATE_BYTES * shape.policy_parameters() // context.ranks("actor"),
        bucket=(0 if context.mtp is None else context.mtp.sync.bucket_mib) * MIB,
        activations=_activations(context, shape),
        logits=_tokens(context, "train") * vocab * LOGIT,
        training=_tokens(context, "train") * vocab * (LOGIT + LOGIT * _gradients(context) + in_16_bits),
        experience=_tokens(context, "rollout") * vocab * (LOGIT + in_16_bits),
        head=_head(context, shape),
        joint=_joint(context, shape),
        left=_left(context, shape),
    )


def engine_share(context: JobContext) -> float:
    """Share of a trainer's GPU that an engine keeps while the trainer works."""
    shares = context.colocates_engines and not context.on("vllm.enable_sleep")
    return context.real("vllm.gpu_memory_utilization") if shares else 0.0


def _gradients(context: JobContext) -> int:
    """Gradients of the float32 logits that are there at once. flash-attention's log-probs need one; OpenRLHF's own
    (`log_probs_from_logits`) gather the tokens' logits and sum all of them, and both leave a gradient of their own."""
    return 1 if context.host.has_cuda else 3


def _each(context: JobContext) -> int:
    return DTYPE_BYTES[context.precision.dtype]


def _activations(context: JobContext, shape: ModelShape) -> int:
    """The policy's, of a training micro-batch: with checkpointing the layers' inputs and one layer."""
    each, tokens = _each(context), _tokens(context, "train")
    copies_keys = "flash" not in (context.text("ds.attn_implementation") or "")
    layer = layers.layer(shape, each, copies_keys=copies_keys)
    if context.on("actor.gradient_checkpointing_enable"):
        return tokens * (shape.num_layers * shape.hidden_size * each + layer)
    return tokens * shape.num_layers * layer


def _anchors(context: JobContext) -> int:
    assert context.mtp is not None
    return int(_tokens(context, "train") * context.mtp.anchor_fraction)


def _chain(context: JobContext, shape: ModelShape, *, constant: bool = False) -> tuple[int, int, int]:
    """A chain in a training micro-batch: what it keeps, what its backward computes again, its states at all depths."""
    mtp, each, anchors = context.mtp, _each(context), _anchors(context)
    assert mtp is not None
    kept, again = layers.chain(
        shape, each, tokens=anchors, depths=mtp.depths, blocks=mtp.num_blocks, constant=constant
    )
    return kept, again, mtp.depths * anchors * shape.hidden_size * each


def _head(context: JobContext, shape: ModelShape) -> int:
    """The head's chain and loss; nothing of them is kept for a frozen head. The loss has a gradient beside the states,
    and a chunk of logits with the policy's, which is gone before the chain's backward."""
    mtp, each = context.mtp, _each(context)
    if mtp is None or mtp.regime == "frozen":
        return 0
    kept, again, states = _chain(context, shape)
    rows = min(CHUNK_LOGITS // shape.vocab_size, mtp.depths * _anchors(context))
    return kept + 2 * states + max(again, rows * shape.vocab_size * each * 4 // 3)


def _joint(context: JobContext, shape: ModelShape) -> int:
    """The joint term's chain through a constant head: its states on the grid, those that count and their gradient; a
    chunk of logits (`log_prob_bytes`); under ZeRO-3 the output head, whole until then."""
    mtp, each = context.mtp, _each(context)
    if mtp is None or not mtp.is_joint:
        return 0
    kept, again, states = _chain(context, shape, constant=True)
    rows = min(CHUNK_LOGITS // shape.vocab_size, mtp.depths * _anchors(context))
    whole = shape.vocab_size * shape.hidden_size * each if context.zero_stage == 3 else 0
    return kept + 3 * states + max(again, rows * shape.vocab_size * log_prob_bytes(each)) + whole


def log_prob_bytes(each: int) -> int:
    """Bytes of a logit while `losses.kernels.token_log_probs` makes log-probs of a chunk: both of them in float32, and
    the logit in the policy's dtype unless that is float32 itself."""
    return 2 * LOGIT + (each if each < LOGIT else 0)


def _left(context: JobContext, shape: ModelShape) -> int:
    """Autograd keeps them until the policy's own gradients of the two matrices are there; adapters leave both alone."""
    if context.mtp is None or not context.mtp.is_joint or context.lora_rank:
        return 0
    return shape.vocab_size * shape.hidden_size * _each(context) * (1 if shape.tied else 2)


def _policy_states(context: JobContext, shape: ModelShape) -> int:
    parameters, stage, ranks = shape.policy_parameters(), context.zero_stage, context.ranks("actor")
    if context.lora_rank:  # the adapters themselves are small
        return _each(context) * parameters // (ranks if stage == 3 else 1)
    return _on_a_rank(context, stage, parameters, 0 if context.on("ds.adam_offload") else ADAM_BYTES)


def _head_states(context: JobContext, shape: ModelShape) -> int:
    """The head has a ZeRO engine of its own, of stage 2 at most."""
    if context.mtp is None or context.mtp.regime == "frozen":
        return 0
    stage = min(2, context.zero_stage)
    return _on_a_rank(context, stage, shape.head_parameters(context.mtp.num_blocks), ADAM_BYTES)


def _on_a_rank(context: JobContext, stage: int, parameters: int, optimizer: int) -> int:
    """ZeRO-1 splits the optimizer over the ranks, ZeRO-2 the gradients too, ZeRO-3 the weights too."""
    each = _each(context)  # of a weight, and of a gradient
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
