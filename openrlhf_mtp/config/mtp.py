"""The `mtp:` section of a job file: what this project adds to OpenRLHF's own flags.

`args.mtp` on OpenRLHF's namespace is an `MTPSettings`, or None when the job has no `mtp:` section.
Depths are counted from 1 everywhere.
"""

from typing import Literal, Self

from pydantic import model_validator

from openrlhf_mtp.config.knob import Settings, knob

Objective = Literal["ce", "kl", "reverse_kl", "tv", "e2e_tv", "nla", "lk_hybrid"]
Regime = Literal["frozen", "detach", "joint_ce", "joint_policy"]
Weighting = Literal["none", "positive", "sigmoid", "exponential"]
DType = Literal["float32", "bfloat16", "float16"]


class HeadOptim(Settings):
    """AdamW for the head alone, apart from the policy's optimiser and its gradient clipping."""

    lr: float = knob(1e-4, unit="1/step", help="peak learning rate of the head", gt=0)
    betas: tuple[float, float] = knob((0.9, 0.95), unit="", help="AdamW's decay rates, each in [0, 1)")
    eps: float = knob(1e-8, unit="", help="AdamW's denominator offset", gt=0)
    weight_decay: float = knob(0.0, unit="1/step", help="decoupled weight decay of the head", ge=0)
    max_norm: float = knob(1.0, unit="gradient norm", help="clip the head's own gradient to this norm", gt=0)
    warmup_steps: int = knob(0, unit="head steps", help="linear learning-rate warm-up", ge=0)

    @model_validator(mode="after")
    def _betas_are_decay_rates(self) -> Self:
        if not all(0.0 <= beta < 1.0 for beta in self.betas):
            raise ValueError(
                f"betas: got {list(self.betas)}, expected two numbers in [0, 1); for example [0.9, 0.95]"
            )
        return self


class PretrainOptim(HeadOptim):
    """The same knobs for the pre-RL stage, where a fresh head wants larger steps."""

    lr: float = knob(1e-3, unit="1/step", help="peak learning rate of the head", gt=0)
    warmup_steps: int = knob(20, unit="head steps", help="linear learning-rate warm-up", ge=0)


class RolloutSettings(Settings):
    """How vLLM drafts and verifies."""

    speculate: bool = knob(
        True, unit="", help="draft with the head during rollouts; false decodes token by token"
    )
    draft_sample_method: Literal["probabilistic", "greedy"] = knob(
        "probabilistic",
        unit="",
        help="draw drafts from the head's distribution (what a tv or e2e_tv head is trained for) or take its mode",
    )
    rejection_sample_method: Literal["standard", "block", "synthetic"] = knob(
        "standard",
        unit="",
        help="how drafts are verified; standard and block keep the policy's distribution, synthetic does not "
        "and is refused",
    )
    dtype: DType = knob("bfloat16", unit="", help="precision of the policy and the head inside vLLM")
    max_num_seqs: int | None = knob(
        None,
        unit="sequences",
        help="most sequences an engine decodes at once; unset leaves vLLM's choice",
        ge=1,
    )
    max_num_batched_tokens: int | None = knob(
        None,
        unit="tokens",
        help="most tokens an engine computes in one forward; unset leaves vLLM's choice",
        ge=1,
    )
    kv_cache_gib: float | None = knob(
        None,
        unit="GiB",
        help="size of an engine's key-value cache on a host without CUDA; unset leaves vLLM's choice",
        gt=0,
    )


class SyncSettings(Settings):
    """How trainer weights (policy and head) reach the rollout engines."""

    backend: Literal["auto", "nccl", "gloo"] = knob(
        "auto",
        unit="",
        help="transport; auto takes nccl where trainer and engines own separate GPUs, else gloo",
    )
    bucket_mib: int = knob(
        256, unit="MiB", help="tensors are packed into buckets of this size for sending", ge=1
    )
    timeout_s: float = knob(300.0, unit="s", help="a sync round that takes longer ends with an error", gt=0)
    verify_every: int = knob(
        1,
        unit="sync rounds",
        help="check the weights the engines really compute with every n rounds; 0 never",
        ge=0,
    )


class GuardSettings(Settings):
    """When to stop a run whose drafts are no longer accepted (for example after a bad weight sync)."""

    min_fraction_of_start: float = knob(
        0.5,
        unit="fraction",
        help="stop below this share of the accepted drafts per round at the start",
        ge=0,
        le=1,
    )
    min_acceptance_length: float = knob(
        1.0,
        unit="tokens per target forward",
        help="stop below this mean acceptance length (1 is no gain)",
        ge=1,
    )
    patience: int = knob(2, unit="RL steps", help="that many bad steps in a row stop the run", ge=1)
    warmup_steps: int = knob(1, unit="RL steps", help="the mean of the first n steps is the start", ge=1)
    max_logprob_gap: float | None = knob(
        None,
        unit="nats",
        help="stop if the engine's and the trainer's log-prob of a sampled token differ by more than this on average; "
        "unset only logs the gap",
        gt=0,
    )


class ObjectiveSettings(Settings):
    """What the head minimises, and how it gets there from a cold start."""

    objective: Objective | dict[Objective, float] = knob(
        "e2e_tv", unit="", help="loss of the head; a mapping of names to weights is their weighted sum"
    )
    kl_warmup_steps: int = knob(
        0, unit="head steps", help="KL objective for the first n steps, for a head that is cold", ge=0
    )
    kl_until_alpha: float | None = knob(
        None,
        unit="probability",
        help="end the KL warm-up earlier, as soon as the overlap measured in a step (mean over depths) reaches this",
        gt=0,
        lt=1,
    )
    blend_steps: int = knob(
        0,
        unit="head steps",
        help="after the warm-up, pass from KL to the objective linearly over n steps",
        ge=0,
    )
    depth_decay: float = knob(
        1.0,
        unit="fraction",
        help="weight of each depth as a share of the one before, for objectives that count depths separately; "
        "1 is uniform, 0.6 is FastMTP's; e2e_tv weighs depths by itself",
        gt=0,
        le=1,
    )
    anchor_fraction: float = knob(
        1.0,
        unit="fraction",
        help="train on this random share of the positions; the gradient stays unbiased and costs accordingly less",
        gt=0,
        le=1,
    )

    @model_validator(mode="after")
    def _objective_is_weighted(self) -> Self:
        if isinstance(self.objective, dict) and (not self.objective or min(self.objective.values()) <= 0):
            raise ValueError(
                f"objective: got {self.objective}, expected at least one name with a positive weight; for example "
                "{kl: 0.3, e2e_tv: 0.7}"
            )
        return self

    @model_validator(mode="after")
    def _warmup_has_steps(self) -> Self:
        if self.kl_until_alpha is not None and self.kl_warmup_steps == 0:
            raise ValueError(
                f"kl_until_alpha: got {self.kl_until_alpha:g} with kl_warmup_steps 0, so there is no warm-up to end; "
                "set kl_warmup_steps to the longest warm-up you allow"
            )
        return self

    @property
    def objective_text(self) -> str:
        """The objective in words, for plans and messages."""
        parts = self.objectives
        return " + ".join(name if len(parts) == 1 else f"{weight:g} {name}" for name, weight in parts.items())

    @property
    def wants_sampled_drafts(self) -> bool:
        """Whether the head is trained for the overlap of two distributions, which a greedy draft throws away."""
        return bool({"tv", "e2e_tv", "nla", "lk_hybrid"} & set(self.objectives))

    @property
    def objectives(self) -> dict[str, float]:
        """Objective -> weight, also when one name was given."""
        if isinstance(self.objective, str):
            return {self.objective: 1.0}
        return {str(name): weight for name, weight in self.objective.items()}


class PretrainSettings(ObjectiveSettings):
    """The stage before RL: train the head on the policy's own responses with the trunk frozen."""

    kl_warmup_steps: int = knob(
        50,
        unit="head steps",
        help="KL objective for the first n steps; a cold head learns little from e2e_tv",
        ge=0,
    )
    epochs: int = knob(1, unit="passes", help="passes over the generated responses", ge=1)
    max_steps: int | None = knob(
        None, unit="head steps", help="stop after n optimiser steps; unset runs all epochs", ge=1
    )
    batch_size: int = knob(64, unit="sequences", help="sequences per optimiser step, over all ranks", ge=1)
    micro_batch_size: int = knob(8, unit="sequences", help="sequences per forward on one rank", ge=1)
    samples_per_prompt: int = knob(4, unit="responses", help="responses generated per prompt", ge=1)
    max_prompts: int | None = knob(
        None, unit="prompts", help="use the first n prompts of the job; unset uses all", ge=1
    )
    holdout_fraction: float = knob(
        0.05,
        unit="fraction",
        help="share of the prompts kept for evaluation and never trained on",
        gt=0,
        le=0.5,
    )
    max_new_tokens: int | None = knob(
        None, unit="tokens", help="longest generated response; unset takes rollout.max_new_tokens", ge=1
    )
    temperature: float | None = knob(
        None,
        unit="",
        help="sampling temperature; unset takes rollout.temperature, which drafts meet during RL",
        gt=0,
    )
    save_steps: int = knob(
        100, unit="head steps", help="save head, optimiser and data position every n steps", ge=1
    )
    eval_steps: int = knob(50, unit="head steps", help="measure the held-out acceptance every n steps", ge=1)
    num_ranks: int = knob(1, unit="processes", help="data-parallel DeepSpeed ranks, one GPU each", ge=1)
    optim: PretrainOptim = knob(PretrainOptim(), unit="", help="the head's optimiser in the pre-RL stage")

    @model_validator(mode="after")
    def _batches_divide(self) -> Self:
        per_forward = self.micro_batch_size * self.num_ranks
        if self.batch_size % per_forward:
            raise ValueError(
                f"batch_size: got {self.batch_size}, expected a multiple of micro_batch_size * num_ranks = "
                f"{self.micro_batch_size} * {self.num_ranks} = {per_forward}; change one of the three"
            )
        return self


class CoefficientSettings(Settings):
    """How much of the MTP loss reaches the policy, in the joint regimes."""

    kind: Literal["fixed", "occ"] = knob(
        "fixed",
        unit="",
        help="fixed: a constant; occ: tracked so that the policy's objective gains most from it",
    )
    value: float = knob(0.1, unit="1", help="the constant of kind fixed", ge=0)
    scale: float = knob(1.0, unit="1", help="OCC's lambda_plus, the factor on the tracked coefficient", gt=0)
    occ_variant: Literal["paper", "released_code"] = knob(
        "paper",
        unit="",
        help="paper: masked ratio of sums over the optimizer step's tokens, over all ranks; released_code: the public "
        "code's mean of per-token ratios, for comparison",
    )
    smoothing: float = knob(
        0.0,
        unit="fraction",
        help="share of the previous optimizer step's coefficient in this one's; 0 is off",
        ge=0,
        lt=1,
    )
    bounds: tuple[float, float] | None = knob(
        None, unit="1", help="least and greatest coefficient; unset is unbounded, negative values are allowed"
    )

    @model_validator(mode="after")
    def _bounds_are_ordered(self) -> Self:
        if self.bounds is not None and not self.bounds[0] < self.bounds[1]:
            raise ValueError(
                f"bounds: got {list(self.bounds)}, expected the lower one first; for example [-1.0, 1.0]"
            )
        return self


class AdvantageSettings(Settings):
    """How much a sample weighs in the head's loss, by its advantage (our design for MTP-RL's second stage)."""

    weighting: Weighting = knob(
        "none",
        unit="",
        help="none: all alike; positive: samples with positive advantage only; sigmoid, exponential: more weight the "
        "higher the advantage",
    )
    temperature: float = knob(
        1.0, unit="advantage", help="scale of sigmoid and exponential; smaller is sharper", gt=0
    )


class MTPSettings(ObjectiveSettings):
    """The whole `mtp:` section."""

    head: str | None = knob(
        None, unit="", help="folder of the head; unset takes the folder mtp inside actor.model_name_or_path"
    )
    depths: int = knob(
        3, unit="tokens", help="tokens drafted per target forward, and depths trained", ge=1, le=16
    )
    num_layers: int = knob(
        1,
        unit="blocks",
        help="blocks the depths cycle through; must equal the head's own number",
        ge=1,
        le=16,
    )
    regime: Regime = knob(
        "detach",
        unit="",
        help="frozen: the head is not trained during RL; detach: trained each step without touching the policy; "
        "joint_ce, joint_policy: as detach, and the head's cross-entropy or its clipped policy-gradient loss also "
        "reaches the policy, times mtp.coefficient",
    )
    coefficient: CoefficientSettings = knob(
        CoefficientSettings(),
        unit="",
        help="factor on the MTP loss that reaches the policy, in the joint regimes",
    )
    advantage: AdvantageSettings = knob(
        AdvantageSettings(), unit="", help="weight of each sample in the head's loss by its advantage"
    )
    optim: HeadOptim = knob(HeadOptim(), unit="", help="the head's optimiser during RL")
    rollout: RolloutSettings = knob(RolloutSettings(), unit="", help="drafting inside vLLM")
    sync: SyncSettings = knob(SyncSettings(), unit="", help="weights from the trainer to the engines")
    guard: GuardSettings = knob(GuardSettings(), unit="", help="when collapsing acceptance stops the run")
    pretrain: PretrainSettings = knob(PretrainSettings(), unit="", help="the stage before RL")

    @model_validator(mode="after")
    def _blocks_are_used(self) -> Self:
        if self.num_layers > self.depths:
            raise ValueError(
                f"num_layers: got {self.num_layers}, expected at most depths = {self.depths}, because depth j uses "
                "block (j - 1) % num_layers and the rest would never run; lower num_layers or raise depths"
            )
        return self

    @property
    def is_joint(self) -> bool:
        """Whether a loss on the head's log-probs reaches the policy."""
        return self.regime in ("joint_ce", "joint_policy")

    @model_validator(mode="after")
    def _guard_can_be_passed(self) -> Self:
        least = self.guard.min_acceptance_length
        if least >= self.depths + 1:
            raise ValueError(
                f"guard.min_acceptance_length: got {least:g}, expected below depths + 1 = {self.depths + 1}, "
                "which is what a target forward yields when every draft is accepted; lower it"
            )
        return self
