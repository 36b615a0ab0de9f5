"""The regime of head training during RL, and what it needs."""

from collections.abc import Iterator

from openrlhf_mtp.config.job_context import JobContext
from openrlhf_mtp.config.problem import Problem, error, warn, warning
from openrlhf_mtp.config.settings.regime import AdvantageSettings, CoefficientSettings


def joint(context: JobContext) -> Iterator[Problem]:
    """The joint regimes send a gradient through the head into the policy; OCC scales it by how the policy moved."""
    if context.mtp is None or not context.mtp.is_joint:
        return
    if context.mtp.regime == "joint_ce" and context.mtp.coefficient.kind == "occ":
        yield error(
            "mtp.coefficient.kind",
            "occ",
            "fixed with joint_ce: OCC weighs the policy loss on the head's log-probs",
            "set mtp.regime joint_policy, or mtp.coefficient.kind fixed",
        )
    yield from _other_kind(context.mtp.coefficient)
    by_sequence = (
        context.text("actor.policy_loss_type") == "gspo"
        or context.text("actor.loss_agg_mode") != "token-mean"
    )
    if context.mtp.regime == "joint_policy" and by_sequence and context.mtp.anchor_fraction < 1.0:
        yield warning(
            "mtp.anchor_fraction",
            context.mtp.anchor_fraction,
            "1.0 where the policy's loss is a mean over sequences: a short response of which no anchor is chosen adds "
            "nothing to the joint term and is counted all the same",
            "set mtp.anchor_fraction 1.0, or a token mean",
        )
    if context.mtp.regime == "joint_policy" and context.job.value("actor.dual_clip") is None:
        yield warning(
            "actor.dual_clip",
            None,
            "about 3 with mtp.regime joint_policy: a bad token that the head expects and the old policy hardly did has "
            "a ratio that nothing else bounds, and a few such tokens can outweigh all others",
            "set actor.dual_clip 3.0",
        )
    if context.mtp.coefficient.kind == "occ":
        yield from _occ_moves(context)


OF_KIND = {"fixed": ("value",), "occ": ("scale", "occ_variant", "smoothing", "bounds")}


def _other_kind(given: CoefficientSettings) -> Iterator[Problem]:
    """Settings of the kind that was not chosen: a comparison of the two would silently compare one with itself."""
    default = CoefficientSettings()
    (other,) = OF_KIND.keys() - {given.kind}
    for name in OF_KIND[other]:
        value = getattr(given, name)
        if value != getattr(default, name):
            yield error(
                f"mtp.coefficient.{name}",
                value,
                f"its default with kind {given.kind}: only kind {other} reads it",
                f"set mtp.coefficient.kind {other}, or drop mtp.coefficient.{name}",
            )


def _occ_moves(context: JobContext) -> Iterator[Problem]:
    steps = (
        context.samples_per_step
        // max(1, context.number("train.batch_size"))
        * context.number("train.max_epochs")
    )
    if steps == 1:
        smaller = next(
            (n for n in range(context.samples_per_step // 2, 0, -1) if context.samples_per_step % n == 0), 1
        )
        yield error(
            "mtp.coefficient.kind",
            "occ",
            "fixed with one optimizer step for each rollout batch: on the first step the policy still is the one that "
            "generated, log pi - log pi_old is 0, and so is OCC's coefficient, forever",
            f"lower train.batch_size to {smaller} or another divisor of {context.samples_per_step}, or raise "
            "train.max_epochs",
        )


def unused(context: JobContext) -> Iterator[Problem]:
    """Settings of a regime that is not on."""
    if context.mtp is None:
        return
    if not context.mtp.is_joint and context.mtp.coefficient != CoefficientSettings():
        yield warn(
            "mtp.coefficient",
            f"this has no effect with mtp.regime {context.mtp.regime}, in which no MTP loss reaches the policy; set "
            "mtp.regime joint_policy, or drop mtp.coefficient",
        )
    if context.mtp.regime == "frozen" and context.mtp.advantage != AdvantageSettings():
        yield warn(
            "mtp.advantage",
            "this has no effect with mtp.regime frozen, which does not train the head; set mtp.regime detach, or drop "
            "mtp.advantage",
        )
