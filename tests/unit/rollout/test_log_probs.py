"""Which prompts' responses come with log-probs, and that the others are told apart from a fault."""

import math

import pytest

from openrlhf_mtp.rollout.log_probs import EVERY, LogProbRequests, mark_unasked
from openrlhf_mtp.runlog.unasked import UNASKED


@pytest.mark.parametrize(
    ("mode", "cpu", "all_of_them"),
    [("always", False, True), ("sampled", True, False), ("auto", True, True), ("auto", False, False)],
)
def test_all_prompts_or_the_first_of_a_step_and_each_eighth_after_it(mode, cpu, all_of_them) -> None:
    requests = LogProbRequests(mode, cpu=cpu)
    for _ in range(2):
        asked = [requests.wants(upstream=False) for _ in range(EVERY + 2)]
        assert asked == ([True] * (EVERY + 2) if all_of_them else [True, *[False] * (EVERY - 1), True, False])
        requests.begin_step()


def test_openrlhf_gets_all_log_probs_that_it_needs() -> None:
    requests = LogProbRequests("sampled", cpu=False)
    assert [requests.wants(upstream=True) for _ in range(3)] == [True] * 3


def test_a_response_without_log_probs_has_a_mark_for_each_token_and_others_stay() -> None:
    responses = [
        {"rollout_log_probs": None, "observation_tokens": [5, 6, 7]},
        {"rollout_log_probs": [0.0, -1.0], "observation_tokens": [5, 6]},
    ]
    mark_unasked(responses)
    assert [response["rollout_log_probs"] for response in responses] == [[UNASKED] * 3, [0.0, -1.0]]
    assert UNASKED > 0, "no log-prob is"
    assert math.isfinite(UNASKED), "the check for NaN lets it pass"
