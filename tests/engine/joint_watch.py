"""Watch a run's joint term: every backward that OpenRLHF asks for is compared with `joint_reference` before it runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

from tests.engine.joint_reference import is_inside, joint_term, occ_terms


@dataclass
class Seen:
    """One micro-batch's term, as it was back-propagated and as the formula has it.

    Attributes:
        term, reference: values.
        gradient_gap: largest difference of the gradients for hidden states, embedding and output head.
        gradient_size: largest entry of each of the reference's.
        coefficient: by depth.
        occ: what this micro-batch adds to sum(delta_RL delta_MTP), sum(delta_MTP^2) and to the tokens, each by depth.
        released: what it adds to the public code's sum of ratios and to its positions.
    """

    term: float
    reference: float
    gradient_gap: float
    gradient_size: list[float]
    coefficient: list[float]
    occ: list[list[float]]
    released: list[float]


@dataclass
class Outcome:
    """What a case did: micro-batch by micro-batch, tokens kept and dropped by importance sampling, metrics."""

    seen: list[Seen] = field(default_factory=list)
    corrected: tuple[int, int] = (0, 0)
    status: list[dict[str, float]] = field(default_factory=list)


@dataclass
class MicroBatch:
    """What the newest micro-batch's term was made of, and the term.

    Attributes:
        info: OpenRLHF's normalizers, with the optimizer step's micro-batches.
        experience, seen, tokens: OpenRLHF's micro-batch, the policy's forward pass on it, its action tokens.
        anchors: where the head's chain ran.
        matrices: views of embedding and output head.
        coefficient: by depth.
        term: what was added to the loss; None adds nothing.
        plain: the loss without it.
    """

    info: Any = None
    experience: Any = None
    seen: Any = None
    tokens: Any = None
    anchors: Any = None
    matrices: Any = None
    coefficient: Any = None
    term: Any = None
    plain: Any = None

    @property
    def entries(self) -> tuple[Any, Any, Any]:
        """Where the term enters the policy: hidden states, embedding, output head."""
        embedding, output_head = self.matrices
        return self.seen.attached_hidden, embedding, output_head


def compare(args: Any, joint: Any, micro: MicroBatch, loss: Any, outcome: Outcome) -> None:
    """Add what a micro-batch's term is and should be to the outcome."""
    import torch

    reference, values, mask = joint_term(args, joint.mtp, joint.head_trainer.head, micro)
    inside = is_inside(args, micro.tokens.old_log_probs, micro.tokens.rollout_log_probs)
    kept, dropped = outcome.corrected
    outcome.corrected = (kept + int((mask[0] & inside).sum()), dropped + int((mask[0] & ~inside).sum()))
    term = micro.term if micro.term is not None else reference * 0.0
    added = float((loss - micro.plain).detach())
    # adapters leave embedding and output head as they are: the hidden states alone lead to them
    trained = [entry for entry in micro.entries if entry.requires_grad]
    assert len(trained) == (1 if args.ds.lora.rank else 3)
    got = torch.autograd.grad(term, trained, retain_graph=True)
    wanted = torch.autograd.grad(reference, trained, retain_graph=True)
    gap = max(float((g - w).abs().max()) for g, w in zip(got, wanted, strict=True))
    size = [float(w.abs().max()) for w in wanted]
    scored = micro.tokens.log_probs, micro.tokens.old_log_probs, values.detach(), mask
    terms = occ_terms(*scored, micro.experience.action_mask)
    outcome.seen.append(Seen(added, float(reference), gap, size, micro.coefficient, *terms))


@contextmanager
def watched(outcome: Outcome) -> Iterator[None]:
    """Compare every micro-batch's term with the formula, just before its backward."""
    from openrlhf.utils.deepspeed import DeepspeedStrategy

    from openrlhf_mtp.training.joint.term import JointTerm, action_tokens
    from openrlhf_mtp.training.policy_trainer import PolicyTrainer
    from openrlhf_mtp.training.step_inputs import Undecided
    from openrlhf_mtp.training.trunk import Trunk
    from openrlhf_mtp.upstream.openrlhf.extra_loss import added_to_backward

    backward, weights, step_info = DeepspeedStrategy.backward, Trunk.weights, PolicyTrainer._step_info
    make, weigh = JointTerm.term, JointTerm._weighted
    micro, joints = MicroBatch(), []

    @contextmanager
    def aliased(trunk: Trunk, *, sharded: bool) -> Iterator[Any]:
        """Views of the two matrices: a gradient asked for at a view stops there, before DeepSpeed's hooks."""
        with weights(trunk, sharded=sharded) as matrices:
            micro.matrices = tuple(matrix.view_as(matrix) for matrix in matrices)
            yield micro.matrices

    def making(joint: JointTerm, experience: Any, seen: Any, output: Any, inputs: Any) -> Any:
        joints[:] = [joint]
        micro.experience, micro.seen, micro.anchors = experience, seen, output.anchors
        micro.tokens = action_tokens(experience, seen.log_probs)
        undecided = isinstance(inputs.coefficient, Undecided)
        micro.coefficient = None if undecided else inputs.coefficient.values.tolist()
        micro.term = make(joint, experience, seen, output, inputs)
        return micro.term

    def weighing(joint: JointTerm, coefficient: Any, *args: Any) -> Any:
        micro.coefficient = coefficient.values.tolist()
        return weigh(joint, coefficient, *args)

    def comparing(strategy: Any, loss: Any, *args: Any, **kwargs: Any) -> None:
        compare(strategy.args, joints[0], micro, loss, outcome)
        backward(strategy, loss, *args, **kwargs)

    @contextmanager
    def remembering(strategy: Any, term: Any) -> Iterator[None]:
        with added_to_backward(strategy, term):
            inner = strategy.backward

            def outer(loss: Any, *args: Any, **kwargs: Any) -> None:
                micro.plain = loss
                inner(loss, *args, **kwargs)

            strategy.backward = outer
            yield

    def informing(trainer: PolicyTrainer, *args: Any) -> Any:
        micro.info = step_info(trainer, *args)
        return micro.info

    with (
        mock.patch.object(DeepspeedStrategy, "backward", comparing),
        mock.patch.object(PolicyTrainer, "_step_info", informing),
        mock.patch.object(JointTerm, "term", making),
        mock.patch.object(JointTerm, "_weighted", weighing),
        mock.patch.object(Trunk, "weights", aliased),
        mock.patch("openrlhf_mtp.training.policy_trainer.added_to_backward", remembering),
    ):
        yield
