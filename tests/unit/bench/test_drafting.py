"""The arms of a whole rollout: their names, what an engine gets, and what is refused."""

import sys
from pathlib import Path

import pytest

from openrlhf_mtp.bench import drafting, rollout_engine
from openrlhf_mtp.bench.drafting import Drafting, parse_arms, require
from openrlhf_mtp.config.errors import JobError
from openrlhf_mtp.config.head_contract import WHOLE_POLICY
from openrlhf_mtp.config.settings.mtp import MTPSettings
from openrlhf_mtp.rollout.environment import V2_RUNNER

HEAD = Path("models/tiny/mtp")
MTP = MTPSettings.model_validate({"depths": 3, "rollout": {"dtype": "float32"}})


def test_arms_are_named_in_the_order_given() -> None:
    assert parse_arms("none, head,ngram,ngram:3:5,suffix,frozen=a/b", HEAD) == (
        Drafting("none", "none"),
        Drafting("head", "head", HEAD),
        Drafting("ngram", "ngram"),
        Drafting("ngram:3:5", "ngram", window=(3, 5)),
        Drafting("suffix", "suffix"),
        Drafting("frozen", "head", Path("a/b")),
    )


def test_arms_are_compared_on_one_model_runner(monkeypatch: pytest.MonkeyPatch) -> None:
    arms = parse_arms("none,head,ngram,suffix", HEAD)
    assert [arm.needs_v1_runner for arm in arms] == [False, False, True, True]
    monkeypatch.setattr(rollout_engine.os, "environ", {})
    rollout_engine.prepare_process(on_cpu=False)
    assert V2_RUNNER not in rollout_engine.os.environ
    rollout_engine.prepare_process(on_cpu=False, v1_runner=True)
    assert rollout_engine.os.environ[V2_RUNNER] == "0"


@pytest.mark.parametrize("word", ["", "eagle", "ngram:5:3", "ngram:0:3", "ngram:3", "ngram:a:b", "=a", "x="])
def test_an_arm_that_is_none_is_refused(word: str) -> None:
    with pytest.raises(JobError, match="expected none, head, ngram"):
        parse_arms(f"none,{word}", HEAD)


def test_a_name_twice_is_refused() -> None:
    with pytest.raises(JobError, match="each name once"):
        parse_arms("none,head,head", HEAD)


def test_arms_without_the_one_they_are_compared_with_are_refused() -> None:
    with pytest.raises(JobError, match="expected none among them"):
        parse_arms("head,ngram", HEAD)


def test_without_a_head_an_engine_gets_vllms_own_method() -> None:
    plain, ngram, suffix = (
        Drafting(name, name).overrides(MTP, "policy", WHOLE_POLICY) for name in ("none", "ngram", "suffix")
    )
    assert plain["speculative_config"] is None
    assert ngram["speculative_config"] == {
        "method": "ngram",
        "num_speculative_tokens": 3,
        "prompt_lookup_min": 2,
        "prompt_lookup_max": 4,
        "rejection_sample_method": "standard",
    }
    assert suffix["speculative_config"] == {
        "method": "suffix",
        "num_speculative_tokens": 24,
        "rejection_sample_method": "standard",
    }
    for drafted in (ngram, suffix):
        own = {"speculative_config", "per_request_spec_decode_metrics"}
        assert {name: value for name, value in drafted.items() if name not in own} == {
            name: value for name, value in plain.items() if name not in own
        }, "arms differ in their drafts alone"


def test_suffix_drafts_without_their_package_are_refused_with_the_way_to_get_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "arctic_inference", None)
    require(parse_arms("none,ngram", HEAD))
    with pytest.raises(JobError, match=r"arctic-inference cannot be imported.*arctic-inference==0\.3\.0"):
        require(parse_arms("none,suffix", HEAD))


def test_the_longest_drafts() -> None:
    depths = {
        method: Drafting("x", method).longest_draft(3) for method in ("none", "head", "ngram", "suffix")
    }
    assert depths == {"none": 0, "head": 3, "ngram": 3, "suffix": drafting.SUFFIX_LIMIT}
