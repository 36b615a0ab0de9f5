"""Rewards that fail loudly. OpenRLHF logs an exception of a reward function and trains on without the reward."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from openrlhf.utils.agent import SingleTurnAgentExecutor

from openrlhf_mtp.runlog.scalars import shortened, single_number


class RewardError(RuntimeError):
    """The reward function raised, returned nothing, or returned something that is not a finite number."""


class _Escape(BaseException):
    """Carries a reward function's exception past OpenRLHF's `except Exception`."""

    def __init__(self, error: Exception) -> None:
        super().__init__(error)
        self.error = error


def settle_reward(response: dict[str, Any]) -> None:
    """Turn a response's reward and score into plain numbers, in place.

    OpenRLHF's documented reply of a reward server, and many reward functions, hold a list of one value a query; a
    tensor or an array of one is as good.

    Raises:
        RewardError: a reward is missing, not one finite number, or several; the message names prompt and label.
    """
    for kind in ("reward", "scores"):
        value = response[kind]
        number = single_number(value)
        if number is None or not math.isfinite(number):
            raise RewardError(
                f"{kind} is {shortened(value)}, expected one finite number, "
                f"for the prompt {response['prompt'][:200]!r} with "
                f"the label {str(response['label'])[:200]!r}; the reward function must return a dictionary "
                "with `rewards` (and optionally `scores`) that holds one number for every query"
            )
        response[kind] = number


def settle_rewards(responses: Iterable[dict[str, Any]]) -> None:
    """`settle_reward` for every response that carries one; a reward model fills them in later, so None passes here."""
    for response in responses:
        if response["reward"] is not None:
            settle_reward(response)


def _require_dictionaries(replies: Iterable[Any]) -> None:
    for reply in replies:
        if reply is not None and not isinstance(reply, Mapping):
            raise TypeError(f"the answer is {shortened(reply)}, expected a dictionary with `rewards`")


class StrictSingleTurnExecutor(SingleTurnAgentExecutor):
    """OpenRLHF's single-turn executor, which ends the run when a reward cannot be had."""

    async def _fetch_rewards_via_func(self, *args: Any) -> Any:
        try:
            replies = await super()._fetch_rewards_via_func(*args)
            _require_dictionaries(replies)
            return replies
        except Exception as error:
            raise _Escape(error) from error

    async def _fetch_rewards_via_http(self, *args: Any) -> Any:
        try:
            replies = await super()._fetch_rewards_via_http(*args)
            _require_dictionaries(replies)
            return replies
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
            settle_reward(response)
        return response
