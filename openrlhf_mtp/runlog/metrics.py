"""Every metric of a run, declared once: its name, unit and meaning.

The training loop, the rollout engines, the figures and the documentation take names from here, so that a name in a
plot is the name in the log. A row of `metrics.jsonl` is one step's numbers; `validate` refuses an undeclared name.

A constant is the metric's name in capitals. Some metrics are also logged, or only logged, for each depth or each
engine, or each quarter of a response; `depth_metric`, `engine_metric` and `quarter_metric` build those names. Depth is
counted from 1, engines from 0, as vLLM and OpenRLHF number them, quarters from 1.

    >>> depth_metric(MTP_ALPHA, 2)
    'mtp/alpha/depth_2'
    >>> validate({STEP: 1, POLICY_REWARD: 0.5})

To add a metric, add a line to the table below and log it under the constant.
"""

from openrlhf_mtp.runlog.metric_table import MetricTable

_table = MetricTable()
_declare = _table.declare

STEP = _declare(
    "step", "count", "Number of the step; rollout rounds in RL, optimizer steps in the pre-RL stage; from 1"
)

# The policy
POLICY_REWARD = _declare("policy/reward", "score", "Mean reward of the step's responses")
POLICY_REWARD_STD = _declare(
    "policy/reward_std", "score", "Standard deviation of the reward over the step's responses"
)
POLICY_RETURN = _declare("policy/return", "score", "Mean return per response after KL shaping")
POLICY_ENTROPY = _declare(
    "policy/entropy",
    "nat",
    "Mean entropy of the policy at action tokens, at the rollout's temperature; over the head's anchors unless "
    "`actor.entropy_coef` is set",
)
POLICY_KL = _declare(
    "policy/kl", "nat", "Mean estimated KL divergence of the policy from the reference model"
)
POLICY_PPO_KL = _declare(
    "policy/ppo_kl", "nat", "Mean estimated KL divergence of the policy from the one that generated"
)
POLICY_CLIP_FRACTION = _declare(
    "policy/clip_fraction", "fraction", "Action tokens whose probability ratio was clipped"
)
POLICY_LOSS = _declare("policy/loss", "loss", "Policy loss, mean over the step's updates")
POLICY_GRAD_NORM = _declare("policy/grad_norm", "norm", "L2 norm of the policy's gradient before clipping")
POLICY_LR = _declare("policy/lr", "1", "Learning rate of the policy")
POLICY_RESPONSE_LENGTH = _declare(
    "policy/response_length", "token", "Mean response length, end-of-sequence token included"
)
POLICY_TOTAL_LENGTH = _declare("policy/total_length", "token", "Mean length of prompt and response")
POLICY_TRUNCATED_RATE = _declare("policy/truncated_rate", "fraction", "Responses cut at the maximum length")
CRITIC_LOSS = _declare("critic/loss", "loss", "Critic loss, mean over the step's updates")
CRITIC_VALUE = _declare("critic/value", "score", "Mean value the critic gives to action tokens")
CRITIC_GRAD_NORM = _declare("critic/grad_norm", "norm", "L2 norm of the critic's gradient before clipping")
CRITIC_LR = _declare("critic/lr", "1", "Learning rate of the critic")
EVAL_ACCURACY = _declare(
    "eval/accuracy", "fraction", "Held-out prompts answered correctly, mean over sampled responses (pass@1)"
)
EVAL_PASS_AT_K = _declare(
    "eval/pass_at_k", "fraction", "Held-out prompts with at least one correct answer among k responses"
)
EVAL_RESPONSE_LENGTH = _declare("eval/response_length", "token", "Mean response length on held-out prompts")
EVAL_TRUNCATED_RATE = _declare(
    "eval/truncated_rate", "fraction", "Responses to held-out prompts cut at the maximum length"
)

# The head, seen by the trainer
MTP_LOSS = _declare(
    "mtp/loss",
    "loss",
    "Loss of the MTP head, mean over counted anchors",
    by_depth="Loss of the MTP head at depth j",
)
MTP_ALPHA = _declare(
    "mtp/alpha", "probability", by_depth="Overlap sum_v min(p, q) at depth j, at the rollout's temperature"
)
MTP_ALPHA_GREEDY = _declare(
    "mtp/alpha_greedy",
    "probability",
    by_depth="p(argmax q) at depth j: acceptance probability of a greedy draft of the same head",
)
MTP_REACH = _declare(
    "mtp/reach",
    "probability",
    by_depth="Predicted share of drafts accepted through depth j, comparable with spec/acceptance_rate/depth_j",
)
MTP_REPLAYED_LENGTH = _declare(
    "mtp/replayed_length",
    "token",
    "1 + sum_j mtp/reach/depth_j: tokens per target forward at the places where an engine drafts, comparable with "
    "spec/mean_acceptance_length",
    by_quarter="The same of drafts that begin in quarter q of their response; the last reaches beyond the end",
)
MTP_REPLAYED_LENGTH_P10 = _declare(
    "mtp/replayed_length_p10", "token", "Replayed length that a tenth of the responses stay below"
)
MTP_REPLAYED_LENGTH_SE = _declare(
    "mtp/replayed_length_se",
    "token",
    "Standard deviation of the engine's mean acceptance length, conditional on the sampled text",
)
MTP_SLOW_RESPONSES = _declare(
    "mtp/slow_responses", "fraction", "Responses whose replayed length is below 1.5 tokens"
)
MTP_ACCEPTED_STD = _declare(
    "mtp/accepted_std",
    "token",
    "Standard deviation of a draft's accepted tokens, conditional on the sampled text",
)
MTP_EXPECTED_LENGTH = _declare(
    "mtp/expected_length",
    "token",
    "Tokens per target forward, mean over anchors of 1 + sum_j (prod_{i<j} r_i) alpha_j, r = min(1, q/p) of the text",
)
MTP_COEFFICIENT = _declare(
    "mtp/coefficient",
    "1",
    "Factor on the MTP loss that reaches the policy, mean over depths; joint regimes",
    by_depth="Factor at depth j; a negative factor reverses the term",
)
MTP_JOINT_LOSS = _declare(
    "mtp/joint_loss",
    "loss",
    "MTP loss that reaches the policy, before its coefficient (`released_code`: with it); joint regimes",
)
MTP_ADVANTAGE_WEIGHT_MAX = _declare(
    "mtp/advantage_weight_max",
    "1",
    "Largest advantage weight of a sample in the head's loss, on the first rank",
)
MTP_ADVANTAGE_EFFECTIVE_SHARE = _declare(
    "mtp/advantage_effective_share",
    "fraction",
    "Effective sample size of the advantage weights over the sample size, mean over a step's updates, all ranks",
)
MTP_ADVANTAGE_FALLBACK = _declare(
    "mtp/advantage_fallback",
    "fraction",
    "Updates in which no token had an advantage weight, so that all weighed the same",
)
OCC_ALIGNMENT = _declare(
    "occ/alignment",
    "nat^2",
    by_depth="Mean of delta_RL * delta_MTP over action tokens; its sign is the coefficient's",
)
OCC_MAGNITUDE = _declare("occ/magnitude", "nat^2", by_depth="Mean of delta_MTP^2 over action tokens")
OCC_SIGN = _declare(
    "occ/sign",
    "sign",
    by_depth="Sign of the alignment, and so of OCC's coefficient: the mean over the step's updates of -1, 0 or 1",
)
MTP_GRAD_NORM = _declare("mtp/grad_norm", "norm", "L2 norm of the head's gradient before its own clipping")
MTP_LR = _declare("mtp/lr", "1", "Learning rate of the head")
MTP_ANCHORS = _declare("mtp/anchors", "count", "Anchors that the loss counted, over all ranks")
MTP_ENTROPY = _declare("mtp/entropy", "nat", "Mean entropy of the policy at counted anchors")
EVAL_MTP_LOSS = _declare("eval/mtp/loss", "loss", "Loss of the MTP head on held-out responses")
EVAL_MTP_ALPHA = _declare(
    "eval/mtp/alpha", "probability", by_depth="Overlap at depth j on held-out responses"
)
EVAL_MTP_ALPHA_GREEDY = _declare(
    "eval/mtp/alpha_greedy", "probability", by_depth="p(argmax q) at depth j on held-out responses"
)
EVAL_MTP_EXPECTED_LENGTH = _declare(
    "eval/mtp/expected_length", "token", "Expected tokens per target forward on held-out responses"
)

# Speculative decoding, seen by the engines
SPEC_ACCEPTANCE_RATE = _declare(
    "spec/acceptance_rate",
    "fraction",
    "Accepted over drafted tokens, E/k: what Bebop and most papers call acceptance rate",
    by_depth="Reach: drafts whose token at depth j was accepted (all before it were); its mean over depths is E/k",
)
SPEC_MEAN_ACCEPTANCE_LENGTH = _declare(
    "spec/mean_acceptance_length",
    "token",
    "Tokens per target forward: 1 + accepted / drafts; what is drafted beyond a response's end counts as rejected",
    by_quarter="The same of drafts that begin in quarter q of their response",
)
SPEC_ACCEPTANCE_LENGTH_P10 = _declare(
    "spec/acceptance_length_p10",
    "token",
    "Acceptance length that a tenth of the responses stay below; few drafts a response widen it by chance",
)
SPEC_SLOW_RESPONSES = _declare(
    "spec/slow_responses", "fraction", "Responses whose acceptance length is below 1.5 tokens"
)
SPEC_ALPHA_GAP = _declare(
    "spec/alpha_gap",
    "fraction",
    "Accepted share of drafted tokens that the trainer predicts, minus the share that the engines counted",
)
SPEC_LENGTH_GAP = _declare(
    "spec/length_gap",
    "token",
    "mtp/replayed_length minus spec/mean_acceptance_length: 0 but for noise while trainer and engines agree",
)
SPEC_LENGTH_GAP_SE = _declare(
    "spec/length_gap_se",
    "token",
    "Standard error of spec/length_gap that the luck of the step's drafts explains, conditional on the sampled text",
)
SPEC_DRAFTS = _declare(
    "spec/drafts", "count", "Drafts verified for the responses that ended in the step, all engines"
)
SPEC_LOGPROB_GAP = _declare(
    "spec/logprob_gap", "nat", "Mean |engine log-prob - trainer log-prob| over action tokens"
)
SPEC_LOGPROB_GAP_MAX = _declare(
    "spec/logprob_gap_max", "nat", "Largest |engine log-prob - trainer log-prob| of the step"
)
SPEC_LOGPROB_GAP_TAIL = _declare(
    "spec/logprob_gap_tail",
    "fraction",
    "Action tokens with |engine log-prob - trainer log-prob| above 0.1 nat; of a policy with experts, mostly tokens "
    "whose routers nearly tie",
)

SPEC_LOGPROB_SHARE = _declare(
    "spec/logprob_share",
    "fraction",
    "Share of the action tokens whose log-prob the engine was asked for; spec/logprob_gap is over them",
)

# Where the time goes
TIME_ROLLOUT_S = _declare("time/rollout_s", "s", "Generation of the step's responses, rewards included")
TIME_EXPERIENCE_S = _declare(
    "time/experience_s", "s", "Log-probs, values and advantages of the step's responses"
)
TIME_TRAIN_S = _declare("time/train_s", "s", "Forward, backward and optimizer of policy, head and critic")
TIME_MTP_S = _declare("time/mtp_s", "s", "Share of the training time spent on the head")
TIME_SYNC_S = _declare("time/sync_s", "s", "Weight synchronization, verification included")
TIME_EVAL_S = _declare("time/eval_s", "s", "Evaluation on held-out prompts")
TIME_STEP_S = _declare("time/step_s", "s", "Wall time of the whole step")
PERF_ROLLOUT_TOK_S = _declare(
    "perf/rollout_tok_s",
    "token/s",
    "Generated tokens per second of rollout time, all engines",
    by_engine="Generated tokens per second while engine i was busy",
)
PERF_ROLLOUT_TOKENS = _declare("perf/rollout_tokens", "token", "Tokens generated in the step, all engines")
PERF_TRAIN_TOK_S = _declare("perf/train_tok_s", "token/s", "Tokens trained on per second of training time")
PERF_PEAK_MEMORY_GIB = _declare("perf/peak_memory_gib", "GiB", "Highest memory of the process tree so far")

# Weight synchronization
SYNC_BYTES = _declare("sync/bytes", "byte", "Bytes one engine received in the round")
SYNC_RPC_CALLS = _declare("sync/rpc_calls", "count", "Remote calls to one engine in the round")
SYNC_BUCKETS = _declare("sync/buckets", "count", "Packed buckets sent in the round")
SYNC_VERIFY_S = _declare("sync/verify_s", "s", "Share of the synchronization time spent on verification")

SLOW_RESPONSE = 1.5
"""Tokens per target forward below which a response counts as slow: drafting it costs about what it gains."""

WIDE_GAP = 0.1
"""Nats beyond which the gap of a token belongs to `spec/logprob_gap_tail`."""

METRICS = _table.metrics
depth_metric = _table.depth_metric
engine_metric = _table.engine_metric
quarter_metric = _table.quarter_metric
held_out = _table.held_out
lookup = _table.lookup
validate = _table.validate
