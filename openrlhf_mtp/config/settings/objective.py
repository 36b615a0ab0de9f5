"""The head's loss in either stage: objective, schedule, weights of the depths, fraction of the anchors."""

from typing import Self

from pydantic import model_validator

from openrlhf_mtp.config.objectives import OBJECTIVES, Objective
from openrlhf_mtp.config.settings.setting import Settings, setting


class ObjectiveSettings(Settings):
    """The loss that the head minimizes, and the schedule that leads to it from a cold start."""

    objective: Objective | dict[Objective, float] = setting(
        "e2e_tv", unit="", help="loss of the head; a mapping gives a weighted sum"
    )
    kl_warmup_steps: int = setting(
        0,
        unit="head steps",
        help="train with the KL objective for the first n steps, while the head is cold",
        ge=0,
    )
    kl_until_alpha: float | None = setting(
        None,
        unit="probability",
        help="end the KL warm-up early once a step's mean overlap over depths reaches this value",
        gt=0,
        lt=1,
    )
    blend_steps: int = setting(
        0,
        unit="head steps",
        help="after the warm-up, move linearly from KL to the objective over n steps",
        ge=0,
    )
    depth_decay: float = setting(
        1.0,
        unit="fraction",
        help="weight of a depth relative to the one before; 1 is uniform; FastMTP uses 0.6; e2e_tv ignores it",
        gt=0,
        le=1,
    )
    anchor_fraction: float = setting(
        1.0,
        unit="fraction",
        help="train on a random fraction of the anchors; costs less, and the gradient estimate stays unbiased",
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
        return any(OBJECTIVES[name].measures_overlap for name in self.objectives)

    @property
    def needs_warm_head(self) -> bool:
        """Whether a cold head learns too little from the objective to do without KL steps before it."""
        return any(OBJECTIVES[name].needs_warm_head for name in self.objectives)

    @property
    def objectives(self) -> dict[str, float]:
        """Objective -> weight, also when one name was given."""
        if isinstance(self.objective, str):
            return {self.objective: 1.0}
        return {str(name): weight for name, weight in self.objective.items()}
