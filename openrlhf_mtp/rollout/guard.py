"""Watch whether drafts are still accepted.

After a bad weight sync the samples stay right, because rejection sampling corrects any draft; only the speed
goes. Nothing else would notice, so acceptance itself is watched. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from openrlhf_mtp.config.settings.mtp import GuardSettings
from openrlhf_mtp.runlog import metrics


@dataclass(frozen=True)
class Alarm:
    """A finding of the guard.

    Attributes:
        text: for the user, with the step.
        stops: whether the run ends with it.
    """

    text: str
    stops: bool


class AcceptanceGuard:
    """Compares each step's mean acceptance length with the run's start.

    The start is the mean of the first `warmup_steps` steps. Accepted drafts per target forward (the length
    minus 1) may not fall below `min_fraction_of_start` of it, nor the length below `min_acceptance_length`.
    """

    def __init__(self, settings: GuardSettings) -> None:
        self.settings = settings
        self._warmup: list[float] = []
        self._bad_steps: list[str] = []

    @property
    def start(self) -> float | None:
        """Mean acceptance length at the start, once the warm-up is over."""
        if len(self._warmup) < self.settings.warmup_steps:
            return None
        return sum(self._warmup) / len(self._warmup)

    @property
    def floor(self) -> float | None:
        """The lowest mean acceptance length that is let pass, once the warm-up is over."""
        if self.start is None:
            return None
        relative = 1.0 + self.settings.min_fraction_of_start * (self.start - 1.0)
        return max(relative, self.settings.min_acceptance_length)

    def update(self, step: int, row: Mapping[str, float]) -> Alarm | None:
        """Look at one step's metrics; steps without drafts are ignored.

        Returns:
            An alarm when the last `patience` steps were all below the floor (once until a step is above it again), or
            when this step's log-prob gap is above the limit.
        """
        alarm = self._gap_alarm(step, row)
        if alarm is not None or metrics.SPEC_MEAN_ACCEPTANCE_LENGTH not in row:
            return alarm
        length, floor = row[metrics.SPEC_MEAN_ACCEPTANCE_LENGTH], self.floor
        if floor is None:
            self._warmup.append(length)
        elif length >= floor:
            self._bad_steps.clear()
        else:
            self._bad_steps.append(f"step {step}: {length:.3f}")
            if len(self._bad_steps) == self.settings.patience:
                return self._collapse(floor)
        return None

    def _collapse(self, floor: float) -> Alarm:
        settings = self.settings
        stops = settings.action == "stop"
        what_next = (
            "A checkpoint was saved; mtp.guard.action=warn continues from it regardless."
            if stops
            else "The run continues (mtp.guard.action: warn)."
        )
        return Alarm(
            f"mean acceptance length collapsed: {', '.join(self._bad_steps)} tokens per target forward; it "
            f"started at {self.start:.3f} and should not fall below {floor:.3f} (mtp.guard.min_fraction_of_start = "
            f"{settings.min_fraction_of_start}, mtp.guard.min_acceptance_length = {settings.min_acceptance_length}). "
            "The samples are still correct, but rollouts are slow. Usual causes: the head did not reach the engines "
            "(see sync/*), its learning rate is too high, or the policy moved fast under mtp.regime: frozen. "
            f"{what_next}",
            stops,
        )

    def _gap_alarm(self, step: int, row: Mapping[str, float]) -> Alarm | None:
        gap, limit = row.get(metrics.SPEC_LOGPROB_GAP, 0.0), self.settings.max_logprob_gap
        if limit is None or gap <= limit:
            return None
        return Alarm(
            f"step {step}: engine and trainer disagree by {gap:.4f} nats per sampled token on average, the "
            f"limit is mtp.guard.max_logprob_gap = {limit}. Usual causes: the policy did not reach the engines, or "
            "mtp.rollout.dtype is coarser than the trainer's precision. A checkpoint was saved.",
            stops=True,
        )
