"""Rewards that fail loudly. OpenRLHF logs an exception of a reward function and trains on without the reward."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from openrlhf.utils.agent import SingleTurnAgentExecutor


class RewardError(RuntimeError):
    """The reward function raised, returned nothing, or returned something that is not a finite number."""


class _Escape(BaseException):
    """Carries a reward function's exception past OpenRLHF's `except Exception`."""

    def __init__(self, error: Exception) -> None:
        super().__init__(error)
        self.error = error


def check_reward(response: Mapping[str, Any]) -> None:
    """Raise `RewardError` unless reward and score of a response are finite numbers; None is a missing reward."""
    for kind in ("reward", "scores"):
        value = response[kind]
        if value is None or not math.isfinite(float(value)):
            raise RewardError(
                f"{kind} is {value!r}, expected a finite number, for the prompt {response['prompt'][:200]!r} with the "
                f"label {str(response['label'])[:200]!r}; the reward function must return a dictionary "
                "with `rewards` (and optionally `scores`) for every query"
            )


def require_finite_rewards(responses: Iterable[Mapping[str, Any]]) -> None:
    """Check every response that carries a reward; a reward model fills them in later, so None passes here."""
    for response in responses:
        if response["reward"] is not None:
            check_reward(response)


class StrictSingleTurnExecutor(SingleTurnAgentExecutor):  # type: ignore[misc]
    """OpenRLHF's single-turn executor, which ends the run when a reward cannot be had."""

    async def _fetch_rewards_via_func(self, *args: Any) -> Any:
        try:
            return await super()._fetch_rewards_via_func(*args)
        except Exception as error:
            raise _Escape(error) from error

    async def _fetch_rewards_via_http(self, *args: Any) -> Any:
        try:
            return await super()._fetch_rewards_via_http(*args)
        except Exception as error:
            raise _Escape(error) from error

    async def execute(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """One response with its reward.

        Raises:
            RewardError: with the reward function's own exception as its cause.
        """
        try:
            response: dict[str, Any] = await super().execute(*args, **kwargs)
        except _Escape as escape:
            source = ", ".join(self.reward_endpoints)
            name = type(escape.error).__name__
            raise RewardError(
                f"the reward from {source} failed with {name}: {escape.error}"
            ) from escape.error
        if self.reward_endpoints:
            check_reward(response)
        return response
