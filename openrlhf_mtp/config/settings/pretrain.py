"""The head's optimizer, and the stage before RL."""

from typing import Self

from pydantic import model_validator

from openrlhf_mtp.config.settings.objective import ObjectiveSettings
from openrlhf_mtp.config.settings.setting import Settings, setting


class HeadOptim(Settings):
    """AdamW for the head, separate from the policy's optimizer and gradient clipping."""

    lr: float = setting(1e-4, unit="", help="peak learning rate of the head", gt=0)
    betas: tuple[float, float] = setting((0.9, 0.95), unit="", help="AdamW's decay rates, each in [0, 1)")
    eps: float = setting(1e-8, unit="", help="term added to AdamW's denominator", gt=0)
    weight_decay: float = setting(0.0, unit="", help="decoupled weight decay of the head", ge=0)
    max_norm: float = setting(
        1.0, unit="gradient norm", help="clip the gradient of the head to this norm", gt=0
    )
    warmup_steps: int = setting(0, unit="head steps", help="steps of linear learning-rate warm-up", ge=0)

    @model_validator(mode="after")
    def _betas_are_decay_rates(self) -> Self:
        if not all(0.0 <= beta < 1.0 for beta in self.betas):
            raise ValueError(
                f"betas: got {list(self.betas)}, expected two numbers in [0, 1); for example [0.9, 0.95]"
            )
        return self


class PretrainOptim(HeadOptim):
    """The same settings for the stage before RL, where a fresh head needs a higher learning rate."""

    lr: float = setting(1e-3, unit="", help="peak learning rate of the head", gt=0)
    warmup_steps: int = setting(20, unit="head steps", help="steps of linear learning-rate warm-up", ge=0)


class PretrainSettings(ObjectiveSettings):
    """The stage before RL, which trains the head on the policy's own responses with the trunk frozen."""

    kl_warmup_steps: int | None = setting(  # type: ignore[assignment]  # null has a meaning where a stage has an end
        None,
        unit="head steps",
        help="train with KL for the first n steps; null: half of the stage if the objective needs a warm head, else 0",
        ge=0,
    )
    epochs: int = setting(1, unit="passes", help="passes over the generated responses", ge=1)
    max_steps: int | None = setting(
        None, unit="head steps", help="stop after n optimizer steps; null runs all epochs", ge=1
    )
    batch_size: int = setting(
        64, unit="sequences", help="sequences in one optimizer step, over all ranks", ge=1
    )
    micro_batch_size: int = setting(8, unit="sequences", help="sequences in one forward pass of a rank", ge=1)
    samples_per_prompt: int = setting(4, unit="responses", help="responses generated for each prompt", ge=1)
    max_prompts: int | None = setting(
        None, unit="prompts", help="use the first n prompts of the job; null uses all", ge=1
    )
    holdout_fraction: float = setting(
        0.05,
        unit="fraction",
        help="fraction of the prompts used for evaluation and never for training",
        gt=0,
        le=0.5,
    )
    max_new_tokens: int | None = setting(
        None,
        unit="tokens",
        help="maximum length of a generated response; null uses rollout.max_new_tokens",
        ge=1,
    )
    temperature: float | None = setting(
        None,
        unit="",
        help="sampling temperature; null uses rollout.temperature, which the head drafts at during RL",
        gt=0,
    )
    save_steps: int = setting(
        100,
        unit="head steps",
        help="save the head, its optimizer and the position in the data every n steps",
        ge=1,
    )
    eval_steps: int = setting(
        50, unit="head steps", help="measure acceptance on held-out responses every n steps", ge=1
    )
    state_cache_gib: float | None = setting(
        None,
        unit="GiB",
        help="disk for hidden states that are read in every pass; null is half of what is free, 0 computes them again",
        ge=0,
    )
    temperature_sweep: tuple[float, ...] = setting(
        (0.8, 1.2),
        unit="factors",
        help="also measure entropy and acceptance length at these multiples of the temperature; [] for none",
    )
    num_ranks: int = setting(1, unit="processes", help="data-parallel DeepSpeed ranks, one GPU each", ge=1)
    optim: PretrainOptim = setting(
        PretrainOptim(), unit="", help="the head's optimizer in the stage before RL"
    )

    @model_validator(mode="after")
    def _temperatures_are_positive(self) -> Self:
        if not all(factor > 0.0 for factor in self.temperature_sweep):
            raise ValueError(
                f"temperature_sweep: got {list(self.temperature_sweep)}, expected positive factors on the temperature; "
                "for example [0.8, 1.2], or [] for none"
            )
        return self

    def with_warmup(self, steps: int) -> Self:
        """These settings with the KL warm-up of a stage of so many head steps, where none was given.

        >>> PretrainSettings(objective="e2e_tv").with_warmup(120).kl_warmup_steps
        60
        >>> PretrainSettings(objective="ce").with_warmup(120).kl_warmup_steps
        0
        """
        if self.kl_warmup_steps is not None:
            return self
        return self.model_copy(update={"kl_warmup_steps": steps // 2 if self.needs_warm_head else 0})

    def swept_temperatures(self, own: float) -> list[float]:
        """The temperatures that the sweep samples at, besides the stage's own."""
        return sorted({factor * own for factor in self.temperature_sweep} - {own})

    @model_validator(mode="after")
    def _batches_divide(self) -> Self:
        per_forward = self.micro_batch_size * self.num_ranks
        if self.batch_size % per_forward:
            raise ValueError(
                f"batch_size: got {self.batch_size}, expected a multiple of micro_batch_size * num_ranks = "
                f"{self.micro_batch_size} * {self.num_ranks} = {per_forward}; change one of the three"
            )
        return self
