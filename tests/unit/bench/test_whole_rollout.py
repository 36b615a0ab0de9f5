"""The result of whole rollouts, and the options that lead there."""

import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from openrlhf_mtp.bench import whole_rollout, whole_setup
from openrlhf_mtp.bench.drafting import Drafting
from openrlhf_mtp.bench.requests import Request
from openrlhf_mtp.bench.rollout_arms import WholeRollout, context_of
from openrlhf_mtp.config.errors import JobError
from openrlhf_mtp.config.model_files import model_shape
from openrlhf_mtp.config.settings.mtp import MTPSettings

NOTE: dict[str, Any] = {
    "policy": "runs/quickstart/rl/final",
    "parameters": 284_000_000,
    "dtype": "bfloat16",
    "stand_in": None,
    "device": "CPU, 2 threads",
    "vllm": "0.29.0",
}
WORK = WholeRollout([Request((1,), 10), Request((1, 2), 30)], prefix_caching=True)
CONFIG = {
    "model_type": "qwen2",
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 32,
}


def run(seconds: float, **more: float) -> dict[str, float]:
    common = {
        "seconds": seconds,
        "seconds_per_token": seconds / 40,
        "tail_share": 0.5,
        "share_after_end": 0.1,
    }
    ends = {"completion_p50": seconds / 2, "completion_p95": seconds, "completion_max": seconds}
    return {**common, **ends, "tail_seconds": seconds / 2, "tokens_per_forward": 1.0, **more}


MEASURED = {
    "none": [run(10.0), run(20.0)],
    "head": [run(6.0, acceptance_rate=0.6), run(14.0, acceptance_rate=0.8)],
}


def test_an_arm_is_compared_with_none_turn_by_turn() -> None:
    ratio = whole_rollout.against_none(MEASURED, "head")
    assert (ratio.middle, ratio.low, ratio.high) == pytest.approx((0.65, 0.6, 0.7))


def test_the_record_keeps_every_rollout_and_the_medians() -> None:
    record = whole_rollout.to_record(MEASURED, WORK, NOTE)
    json.dumps(record)
    assert (record["sequences"], record["tokens"], record["lengths"]["max"]) == (2, 40, 30)
    head = record["arms"]["head"]
    assert [each["seconds"] for each in head["rollouts"]] == [6.0, 14.0]
    assert head["median"]["seconds"] == 10.0
    assert head["median"]["acceptance_rate"] == pytest.approx(0.7)
    assert head["seconds_over_none"]["median"] == pytest.approx(0.65)
    assert "acceptance_rate" not in record["arms"]["none"]["median"]


def test_the_tables_fit_a_terminal_and_say_what_was_measured() -> None:
    console = Console(width=80, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    for table in whole_rollout.render(whole_rollout.to_record(MEASURED, WORK, NOTE)):
        console.print(table)
    text = console.export_text()
    assert "284M parameters, bfloat16, CPU, 2 threads" in text
    assert "2 responses, 40 tokens" in text
    assert "-35.0 %" in text
    assert "-40.0 to -30.0" in text
    assert "250.00" in text, "milliseconds a token"
    assert all(len(line) <= 80 for line in text.splitlines())


@pytest.mark.parametrize("turns", [1, 3])
def test_an_odd_number_of_turns_is_refused(turns: int, tmp_path: Path) -> None:
    options = whole_setup.Options(4, "none,head", "10", turns=turns)
    with pytest.raises(JobError, match="expected an even number with --whole"):
        whole_setup.bench_whole_rollout("policy", tmp_path, options)


def test_what_is_wrong_with_the_words_is_said_before_a_model_is_looked_for(tmp_path: Path) -> None:
    for options, message in (
        (whole_setup.Options(4, "none,tree", "10"), "--arms: got 'tree'"),
        (whole_setup.Options(4, "none", "long"), "--lengths: got 'long'"),
        (whole_setup.Options(None, "none", "10", recorded=tmp_path / "no"), "--recorded: got"),
    ):
        with pytest.raises(JobError, match=message):
            whole_setup.bench_whole_rollout(str(tmp_path), tmp_path, options)


def test_the_cache_holds_every_sequence_in_full_length() -> None:
    # 2 (keys, values) x 2 heads x 16 wide x 4 bytes x 3 layers = 768 bytes a token; two pages of 128 tokens, one spare
    requests = [Request((1,) * 100, 20), Request((1,) * 100, 20)]
    found = whole_setup.cache_bytes(model_shape(CONFIG), requests, 3, 4, blocks=1)
    assert found == 3 * 128 * 768
    # with one draft more than fits, each sequence takes another page
    assert whole_setup.cache_bytes(model_shape(CONFIG), requests, 9, 4, blocks=1) == 5 * 128 * 768


def test_a_sequence_beyond_the_policys_context_is_refused_with_the_figures() -> None:
    arms = [Drafting("none", "none"), Drafting("head", "head"), Drafting("suffix", "suffix")]
    # 2 tokens of prompt, 30 of response, a suffix draft of 24, one more
    needed = context_of(WORK.requests, arms, 3)
    assert needed == 57
    assert context_of(WORK.requests, arms[:2], 3) == 36
    whole_setup.require_context({"max_position_embeddings": 57}, needed)
    whole_setup.require_context({}, needed)
    with pytest.raises(JobError, match=r"takes 57 tokens .* at most 56"):
        whole_setup.require_context({"max_position_embeddings": 56}, needed)


def test_an_engine_decodes_all_responses_at_once(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    mtp = MTPSettings.model_validate({"depths": 3, "rollout": {"dtype": "bfloat16"}})
    roomy = whole_setup.roomy(mtp, tmp_path, WORK, [Drafting("none", "none")])
    assert roomy.rollout.max_num_seqs == 2
    assert roomy.rollout.kv_cache_gib == pytest.approx(1.1 * 3 * 128 * 384 / 2**30)
