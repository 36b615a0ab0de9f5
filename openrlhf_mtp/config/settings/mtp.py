"""The `mtp:` section of a job file: what this project adds to OpenRLHF's own flags.

`args.mtp` on OpenRLHF's namespace is an `MTPSettings`, or None when the job has no `mtp:` section.
Depths are counted from 1 everywhere.
"""

from typing import Literal, Self

from pydantic import model_validator

from openrlhf_mtp.config.settings.objective import ObjectiveSettings
from openrlhf_mtp.config.settings.pretrain import HeadOptim, PretrainSettings
from openrlhf_mtp.config.settings.regime import AdvantageSettings, CoefficientSettings, Regime
from openrlhf_mtp.config.settings.setting import Settings, setting

DType = Literal["float32", "bfloat16", "float16", "auto"]


class RolloutSettings(Settings):
    """How vLLM drafts and verifies."""

    speculate: bool = setting(
        True, unit="", help="draft with the head during rollouts; false decodes token by token"
    )
    draft_sample_method: Literal["probabilistic", "greedy"] = setting(
        "probabilistic",
        unit="",
        help="draw drafts from the head's distribution (what a tv or e2e_tv head is trained for) or take its mode",
    )
    rejection_sample_method: Literal["standard", "block", "synthetic"] = setting(
        "standard",
        unit="",
        help="how drafts are verified; standard and block (for greedy drafts only) keep the policy's distribution, "
        "synthetic does not and is refused",
    )
    dtype: DType = setting(
        "auto",
        unit="",
        help="precision of the policy and the head inside vLLM; auto is the trainer's, ds.param_dtype",
    )
    max_num_seqs: int | None = setting(
        None,
        unit="sequences",
        help="most sequences an engine decodes at once; unset leaves vLLM's choice",
        ge=1,
    )
    max_num_batched_tokens: int | None = setting(
        None,
        unit="tokens",
        help="most tokens an engine computes in one forward; unset leaves vLLM's choice",
        ge=1,
    )
    kv_cache_gib: float | None = setting(
        None,
        unit="GiB",
        help="size of an engine's key-value cache on a host without CUDA; unset leaves vLLM's choice",
        gt=0,
    )


class SyncSettings(Settings):
    """How trainer weights (policy and head) reach the rollout engines."""

    backend: Literal["auto", "nccl", "gloo"] = setting(
        "auto",
        unit="",
        help="transport; auto takes nccl where trainer and engines own separate GPUs, else gloo",
    )
    bucket_mib: int = setting(
        256, unit="MiB", help="tensors are packed into buckets of this size for sending", ge=1
    )
    timeout_s: float = setting(
        300.0, unit="s", help="a sync round that takes longer ends with an error", gt=0
    )
    start_timeout_s: float = setting(
        1800.0,
        unit="s",
        help="once the trainer stands, engines have this long to load their model and answer",
        gt=0,
    )
    verify_every: int = setting(
        1,
        unit="sync rounds",
        help="check the weights the engines really compute with every n rounds; 0 never",
        ge=0,
    )


class GuardSettings(Settings):
    """What to do when drafts are no longer accepted (for example after a bad weight sync). Samples stay right then."""

    action: Literal["warn", "stop"] = setting(
        "warn",
        unit="",
        help="when acceptance collapses: say so and go on, or save a checkpoint and end the run",
    )
    min_fraction_of_start: float = setting(
        0.5,
        unit="fraction",
        help="a step is bad below this share of the accepted drafts per round at the start",
        ge=0,
        le=1,
    )
    min_acceptance_length: float = setting(
        1.0,
        unit="tokens per target forward",
        help="a step is bad below this mean acceptance length (1 is no gain)",
        ge=1,
    )
    patience: int = setting(2, unit="RL steps", help="that many bad steps in a row are a collapse", ge=1)
    warmup_steps: int = setting(1, unit="RL steps", help="the mean of the first n steps is the start", ge=1)
    max_logprob_gap: float | None = setting(
        None,
        unit="nats",
        help="save a checkpoint and end the run, whatever action says, if the engine's and the trainer's log-prob of a "
        "sampled token differ by more than this on average: samples would be wrong; unset only logs the gap",
        gt=0,
    )


class MTPSettings(ObjectiveSettings):
    """The whole `mtp:` section."""

    head: str | None = setting(
        None, unit="", help="folder of the head; unset takes the folder mtp inside actor.model_name_or_path"
    )
    depths: int = setting(
        3, unit="tokens", help="tokens drafted per target forward, and depths trained", ge=1, le=16
    )
    num_layers: int = setting(
        1,
        unit="blocks",
        help="blocks the depths cycle through; must equal the head's own number",
        ge=1,
        le=16,
    )
    regime: Regime = setting(
        "detach",
        unit="",
        help="frozen: the head is not trained during RL; detach: trained each step without touching the policy; "
        "joint_ce, joint_policy: as detach, and the head's cross-entropy or its clipped policy-gradient loss also "
        "reaches the policy, times mtp.coefficient",
    )
    coefficient: CoefficientSettings = setting(
        CoefficientSettings(),
        unit="",
        help="factor on the MTP loss that reaches the policy, in the joint regimes",
    )
    advantage: AdvantageSettings = setting(
        AdvantageSettings(), unit="", help="weight of each sample in the head's loss by its advantage"
    )
    optim: HeadOptim = setting(HeadOptim(), unit="", help="the head's optimizer during RL")
    rollout: RolloutSettings = setting(RolloutSettings(), unit="", help="drafting inside vLLM")
    sync: SyncSettings = setting(SyncSettings(), unit="", help="weights from the trainer to the engines")
    guard: GuardSettings = setting(GuardSettings(), unit="", help="what to do when acceptance collapses")
    pretrain: PretrainSettings = setting(PretrainSettings(), unit="", help="the stage before RL")

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
