"""The requests of a whole rollout, made of prompts or read from a recorded one."""

import json
from pathlib import Path

import pytest

from openrlhf_mtp.bench.requests import Request, longest, read_recorded, shortened, with_lengths
from openrlhf_mtp.config.errors import JobError
from openrlhf_mtp.runlog.rollouts import RecordedResponse, rollout_file, write_rollouts


def test_neighbors_share_a_prompt_as_the_samples_of_a_group() -> None:
    requests = with_lengths([[1], [2, 3]], [5, 6, 7, 8])
    assert [each.prompt for each in requests] == [(1,), (1,), (2, 3), (2, 3)]
    assert [each.tokens for each in requests] == [5, 6, 7, 8]
    assert longest(requests) == 10


def test_more_prompts_than_responses_are_taken_from_all_over() -> None:
    assert [each.prompt for each in with_lengths([[1], [2], [3], [4]], [5, 5])] == [(1,), (3,)]


def test_a_recorded_rollout_gives_its_prompts_and_lengths(tmp_path: Path) -> None:
    responses = [
        RecordedResponse("a", "b", (7, 8, 1, 2, 3), ((2, 5),), 1.0, 0.5),
        RecordedResponse("a", "b", (7, 8, 4), ((2, 3),), 0.0, -0.5),
    ]
    write_rollouts(tmp_path, 3, responses)
    file = rollout_file(tmp_path, 3)
    assert read_recorded(file) == [Request((7, 8), 3, (1, 2, 3)), Request((7, 8), 1, (4,))]
    assert len(read_recorded(file, 1)) == 1
    with pytest.raises(JobError, match="with 2 responses, expected 3"):
        read_recorded(file, 3)


@pytest.mark.parametrize(
    "row",
    [
        {"ids": [1, 2]},
        {"ids": [1, 2], "sampled": []},
        {"ids": [1, 2, 3, 4], "sampled": [[1, 2], [3, 4]]},
        {"ids": [1, 2], "sampled": [[0, 2]]},
        {"ids": [1, 2], "sampled": [[1, 3]]},
        {"ids": ["x", 2], "sampled": [[1, 2]]},
        [1, 2],
    ],
)
def test_lines_of_another_form_are_refused_with_the_file(tmp_path: Path, row: object) -> None:
    file = tmp_path / "step.jsonl"
    file.write_text(json.dumps(row) + "\n")
    with pytest.raises(JobError, match=r"--recorded: got .*step\.jsonl, expected"):
        read_recorded(file)


def test_a_file_that_is_empty_or_missing_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    with pytest.raises(JobError, match="0 responses, expected at least 1"):
        read_recorded(tmp_path / "empty")
    with pytest.raises(JobError, match="FileNotFoundError"):
        read_recorded(tmp_path / "none")


def test_a_warm_up_has_the_same_prompts_and_short_responses() -> None:
    assert shortened([Request((1,), 80), Request((2,), 3)], factor=8) == [Request((1,), 10), Request((2,), 2)]
