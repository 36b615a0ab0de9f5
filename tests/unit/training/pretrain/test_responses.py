"""Responses on disk: what is reused must be what was asked for, and no prompt may be trained and tested on."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openrlhf_mtp.training.pretrain.responses import (
    Response,
    ResponseCache,
    policy_fingerprint,
    prompts_fingerprint,
    read_responses,
    split_by_prompt,
)

token_ids = st.lists(st.integers(0, 1 << 17), max_size=6).map(tuple)
responses = st.lists(st.builds(Response, st.integers(0, 40), token_ids, token_ids), max_size=60)


def one(prompt: int) -> Response:
    return Response(prompt, (1, 2), (3, 4))


@given(responses, st.floats(0.001, 0.999))
def test_a_prompt_is_never_both_trained_on_and_held_out(given_responses, fraction):
    prompts = {r.prompt for r in given_responses}
    if len(prompts) < 2:
        with pytest.raises(ValueError, match=f"responses to {len(prompts)} prompts, expected 2 or more"):
            split_by_prompt(given_responses, fraction)
        return
    train, held_out = split_by_prompt(given_responses, fraction)
    assert train
    assert held_out
    assert {r.prompt for r in train}.isdisjoint(r.prompt for r in held_out)
    assert sorted(map(repr, train + held_out)) == sorted(map(repr, given_responses))


@given(st.integers(2, 400), st.floats(0.01, 0.5))
def test_the_share_held_out_is_about_the_share_asked_for(count, fraction):
    _, held_out = split_by_prompt([one(prompt) for prompt in range(count)], fraction)
    # every n-th prompt for a whole n next to 1 / fraction, rounded down, but at least one
    smallest, largest = count / (1 / fraction + 0.5) - 1, count / (1 / fraction - 0.5)
    assert max(1, smallest) <= len(held_out) <= max(1, largest)


def test_the_split_does_not_change_when_samples_per_prompt_do():
    few = [one(prompt) for prompt in range(20)]
    _, held_out_few = split_by_prompt(few, 0.2)
    _, held_out_many = split_by_prompt(few * 3, 0.2)
    assert {r.prompt for r in held_out_few} == {r.prompt for r in held_out_many} == {4, 9, 14, 19}


@given(responses)
def test_what_is_written_is_read_back_in_order_of_shards(tmp_path_factory, given_responses):
    folder = tmp_path_factory.mktemp("responses")
    cache = ResponseCache(folder, {})
    half = len(given_responses) // 2
    cache.write(1, given_responses[half:])
    cache.write(0, given_responses[:half])
    assert cache.read() == list(read_responses(folder)) == given_responses


def test_only_missing_shards_are_generated_again(tmp_path):
    cache = ResponseCache(tmp_path, {"policy": "a"})
    assert cache.missing(3) == [0, 1, 2]
    cache.write(1, [one(7)])
    assert ResponseCache(tmp_path, {"policy": "a"}).missing(3) == [0, 2]


def test_a_shard_that_was_cut_off_while_written_does_not_count(tmp_path):
    cache = ResponseCache(tmp_path, {})
    (tmp_path / ".shard-00000.jsonl.partial").write_text('{"prompt": 0, "prompt')
    assert cache.missing(1) == [0]
    assert cache.read() == []


def test_responses_of_another_policy_or_sampling_are_thrown_away(tmp_path):
    ResponseCache(tmp_path, {"policy": "a", "temperature": 1.0}).write(0, [one(0)])
    changed = ResponseCache(tmp_path, {"policy": "a", "temperature": 0.7})
    assert changed.missing(1) == [0]
    assert changed.read() == []


def test_the_order_of_settings_does_not_matter(tmp_path):
    ResponseCache(tmp_path, {"a": 1, "b": 2}).write(0, [one(0)])
    assert ResponseCache(tmp_path, {"b": 2, "a": 1}).missing(1) == []


def policy_folder(folder: Path) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"hidden_size": 8}))
    (folder / "model.safetensors").write_bytes(bytes(range(256)) * 4096 * 3)
    (folder / "README.md").write_text("a note")
    return folder


def test_a_policy_is_recognised_after_a_copy(tmp_path):
    first, second = policy_folder(tmp_path / "a"), policy_folder(tmp_path / "b")
    assert policy_fingerprint(str(first)) == policy_fingerprint(str(second))


@pytest.mark.parametrize("at", [0, 3 * (1 << 20) - 1], ids=["first byte", "last byte"])
def test_changed_weights_are_another_policy(tmp_path, at):
    folder = policy_folder(tmp_path / "policy")
    before = policy_fingerprint(str(folder))
    weights = bytearray((folder / "model.safetensors").read_bytes())
    weights[at] ^= 1
    (folder / "model.safetensors").write_bytes(bytes(weights))
    assert policy_fingerprint(str(folder)) != before


def test_a_changed_configuration_is_another_policy_but_a_note_or_a_head_is_not(tmp_path):
    folder = policy_folder(tmp_path / "policy")
    before = policy_fingerprint(str(folder))
    (folder / "README.md").write_text("another note")
    (folder / "mtp").mkdir()
    (folder / "mtp" / "model.safetensors").write_bytes(b"a head")
    assert policy_fingerprint(str(folder)) == before
    (folder / "config.json").write_text(json.dumps({"hidden_size": 16}))
    assert policy_fingerprint(str(folder)) != before


def test_prompts_differ_by_content_by_order_and_by_where_one_ends():
    base = prompts_fingerprint([[1, 2], [3]])
    assert base == prompts_fingerprint([(1, 2), (3,)])
    assert len({base, prompts_fingerprint([[3], [1, 2]]), prompts_fingerprint([[1], [2, 3]])}) == 3
