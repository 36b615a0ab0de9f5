"""Every metric of a run, declared once: its name, unit and meaning.

The training loop, the rollout engines, the figures and the documentation take names from here, so that a name in a
plot is the name in the log. A row of `metrics.jsonl` is one step's numbers; `validate` refuses an undeclared name.

Names with a number in them (`mtp/alpha/depth_2`, `perf/rollout_tok_s/engine_0`) are declared once with a placeholder
(`mtp/alpha/depth_{j}`) and built with `depth_metric` or `engine_metric`. Depth is counted from 1, engines from 0, as
vLLM and OpenRLHF number them.

    >>> depth_metric(MTP_ALPHA, 2)
    'mtp/alpha/depth_2'
    >>> validate({"step": 1, "policy/reward": 0.5})
"""

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Metric:
    """One declared metric. `name` may hold one of the placeholders `{j}` (a depth) or `{i}` (an engine)."""

    name: str
    unit: str
    meaning: str


STEP = "step"
MTP_LOSS = "mtp/loss"
MTP_ALPHA = "mtp/alpha"
MTP_ALPHA_GREEDY = "mtp/alpha_greedy"
MTP_REACH = "mtp/reach"
MTP_ACCEPTED_STD = "mtp/accepted_std"
MTP_EXPECTED_LENGTH = "mtp/expected_length"
MTP_COEFFICIENT = "mtp/coefficient"
OCC_ALIGNMENT = "occ/alignment"
OCC_MAGNITUDE = "occ/magnitude"
OCC_SIGN = "occ/sign"
SPEC_ACCEPTANCE_RATE = "spec/acceptance_rate"
SPEC_LENGTH = "spec/mean_acceptance_length"
SPEC_ALPHA_GAP = "spec/alpha_gap"
ROLLOUT_TOK_S = "perf/rollout_tok_s"

_DEPTH = "/depth_{j}"
_ENGINE = "/engine_{i}"

METRICS: tuple[Metric, ...] = (
    Metric(
        STEP, "count", "Number of the step; rollout rounds in RL, optimizer steps in the pre-RL stage; from 1"
    ),
    # The policy
    Metric("policy/reward", "score", "Mean reward of the step's responses, as the reward function gave it"),
    Metric("policy/reward_std", "score", "Standard deviation of the reward over the step's responses"),
    Metric("policy/return", "score", "Mean return per response after KL shaping"),
    Metric(
        "policy/entropy",
        "nat",
        "Mean entropy of the policy at action tokens, at the rollout's temperature; over the head's anchors unless "
        "`actor.entropy_coef` is set",
    ),
    Metric("policy/kl", "nat", "Mean estimated KL divergence of the policy from the reference model"),
    Metric("policy/ppo_kl", "nat", "Mean estimated KL divergence of the policy from the one that generated"),
    Metric("policy/clip_fraction", "fraction", "Action tokens whose probability ratio was clipped"),
    Metric("policy/loss", "loss", "Policy loss, mean over the step's updates"),
    Metric("policy/grad_norm", "norm", "L2 norm of the policy's gradient before clipping"),
    Metric("policy/lr", "1", "Learning rate of the policy"),
    Metric("policy/response_length", "token", "Mean response length, end-of-sequence token included"),
    Metric("policy/total_length", "token", "Mean length of prompt and response"),
    Metric("policy/truncated_rate", "fraction", "Responses cut at the maximum length"),
    Metric("critic/loss", "loss", "Critic loss, mean over the step's updates"),
    Metric("critic/value", "score", "Mean value the critic gives to action tokens"),
    Metric("critic/grad_norm", "norm", "L2 norm of the critic's gradient before clipping"),
    Metric("critic/lr", "1", "Learning rate of the critic"),
    Metric(
        "eval/accuracy", "fraction", "Held-out prompts answered rightly, mean over sampled responses (pass@1)"
    ),
    Metric("eval/pass_at_k", "fraction", "Held-out prompts with at least one right answer among k responses"),
    Metric("eval/response_length", "token", "Mean response length on held-out prompts"),
    # The head, seen by the trainer
    Metric(MTP_LOSS, "loss", "Loss of the MTP head, mean over counted anchors"),
    Metric(MTP_LOSS + _DEPTH, "loss", "Loss of the MTP head at depth j"),
    Metric(
        MTP_ALPHA + _DEPTH, "probability", "Overlap sum_v min(p, q) at depth j, at the rollout's temperature"
    ),
    Metric(
        MTP_ALPHA_GREEDY + _DEPTH,
        "probability",
        "p(argmax q) at depth j: what a greedy draft of the same head would be accepted with",
    ),
    Metric(
        MTP_REACH + _DEPTH,
        "probability",
        "Promised share of drafts accepted through depth j, comparable with spec/acceptance_rate/depth_j",
    ),
    Metric(
        MTP_ACCEPTED_STD,
        "token",
        "Standard deviation of a draft's accepted tokens, given the text: the chance in what engines accept",
    ),
    Metric(
        MTP_EXPECTED_LENGTH,
        "token",
        "1 + sum_j prod_{i<=j} alpha_i: tokens per target forward the head promises",
    ),
    Metric(
        MTP_COEFFICIENT,
        "1",
        "Factor on the MTP loss that reaches the policy, mean over depths; joint regimes",
    ),
    Metric(
        MTP_COEFFICIENT + _DEPTH,
        "1",
        "Factor at depth j; below 0 it turns against the policy gradient of the head",
    ),
    Metric(
        "mtp/joint_loss",
        "loss",
        "MTP loss that reaches the policy, before its coefficient (which `released_code` has inside); joint regimes",
    ),
    Metric(
        "mtp/advantage_weight_max",
        "1",
        "Largest weight a sample of the first rank got in the head's loss from its advantage",
    ),
    Metric(
        "mtp/advantage_fallback",
        "fraction",
        "Updates whose advantages gave no token a weight, so that all weighed the same",
    ),
    Metric(
        OCC_ALIGNMENT + _DEPTH,
        "nat^2",
        "Mean of delta_RL * delta_MTP over action tokens; its sign is the coefficient's",
    ),
    Metric(OCC_MAGNITUDE + _DEPTH, "nat^2", "Mean of delta_MTP^2 over action tokens"),
    Metric(
        OCC_SIGN + _DEPTH,
        "sign",
        "Sign of the alignment, and so of OCC's coefficient: the mean over the step's updates of -1, 0 or 1",
    ),
    Metric("mtp/grad_norm", "norm", "L2 norm of the head's gradient before its own clipping"),
    Metric("mtp/lr", "1", "Learning rate of the head"),
    Metric("mtp/anchors", "count", "Anchors the loss counted over all ranks"),
    Metric("mtp/entropy", "nat", "Mean entropy of the policy at counted anchors"),
    Metric("eval/mtp/loss", "loss", "Loss of the MTP head on held-out responses"),
    Metric("eval/mtp/alpha" + _DEPTH, "probability", "Overlap at depth j on held-out responses"),
    Metric(
        "eval/" + MTP_ALPHA_GREEDY + _DEPTH, "probability", "p(argmax q) at depth j on held-out responses"
    ),
    Metric("eval/mtp/expected_length", "token", "Expected tokens per target forward on held-out responses"),
    # Speculative decoding, seen by the engines
    Metric(SPEC_ACCEPTANCE_RATE, "fraction", "Drafted tokens the target accepted"),
    Metric(
        SPEC_ACCEPTANCE_RATE + _DEPTH,
        "fraction",
        "Drafts whose token at depth j was accepted (all before it were)",
    ),
    Metric(SPEC_LENGTH, "token", "Tokens per target forward: 1 + accepted / drafts"),
    Metric(
        SPEC_ALPHA_GAP,
        "fraction",
        "Accepted share of drafted tokens that the trainer's overlaps promise, minus the engines' own",
    ),
    Metric("spec/drafts", "count", "Drafts verified in the step, all engines"),
    Metric("spec/logprob_gap", "nat", "Mean |engine log-prob - trainer log-prob| over action tokens"),
    Metric("spec/logprob_gap_max", "nat", "Largest |engine log-prob - trainer log-prob| of the step"),
    # Where the time goes
    Metric("time/rollout_s", "s", "Generation of the step's responses, rewards included"),
    Metric("time/experience_s", "s", "Log-probs, values and advantages of the step's responses"),
    Metric("time/train_s", "s", "Forward, backward and optimizer of policy, head and critic"),
    Metric("time/mtp_s", "s", "Share of the training time spent on the head"),
    Metric("time/sync_s", "s", "Weight synchronization, verification included"),
    Metric("time/eval_s", "s", "Evaluation on held-out prompts"),
    Metric("time/step_s", "s", "Wall time of the whole step"),
    Metric(ROLLOUT_TOK_S, "token/s", "Generated tokens per second of rollout time, all engines"),
    Metric(ROLLOUT_TOK_S + _ENGINE, "token/s", "Generated tokens per second while engine i was busy"),
    Metric("perf/rollout_tokens", "token", "Tokens generated in the step, all engines"),
    Metric("perf/train_tok_s", "token/s", "Tokens trained on per second of training time"),
    Metric("perf/peak_memory_gib", "GiB", "Highest memory of the process tree so far"),
    # Weight synchronization
    Metric("sync/bytes", "byte", "Bytes one engine received in the round"),
    Metric("sync/rpc_calls", "count", "Remote calls to one engine in the round"),
    Metric("sync/buckets", "count", "Packed buckets broadcast in the round"),
    Metric("sync/verify_s", "s", "Share of the synchronization time spent on verification"),
)

PLACEHOLDERS = ("{j}", "{i}")


def _pattern(metric: Metric) -> re.Pattern[str]:
    escaped = re.escape(metric.name)
    for placeholder in PLACEHOLDERS:
        number = "[1-9][0-9]*" if placeholder == "{j}" else "(?:0|[1-9][0-9]*)"
        escaped = escaped.replace(re.escape(placeholder), number)
    return re.compile(escaped)


_BY_NAME = {metric.name: metric for metric in METRICS}
_PARAMETRIC = tuple(
    (_pattern(metric), metric) for metric in METRICS if any(p in metric.name for p in PLACEHOLDERS)
)


class UnknownMetric(ValueError):
    """A row names a metric that `METRICS` does not declare."""


def depth_metric(base: str, j: int) -> str:
    """Name of a per-depth metric, for example `depth_metric("mtp/alpha", 1) == "mtp/alpha/depth_1"`.

    Raises `ValueError` for a depth below 1 and `UnknownMetric` for a base that has no per-depth form.
    """
    if j < 1:
        raise ValueError(f"depth is counted from 1, got {j}")
    return _filled(base, _DEPTH, "{j}", j)


def engine_metric(base: str, i: int) -> str:
    """Name of a per-engine metric, for example `engine_metric("perf/rollout_tok_s", 0)`; engines count from 0."""
    if i < 0:
        raise ValueError(f"an engine's number is 0 or more, got {i}")
    return _filled(base, _ENGINE, "{i}", i)


def _filled(base: str, suffix: str, placeholder: str, number: int) -> str:
    template = base + suffix
    if template not in _BY_NAME:
        known = sorted(name.removesuffix(suffix) for name in _BY_NAME if name.endswith(suffix))
        raise UnknownMetric(f"no metric {template!r}; {suffix.lstrip('/')} exists for: {', '.join(known)}")
    return template.replace(placeholder, str(number))


def lookup(name: str) -> Metric:
    """The declaration behind `name` (parametric names included); raises `UnknownMetric` with the nearest name."""
    if name in _BY_NAME and not any(p in name for p in PLACEHOLDERS):
        return _BY_NAME[name]
    for pattern, metric in _PARAMETRIC:
        if pattern.fullmatch(name):
            return metric
    raise UnknownMetric(_unknown([name]))


def validate(row: Mapping[str, object]) -> None:
    """Raise `UnknownMetric` listing every name of `row` that is not declared, each with its nearest declared name."""
    missing = []
    for name in row:
        try:
            lookup(name)
        except UnknownMetric:
            missing.append(name)
    if missing:
        raise UnknownMetric(_unknown(missing))


def _unknown(names: Iterable[str]) -> str:
    lines = []
    for name in names:
        near = difflib.get_close_matches(name, list(_BY_NAME), n=1)
        lines.append(f"unknown metric {name!r}" + (f"; did you mean {near[0]!r}?" if near else ""))
    return "\n".join([*lines, "declare it in openrlhf_mtp/runlog/metrics.py with its unit and meaning"])
