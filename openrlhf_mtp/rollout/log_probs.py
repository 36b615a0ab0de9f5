"""The choice of the responses that an engine is asked for log-probs of (`mtp.rollout.logprobs`). Pure.

Log-probs cost three passes over all logits of a step in which some request wants them, and an object for each token in
the engine's front end. OpenRLHF wants them for importance-sampling correction alone; the gap between engine and trainer
is a mean, for which a share of the prompts is enough.
"""

from __future__ import annotations

from typing import Any, Literal

from openrlhf_mtp.runlog.unasked import UNASKED

EVERY = 8
"""Of the prompts that an engine gets in an RL step, the first and each so many after it, all their samples."""


class LogProbRequests:
    """Counts an engine's prompts and chooses among them.

    Args:
        mode: the setting. `auto` is `sampled` on a GPU, and `always` on a CPU, where nothing is gained.
        cpu: whether the engine runs on one.
    """

    def __init__(self, mode: Literal["auto", "always", "sampled"], *, cpu: bool) -> None:
        self._is_sampled = mode == "sampled" or (mode == "auto" and not cpu)
        self._prompts = 0

    def wants(self, *, upstream: bool) -> bool:
        """Whether the next prompt's responses come with log-probs; `upstream`: OpenRLHF needs those of all."""
        number, self._prompts = self._prompts, self._prompts + 1
        return upstream or not self._is_sampled or number % EVERY == 0

    def begin_step(self) -> None:
        """The next prompt is the first of an RL step, so that every step is measured."""
        self._prompts = 0


def mark_unasked(responses: list[dict[str, Any]]) -> None:
    """Give responses without log-probs as many marks, because a batch has them for all tokens or for none."""
    for response in responses:
        if response["rollout_log_probs"] is None:
            response["rollout_log_probs"] = [UNASKED] * len(response["observation_tokens"])
