"""Anything that would change the distribution rollouts are drawn from, or make drafts pointless."""

from collections.abc import Iterator

from openrlhf_mtp.config.checks.problem import Problem, error, warning
from openrlhf_mtp.config.job_context import JobContext
from openrlhf_mtp.config.settings.mtp import MTPSettings


def distribution(s: JobContext) -> Iterator[Problem]:
    """The head is trained, and the log-probs are taken, on the whole distribution at the rollout's temperature."""
    top_p = s.real("rollout.top_p")
    if top_p != 1:
        expected = (
            "1: the log-probs trained on are the whole policy's, and what is sampled is the truncated one"
        )
        if s.mtp is not None:
            expected += (
                ". Drafts are verified against the truncated policy, so they change nothing more; the engines' "
                "log-probs are its too, which spec/logprob_gap and importance-sampling correction will show, and fewer "
                "drafts are accepted than mtp/expected_length says"
            )
        yield warning("rollout.top_p", f"{top_p:g}", expected, "set 1 unless you mean it")
    temperature = s.real("rollout.temperature")
    if s.mtp is not None and temperature == 0:
        yield error(
            "rollout.temperature",
            "0",
            "above 0: at 0 every response to a prompt is the same",
            "set 1",
        )


def drafts(s: JobContext) -> Iterator[Problem]:
    """Drafts must be verified exactly and drawn as the head was trained for."""
    if s.mtp is None:
        return
    yield from drafting(s.mtp)
    if not s.mtp.rollout.speculate and s.mtp.regime != "frozen":
        yield warning(
            "mtp.rollout.speculate",
            "false",
            "true: the head is trained and never used",
            "set true, or drop the mtp section for a baseline",
        )


def drafting(mtp: MTPSettings) -> Iterator[Problem]:
    """What is wrong with how drafts are drawn and verified; nothing when the engines draft nothing.

    The engines ask this too, when they are created: what they refuse, `check` refuses.
    """
    rollout = mtp.rollout
    if not rollout.speculate:
        return
    setting = "mtp.rollout.rejection_sample_method"
    if rollout.rejection_sample_method == "synthetic":
        yield error(
            setting,
            "synthetic",
            "standard or block: synthetic accepts at a fixed rate whatever the policy says, so that rollouts are not "
            "samples of the policy",
            "set standard",
        )
    if rollout.rejection_sample_method == "block" and rollout.draft_sample_method == "probabilistic":
        yield error(
            setting,
            "block with mtp.rollout.draft_sample_method probabilistic",
            "standard: vLLM's V1 model runner would draft greedily without saying so",
            "set standard",
        )
    if rollout.draft_sample_method == "greedy":
        yield _greedy(mtp)


def _greedy(mtp: MTPSettings) -> Problem:
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
