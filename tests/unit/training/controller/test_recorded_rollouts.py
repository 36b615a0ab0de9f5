"""What a run folder keeps of OpenRLHF's experiences: no padding, spans that index the kept tokens, one advantage."""

from types import SimpleNamespace

import torch

from openrlhf_mtp.training.controller.recorded_rollouts import recorded


class Letters:
    """Token 0 is padding, 1 the end, others letters."""

    def decode(self, ids, *, skip_special_tokens):
        assert not skip_special_tokens
        return "".join("_."[token] if token < 2 else chr(95 + token) for token in ids)


def experience():
    """A short response with padding on both sides, and one of two turns with a token from outside between them."""
    return SimpleNamespace(
        sequences=torch.tensor([[0, 2, 3, 4, 1, 0], [2, 3, 4, 5, 6, 1]]),
        attention_mask=torch.tensor([[0, 1, 1, 1, 1, 0], [1, 1, 1, 1, 1, 1]]),
        action_mask=torch.tensor([[0, 0, 1, 1, 0], [0, 1, 0, 1, 1]]).bool(),
        advantages=torch.tensor([[9.0, 9, 0.5, 0.5, 9], [9, -1, 9, -2, -3]]),
        rewards=torch.tensor([1.0, 0.0]),
        prompts=["ab", "ab"],
    )


def test_a_sample_loses_its_padding_and_keeps_what_was_sampled():
    first, second = recorded([experience()], Letters())
    assert first.ids == (2, 3, 4, 1)
    assert [first.ids[start:end] for start, end in first.sampled] == [(4, 1)]
    assert first.response == "c."
    assert [second.ids[start:end] for start, end in second.sampled] == [(4,), (6, 1)]
    assert second.response == "cde."


def test_reward_and_the_mean_advantage_of_sampled_tokens_are_kept():
    first, second = recorded([experience()], Letters())
    assert (first.prompt, first.reward, first.advantage) == ("ab", 1.0, 0.5)
    assert (second.reward, second.advantage) == (0.0, -2.0)
