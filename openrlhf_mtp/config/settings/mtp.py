"""The `mtp:` section of a job file: what this project adds to OpenRLHF's own flags.

`args.mtp` on OpenRLHF's namespace is an `MTPSettings`, or None when the job has no `mtp:` section.
Depths are counted from 1 everywhere.
"""

from typing import Any, Literal, Self

from pydantic import model_validator

from openrlhf_mtp.config.settings.objective import ObjectiveSettings
from openrlhf_mtp.config.settings.pretrain import HeadOptim, PretrainSettings
from openrlhf_mtp.config.settings.regime import AdvantageSettings, CoefficientSettings, Regime
from openrlhf_mtp.config.settings.setting import Settings, setting

DType = Literal["float32", "bfloat16", "float16", "auto"]


class RolloutSettings(Settings):
    """Drafting and verification in vLLM."""

    speculate: bool = setting(
        True, unit="", help="draft with the head during rollouts; false decodes one token at a time"
    )
    draft_sample_method: Literal["probabilistic", "greedy"] = setting(
        "probabilistic",
        unit="",
        help="probabilistic: sample drafts from the head (tv and e2e_tv need it); greedy: take its likeliest token",
    )
    rejection_sample_method: Literal["standard", "block", "synthetic"] = setting(
        "standard",
        unit="",
        help="how vLLM verifies drafts; block (on a GPU) accepts more; synthetic changes the samples and is refused",
    )
    dtype: DType = setting(
        "auto",
        unit="",
        help="precision of the policy and the head in vLLM; auto uses the trainer's ds.param_dtype",
    )
    max_num_seqs: int | None = setting(
        None,
        unit="sequences",
        help="maximum number of sequences an engine decodes at once; null is 256 on a GPU and vLLM's default without",
        ge=1,
    )
    max_num_batched_tokens: int | None = setting(
        None,
        unit="tokens",
        help="maximum number of tokens in one forward pass of an engine; null is 8192 or more on a GPU and vLLM's "
        "default without",
        ge=1,
    )
    kv_cache_gib: float | None = setting(
        None,
        unit="GiB",
        help="size of an engine's key-value cache on a host without CUDA; null keeps vLLM's default",
        gt=0,
    )

    logprobs: Literal["auto", "always", "sampled"] = setting(
        "auto",
        unit="",
        help="log-probs of all responses, or of one prompt's in eight; auto: of all on a CPU and for IS correction",
    )
    async_scheduling: bool | None = setting(
        None,
        unit="",
        help="prepare an engine's next step while the GPU computes; null leaves it to vLLM, which does; not on a CPU",
    )
    engine_args: dict[str, Any] = setting(
        {},
        unit="",
        help="more arguments of vLLM's AsyncEngineArgs by name, such as {kv_cache_dtype: fp8}",
    )

    @property
    def verifies_blocks(self) -> bool:
        """Whether engines decide about a draft as a whole, which a replay of its acceptance has to follow."""
        return self.rejection_sample_method == "block"


class SyncSettings(Settings):
    """Transfer of the weights of policy and head from the trainer to the rollout engines."""

    backend: Literal["auto", "ipc", "nccl", "gloo"] = setting(
        "auto",
        unit="",
        help="transport; auto uses ipc where all engines are on the trainer's devices, nccl where each has its own "
        "GPU, gloo elsewhere",
    )
    bucket_mib: int = setting(
        256,
        unit="MiB",
        help="most memory of a bucket, into which tensors are packed for sending; larger tensors are cut",
        ge=1,
    )
    timeout_s: float = setting(
        300.0,
        unit="s",
        help="maximum duration of a sync round, and a second more for every 25 MB; a slower round fails the run",
        gt=0,
    )
    start_timeout_s: float = setting(
        1800.0,
        unit="s",
        help="how long to wait for engines to load their model after the trainer is ready",
        gt=0,
    )
    verify_every: int = setting(
        1,
        unit="sync rounds",
        help="every n rounds, compare the weights that engines compute with to those that were sent; 0 is never",
        ge=0,
    )


class GuardSettings(Settings):
    """When acceptance counts as collapsed, and what happens then. A collapse slows rollouts; samples stay correct."""

    action: Literal["warn", "stop"] = setting(
        "warn",
        unit="",
        help="what to do when acceptance collapses; warn: log it and continue; stop: save a checkpoint and end the run",
    )
    min_fraction_of_start: float = setting(
        0.5,
        unit="fraction",
        help="a step is bad if fewer than this fraction of the initial accepted drafts per target forward are accepted",
        ge=0,
        le=1,
    )
    min_acceptance_length: float = setting(
        1.0,
        unit="tokens per target forward",
        help="a step is bad if its mean acceptance length is below this; a length of 1 means no speed-up",
        ge=1,
    )
    patience: int = setting(
        2, unit="RL steps", help="number of consecutive bad steps that count as a collapse", ge=1
    )
    warmup_steps: int = setting(
        1, unit="RL steps", help="number of first steps whose mean is the initial acceptance length", ge=1
    )
    max_logprob_gap: float | None = setting(
        None,
        unit="nats",
        help="save a checkpoint and stop if the mean engine-trainer log-prob gap exceeds this; null only logs it",
        gt=0,
    )


class RecordSettings(Settings):
    """Records that a run keeps on request, beside its metrics."""

    rollouts: bool = setting(
        False,
        unit="",
        help="keep each RL step's tokens, texts, rewards and advantages in the run folder, in rollouts/step_*.jsonl",
    )


class MTPSettings(ObjectiveSettings):
    """The `mtp:` section."""

    head: str | None = setting(
        None, unit="", help="folder of the head; null uses the mtp folder inside actor.model_name_or_path"
    )
    depths: int = setting(
        3, unit="tokens", help="tokens drafted for each target forward, and depths trained", ge=1, le=16
    )
    num_blocks: int = setting(
        1,
        unit="blocks",
        help="number of blocks that the depths cycle through; must match the head",
        ge=1,
        le=16,
    )
    regime: Regime = setting(
        "detach",
        unit="",
        help="frozen: RL does not train the head; detach: it does; joint_*: it does, and a loss reaches the policy",
    )
    coefficient: CoefficientSettings = setting(
        CoefficientSettings(),
        unit="",
        help="factor on the loss of the joint regimes that reaches the policy",
    )
    advantage: AdvantageSettings = setting(
        AdvantageSettings(), unit="", help="weight of each sample in the head's loss, from its advantage"
    )
    optim: HeadOptim = setting(HeadOptim(), unit="", help="the head's optimizer during RL")
    rollout: RolloutSettings = setting(RolloutSettings(), unit="", help="drafting in vLLM")
    sync: SyncSettings = setting(SyncSettings(), unit="", help="how weights reach the rollout engines")
    guard: GuardSettings = setting(GuardSettings(), unit="", help="what to do when acceptance collapses")
    record: RecordSettings = setting(RecordSettings(), unit="", help="what the run folder keeps on request")
    pretrain: PretrainSettings = setting(PretrainSettings(), unit="", help="the stage before RL")

    @model_validator(mode="after")
    def _blocks_are_used(self) -> Self:
        if self.num_blocks > self.depths:
            raise ValueError(
                f"num_blocks: got {self.num_blocks}, expected at most depths = {self.depths}, because depth j uses "
                "block (j - 1) % num_blocks and the rest would never run; lower num_blocks or raise depths"
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
