"""Rules for sampling and verifying drafts: rollouts follow the policy's distribution, and the head is of use."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from openrlhf_mtp.config.families import NATIVE_FAMILIES
from openrlhf_mtp.config.problem import Problem, error, warning

if TYPE_CHECKING:  # needs pydantic, which a new GPU machine may not have
    from openrlhf_mtp.config.settings.mtp import MTPSettings


@dataclass(frozen=True)
class Sampling:
    """A job's sampling settings on which drafts depend.

    Attributes:
        temperature: the logits are divided by it.
        top_p: share of the probability that is sampled from.
        max_len: longest sequence in tokens, prompt included; None when no limit is known.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    max_len: int | None = None


WHOLE_POLICY = Sampling()
"""From all of the policy's distribution, at temperature 1."""


def sampling_problems(sampling: Sampling, mtp: MTPSettings | None) -> Iterator[Problem]:
    """Rollouts must follow the whole policy: the head is trained, and log-probs are taken, on all of it.

    Args:
        sampling: how the job samples.
        mtp: the mtp section, None for plain OpenRLHF.
    """
    if sampling.top_p != 1:
        expected = "1: the log-probs trained on are the whole policy's, and the samples the truncated one's"
        if mtp is not None and mtp.rollout.speculate:
            expected += (
                ". Drafts are verified against the truncated policy, so they change nothing more. The engines' "
                "log-probs are the truncated policy's too, which spec/logprob_gap and importance-sampling correction "
                "will show, and fewer drafts are accepted than mtp/expected_length says"
            )
        yield warning("rollout.top_p", f"{sampling.top_p:g}", expected, "set 1 unless you mean it")
    if mtp is not None and sampling.temperature == 0:
        yield error(
            "rollout.temperature",
            "0",
            "above 0: at 0 every response to a prompt is the same",
            "set 1",
        )


def drafting_problems(mtp: MTPSettings) -> Iterator[Problem]:
    """Drafts must be verified exactly, and drawn as the head was trained for; nothing where engines draft nothing."""
    rollout = mtp.rollout
    if not rollout.speculate:
        return
    if rollout.rejection_sample_method == "synthetic":
        yield error(
            "mtp.rollout.rejection_sample_method",
            "synthetic",
            "standard or block: synthetic accepts at a fixed rate whatever the policy says, so that rollouts are not "
            "samples of the policy",
            "set standard",
        )
    if rollout.draft_sample_method == "greedy":
        yield _greedy(mtp)


def caching_problems(
    drafts: bool, policy: Mapping[str, Any] | None, caches_prompts: bool
) -> Iterator[Problem]:
    """Linear attention keeps no key for each token but a state, which drafts move on before they are verified.

    vLLM 0.29 and the versions around it cache a state of the wrong row then: text is corrupted without an error
    (vllm#53912, open; SkyRL#1981 measured a success rate of 9 % in place of 26 %).

    Args:
        drafts: whether the engines draft.
        policy: the policy's `config.json`; None is not judged.
        caches_prompts: whether vLLM's prefix caching is on.
    """
    family = None if policy is None else NATIVE_FAMILIES.get(str(policy.get("model_type")))
    if drafts and caches_prompts and family is not None and family.linear_attention:
        yield error(
            "vllm.enable_prefix_caching",
            "true",
            f"false where engines draft for {family.model_type}: vLLM caches states of its linear attention that "
            "belong to other sequences, and rollouts would not be samples of the policy",
            "set false, or mtp.rollout.speculate false",
        )


def _greedy(mtp: MTPSettings) -> Problem:
    """A greedy draft: an error for a head that is trained to overlap a distribution, a warning for any other."""
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
