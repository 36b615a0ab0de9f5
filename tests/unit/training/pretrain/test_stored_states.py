"""Stored states of the pre-RL stage: computed once whatever happens, and never wrong."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from openrlhf_mtp.config.run_files import STATES
from openrlhf_mtp.config.settings.pretrain import PretrainSettings
from openrlhf_mtp.runlog.notices import read_notices
from openrlhf_mtp.runlog.run_folder import read_machine
from openrlhf_mtp.training.pretrain import state_store, stored_states
from openrlhf_mtp.training.pretrain.responses import Response
from openrlhf_mtp.training.pretrain.stored_states import StoredStates, batches_of_similar_length

WIDTH = 4
LENGTHS = (5, 3, 9, 3, 7, 4, 6, 8)
TRAINING = [Response(n, (n + 1,), tuple(range(1, length))) for n, length in enumerate(LENGTHS)]
HELD_OUT = [Response(20, (9, 8), (7,)), Response(21, (3,), (4, 5, 6))]
MADE_WITH = {"policy": "a"}


def states_of(response: Response) -> torch.Tensor:
    tokens = torch.tensor(response.prompt_ids + response.response_ids, dtype=torch.float32)
    return tokens[:, None] * torch.arange(1, WIDTH + 1) + response.prompt


class Policy:
    """Counts its forward passes."""

    def __init__(self, fails_after: int | None = None) -> None:
        self.batches: list[list[Response]] = []
        self.fails_after = fails_after

    def __call__(self, responses: list[Response]) -> torch.Tensor:
        if self.fails_after is not None and len(self.batches) == self.fails_after:
            raise KeyboardInterrupt
        self.batches.append(responses)
        longest = max(len(states_of(response)) for response in responses)
        states = torch.full((len(responses), longest, WIDTH), 99.0)  # as a policy fills its padding
        for row, response in enumerate(responses):
            states[row, : len(states_of(response))] = states_of(response)
        return states


def stored(out: Path, policy: Policy, *, together: bool = False, **settings: Any) -> StoredStates:
    chosen = {"batch_size": 4, "micro_batch_size": 2, "epochs": 2, "eval_steps": 1, **settings}
    return StoredStates(
        out,
        PretrainSettings.model_validate(chosen),
        TRAINING,
        HELD_OUT,
        like=torch.zeros(1, WIDTH),
        compute=policy,
        together=together,
    )


def assert_all_there(states: StoredStates) -> None:
    for response in [*TRAINING, *HELD_OUT]:
        read = states.read([response])
        assert read is not None
        assert torch.equal(read[0], states_of(response))


def test_each_response_is_computed_once_in_batches_of_similar_length(tmp_path) -> None:
    policy = Policy()
    states = stored(tmp_path, policy)
    states.fill(MADE_WITH)
    assert_all_there(states)
    computed = [response for batch in policy.batches for response in batch]
    assert sorted(computed, key=lambda r: r.prompt) == [*TRAINING, *HELD_OUT]
    lengths = [[state_store.length(response) for response in batch] for batch in policy.batches]
    assert lengths == [[9, 8], [7, 6], [5, 4], [3, 3], [4, 3]]
    record = read_machine(tmp_path)["hidden_states"]
    assert record["stored"]
    assert record["nbytes"] == (sum(LENGTHS) + 7) * WIDTH * 4


def test_a_resumed_stage_computes_what_was_missing_in_the_same_batches(tmp_path) -> None:
    killed, resumed, straight = Policy(fails_after=2), Policy(), Policy()
    with pytest.raises(KeyboardInterrupt):
        stored(tmp_path, killed).fill(MADE_WITH)
    states = stored(tmp_path, resumed)
    states.fill(MADE_WITH)
    assert_all_there(states)
    (tmp_path / "other").mkdir()
    stored(tmp_path / "other", straight).fill(MADE_WITH)
    assert killed.batches + resumed.batches == straight.batches
    third = Policy()
    stored(tmp_path, third).fill(MADE_WITH)
    assert third.batches == []


def test_states_of_another_policy_are_computed_again(tmp_path) -> None:
    stored(tmp_path, Policy()).fill(MADE_WITH)
    policy = Policy()
    stored(tmp_path, policy).fill({"policy": "b"})
    assert len(policy.batches) == 5


def test_a_full_disk_is_said_and_given_back(tmp_path, monkeypatch) -> None:
    def no_room(*_: Any) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "pwrite", no_room)
    states = stored(tmp_path, Policy())
    states.fill(MADE_WITH)
    assert states.read([TRAINING[0]]) is None
    assert not (tmp_path / STATES).exists()
    (notice,) = read_notices(tmp_path)
    assert "No space left on device" in notice
    assert not read_machine(tmp_path)["hidden_states"]["stored"]


def test_ranks_that_need_each_other_make_as_many_passes_as_the_one_that_misses_most(
    tmp_path, monkeypatch
) -> None:
    """A sharded policy's forward pass is a collective."""
    monkeypatch.setattr(stored_states, "all_gather_objects", lambda here: [here, here + 2])
    policy = Policy()
    states = stored(tmp_path, policy, together=True)
    states.fill(MADE_WITH)
    assert len(policy.batches) == 5 + 2
    assert policy.batches[5:] == [HELD_OUT[:1]] * 2
    assert_all_there(states)


def test_a_rank_whose_disk_is_full_computes_on_with_those_that_need_it(tmp_path, monkeypatch) -> None:
    def no_room(*_: Any) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "pwrite", no_room)
    alone, together = Policy(), Policy()
    stored(tmp_path / "alone", alone).fill(MADE_WITH)
    stored(tmp_path / "together", together, together=True).fill(MADE_WITH)
    assert (len(alone.batches), len(together.batches)) == (1, 5)


def test_damage_is_said_and_computed_again(tmp_path) -> None:
    stored(tmp_path, Policy()).fill(MADE_WITH)
    path = tmp_path / STATES / "states.bin"
    path.write_bytes(bytes(path.stat().st_size))
    states = stored(tmp_path, Policy())
    states.fill(MADE_WITH)
    assert states.read([TRAINING[0]]) is None
    (notice,) = read_notices(tmp_path)
    assert "checksum" in notice


def test_states_that_no_plan_wants_are_removed(tmp_path) -> None:
    stored(tmp_path, Policy()).fill(MADE_WITH)
    policy = Policy()
    states = stored(tmp_path, policy, state_cache_gib=0)
    states.fill(MADE_WITH)
    assert policy.batches == []
    assert states.read([TRAINING[0]]) is None
    assert not (tmp_path / STATES).exists()


def test_the_end_of_the_stage_gives_the_disk_back(tmp_path) -> None:
    states = stored(tmp_path, Policy())
    states.fill(MADE_WITH)
    states.remove()
    assert not (tmp_path / STATES).exists()


def test_equal_responses_make_one() -> None:
    twice = [TRAINING[0], TRAINING[1], TRAINING[0]]
    assert batches_of_similar_length(twice, 2) == [[TRAINING[0], TRAINING[1]]]
