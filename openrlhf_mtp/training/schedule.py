"""The objective that each head step trains with."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:  # needs pydantic, which a new GPU machine may not have
    from openrlhf_mtp.config.settings.objective import ObjectiveSettings

WARMUP = "kl"
"""While a head is cold, e2e TV gives its deep depths almost no gradient; KL does not vanish at any depth."""


class Schedule:
    """KL until the warm-up ends, by step or by measured overlap, then a linear passage to the objective.

    >>> from openrlhf_mtp.config.settings.objective import ObjectiveSettings
    >>> schedule = Schedule(ObjectiveSettings(objective="tv", kl_warmup_steps=2, blend_steps=1))
    >>> [schedule.at(step) for step in range(4)]
    [{'kl': 1.0}, {'kl': 1.0}, {'kl': 0.5, 'tv': 0.5}, {'tv': 1.0}]
    """

    def __init__(self, settings: ObjectiveSettings) -> None:
        self.settings = settings
        self.warmup_steps = settings.kl_warmup_steps

    def at(self, step: int) -> dict[str, float]:
        """Objective -> weight at head step `step`, counted from 0."""
        settings = self.settings
        progress = (step - self.warmup_steps + 1) / (settings.blend_steps + 1)
        if progress <= 0.0:
            return {WARMUP: 1.0}
        final = settings.objectives
        if progress >= 1.0:
            return final
        blended = {name: progress * weight for name, weight in final.items()}
        blended[WARMUP] = blended.get(WARMUP, 0.0) + (1.0 - progress)
        return dict(sorted(blended.items()))

    def watches(self, step: int) -> bool:
        """Whether the overlap measured at this head step can end the warm-up."""
        return self.settings.kl_until_alpha is not None and step < self.warmup_steps

    def record(self, step: int, alpha: float) -> None:
        """Record the overlap at head step `step`, mean over depths and ranks; end the warm-up when it is enough."""
        threshold = self.settings.kl_until_alpha
        if self.watches(step) and threshold is not None and alpha >= threshold:
            self.warmup_steps = step + 1

    def state(self) -> dict[str, int]:
        """The state that a checkpoint keeps."""
        return {"warmup_steps": self.warmup_steps}

    def load_state(self, state: dict[str, int]) -> None:
        """Restore what `state()` returned."""
        self.warmup_steps = state["warmup_steps"]
