"""Anything that would change the distribution rollouts are drawn from, or make drafts pointless."""

from collections.abc import Iterator

from openrlhf_mtp.config.checks.conflict import Conflict, error, warning
from openrlhf_mtp.config.mtp import MTPSettings
from openrlhf_mtp.config.situation import Situation


def distribution(s: Situation) -> Iterator[Conflict]:
    """The head is trained, and the log-probs are taken, on the whole distribution at the rollout's temperature."""
    top_p = s.real("rollout.top_p")
    if top_p != 1:
        expected = "1: the sampled distribution would not be the policy's, whose log-probs are trained on"
        level = error if s.mtp is not None else warning
        yield level("rollout.top_p", f"{top_p:g}", expected, "set 1")
    temperature = s.real("rollout.temperature")
    if s.mtp is not None and temperature <= 0:
        yield error(
            "rollout.temperature",
            f"{temperature:g}",
            "above 0: at 0 every response to a prompt is the same",
            "set 1",
        )


def drafts(s: Situation) -> Iterator[Conflict]:
    """Drafts must be verified exactly and drawn as the head was trained for."""
    if s.mtp is None:
        return
    rollout = s.mtp.rollout
    if rollout.rejection_sample_method == "synthetic":
        yield error(
            "mtp.rollout.rejection_sample_method",
            "synthetic",
            "standard or block: synthetic accepts by a fixed rate and changes what is sampled",
            "set standard",
        )
    if rollout.draft_sample_method == "greedy":
        yield _greedy(s.mtp)
    if not rollout.speculate and s.mtp.regime != "frozen":
        yield warning(
            "mtp.rollout.speculate",
            "false",
            "true: the head is trained and never used",
            "set true, or drop the mtp section for a baseline",
        )


def asynchronous(s: Situation) -> Iterator[Conflict]:
    """Partial rollout pauses an engine in the middle of responses; a verification would judge it there."""
    if s.mtp is None or not s.on("train.partial_rollout_enable"):
        return
    if s.mtp.sync.verify_every > 0:
        yield error(
            "train.partial_rollout_enable",
            "true",
            "false while mtp.sync.verify_every is above 0: a paused engine cannot be verified between two tokens",
            "set one of the two to false or 0",
        )


def _greedy(mtp: MTPSettings) -> Conflict:
    stages = [mtp.pretrain] if mtp.regime == "frozen" else [mtp.pretrain, mtp]
    overlap = sorted({stage.objective_text for stage in stages if stage.wants_sampled_drafts})
    setting = "mtp.rollout.draft_sample_method"
    if overlap:
        return error(
            setting,
            "greedy",
            f"probabilistic under {' and '.join(overlap)}: the head is trained to overlap the policy's distribution, "
            "which a greedy draft throws away",
            "set probabilistic, or train with ce or kl",
        )
    return warning(
        setting,
        "greedy",
        "probabilistic: a greedy draft is accepted at most with the policy's highest probability, so acceptance "
        "falls as entropy grows",
        "set probabilistic",
    )
