"""Hidden states on disk: what is read is what was written, or nothing is read."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from openrlhf_mtp.training.pretrain import state_store
from openrlhf_mtp.training.pretrain.responses import Response
from openrlhf_mtp.training.pretrain.state_store import DamagedError, StateStore, length, stored_bytes

WIDTH = 6
MADE_WITH = {"policy": "a"}


def responses_of(lengths: list[int]) -> list[Response]:
    return [Response(number, (1,), tuple(range(n - 1))) for number, n in enumerate(lengths)]


def states_of(response: Response, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(response.prompt)
    return torch.randn(length(response), WIDTH, generator=generator).to(dtype)


def opened(folder: Path, responses: list[Response], dtype: torch.dtype = torch.float32) -> StateStore:
    state_store.prepare(folder, MADE_WITH)
    return StateStore(folder, responses, WIDTH, dtype)


@given(
    st.lists(st.integers(1, 9), min_size=1, max_size=6),
    st.sampled_from([torch.float32, torch.bfloat16, torch.float16]),
    st.randoms(),
)
def test_states_come_back_bit_for_bit_padded_with_zeros(tmp_path_factory, lengths, dtype, random) -> None:
    folder = tmp_path_factory.mktemp("run") / "states"
    responses = responses_of(lengths)
    writer, reader = opened(folder, responses, dtype), opened(folder, responses, dtype)
    shuffled = random.sample(responses, len(responses))
    for response in shuffled:
        assert response not in reader
        writer.write(response, states_of(response, dtype))
        assert response in reader, "another rank sees it at once"
    read = reader.read(shuffled)
    assert read.shape == (len(responses), max(lengths), WIDTH)
    for row, response in enumerate(shuffled):
        assert torch.equal(read[row, : length(response)], states_of(response, dtype))
        assert not read[row, length(response) :].any()
    assert (folder / "states.bin").stat().st_size == stored_bytes(responses, WIDTH, dtype)


def test_equal_responses_are_stored_once(tmp_path) -> None:
    one = Response(0, (1,), (2, 3))
    store = opened(tmp_path / "states", [one, Response(0, (1,), (2, 3))])
    store.write(one, states_of(one))
    assert torch.equal(store.read([one, one])[0], store.read([one, one])[1])
    assert stored_bytes([one, one], WIDTH, torch.float32) == 3 * WIDTH * 4


def test_states_survive_the_process_and_not_another_policy(tmp_path) -> None:
    responses = responses_of([4, 2])
    first = opened(tmp_path / "states", responses)
    first.write(responses[1], states_of(responses[1]))
    first.close()
    again = opened(tmp_path / "states", responses)
    assert responses[0] not in again
    assert torch.equal(again.read([responses[1]])[0], states_of(responses[1]))
    state_store.prepare(tmp_path / "states", {"policy": "b"})
    assert responses[1] not in StateStore(tmp_path / "states", responses, WIDTH, torch.float32)


@pytest.mark.parametrize("at", [0, -1], ids=["first byte", "last byte"])
def test_a_flipped_bit_is_noticed(tmp_path, at) -> None:
    responses = responses_of([5, 3])
    writer = opened(tmp_path / "states", responses)
    for response in responses:
        writer.write(response, states_of(response))
    path = tmp_path / "states" / "states.bin"
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)
    reader = opened(tmp_path / "states", responses)
    damaged, whole = (responses[0], responses[1]) if at == 0 else (responses[1], responses[0])
    assert torch.equal(reader.read([whole])[0], states_of(whole))
    with pytest.raises(DamagedError, match="checksum"):
        reader.read([whole, damaged])


def test_a_file_that_was_cut_is_noticed(tmp_path) -> None:
    responses = responses_of([5, 3])
    writer = opened(tmp_path / "states", responses)
    for response in responses:
        writer.write(response, states_of(response))
    os.truncate(tmp_path / "states" / "states.bin", 10)
    with pytest.raises(DamagedError, match="ends before"):
        opened(tmp_path / "states", responses).read([responses[1]])


def test_a_response_of_which_only_the_states_were_written_is_not_there(tmp_path) -> None:
    """The process was killed between the two writes."""
    responses = responses_of([5])
    opened(tmp_path / "states", responses).write(responses[0], states_of(responses[0]))
    os.truncate(tmp_path / "states" / "checksums.bin", 0)
    assert responses[0] not in opened(tmp_path / "states", responses)
