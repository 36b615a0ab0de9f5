"""The token after a chunk: prompt, output of a preempted request, and what the proposer does with it."""

from __future__ import annotations

from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import torch

from openrlhf_mtp.upstream.vllm import chunk_ends


class Request:
    """A request's known tokens, as vLLM's `CachedRequestState` gives them."""

    def __init__(self, prompt: list[int], output: list[int]) -> None:
        self._tokens = prompt + output

    def get_token_id(self, index: int) -> int:
        return self._tokens[index]


def test_only_rows_at_which_nothing_is_sampled_have_a_token_after_their_chunk() -> None:
    runner = SimpleNamespace(
        input_batch=SimpleNamespace(num_reqs=3, req_ids=["cut", "whole", "preempted"]),
        # rows beyond the batch are left over from a larger one
        discard_request_mask=SimpleNamespace(np=np.array([True, False, True, True])),
        optimistic_seq_lens_cpu=torch.tensor([2, 3, 4, 9]),
        requests={
            "cut": Request([10, 11, 12, 13], []),
            "whole": Request([20, 21, 22], []),
            "preempted": Request([30, 31], [32, 33, 34, 35]),
        },
    )
    assert chunk_ends.tokens_after_chunks(runner) == {0: 12, 2: 34}


def test_the_proposers_choice_is_corrected_at_those_rows_alone() -> None:
    class SpecDecodeBaseProposer:
        def prepare_next_token_ids_padded(self, *_: Any) -> tuple[torch.Tensor, torch.Tensor]:
            return torch.tensor([13, 7, 35], dtype=torch.int32), torch.tensor([0, 1, 0])

    proposers = ModuleType("proposers")
    vars(proposers)["SpecDecodeBaseProposer"] = SpecDecodeBaseProposer
    chunk_ends._correct_next_tokens(proposers)
    proposer = SpecDecodeBaseProposer()
    for known, expected in (({}, [13, 7, 35]), ({0: 12, 2: 34}, [12, 7, 34])):
        vars(proposer)["tokens_after_chunks"] = known
        tokens, sampled = proposer.prepare_next_token_ids_padded()
        assert tokens.tolist() == expected
        assert tokens.dtype == torch.int32
        assert sampled.tolist() == [0, 1, 0]
