"""The contract as `rollout` asks for it, before any process is started."""

import json
from pathlib import Path

import pytest

from openrlhf_mtp.config.errors import JobErrors
from openrlhf_mtp.config.head_contract import Sampling, caching_problems, drafting_problems, require
from openrlhf_mtp.config.settings.mtp import MTPSettings
from tests.unit.config.head_contract.equipped_folder import HEAD, POLICY, folders, settings


def test_drafts_that_would_not_follow_the_policy_are_refused(tmp_path: Path) -> None:
    root = folders(tmp_path, HEAD)
    with pytest.raises(JobErrors, match="got synthetic, expected standard"):
        require(settings(rejection_sample_method="synthetic"), str(root), Sampling())


def test_what_only_costs_speed_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    mtp = MTPSettings.model_validate(
        {
            "objective": "ce",
            "pretrain": {"objective": "ce"},
            "rollout": {"draft_sample_method": "greedy"},
        }
    )
    require(mtp, str(folders(tmp_path, HEAD)), Sampling())
    assert "acceptance falls as entropy grows" in caplog.text


def test_the_default_job_is_lossless_and_silent(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert list(drafting_problems(MTPSettings())) == []
    require(MTPSettings(), str(folders(tmp_path, HEAD)), Sampling())
    assert caplog.text == ""


def test_every_mismatch_is_named_with_both_values(tmp_path: Path) -> None:
    mtp = {**HEAD["mtp"], "trunk_model_type": "llama", "num_layers": 2}
    root = folders(tmp_path, {**HEAD, "hidden_size": 128, "vocab_size": 99, "mtp": mtp})
    with pytest.raises(JobErrors) as caught:
        require(MTPSettings(), str(root), Sampling())
    message = str(caught.value)
    assert "hidden_size: the head has 128, the policy 64" in message
    assert "vocab_size: the head has 99, the policy 100" in message
    assert "model_type: the head has llama, the policy qwen2" in message
    assert "mtp.num_blocks: got 1, expected the head's own number of blocks, 2" in message


def test_an_ordinary_model_is_not_a_head(tmp_path: Path) -> None:
    root = folders(tmp_path, {**POLICY, "architectures": ["Qwen2ForCausalLM"]})
    with pytest.raises(
        JobErrors, match=r"this is not a head: .* this one has \['Qwen2ForCausalLM'\] and no mtp"
    ):
        require(MTPSettings(), str(root), Sampling())


def test_a_head_of_another_format_is_refused(tmp_path: Path) -> None:
    root = folders(tmp_path, {**HEAD, "mtp": {**HEAD["mtp"], "format": 2}})
    with pytest.raises(JobErrors, match="got head format 2, expected 1; equip the model again"):
        require(MTPSettings(), str(root), Sampling())


@pytest.mark.parametrize("name", ["depths", "num_layers", "trunk_model_type"])
def test_a_damaged_head_names_what_it_lacks(tmp_path: Path, name: str) -> None:
    own = {key: value for key, value in HEAD["mtp"].items() if key != name}
    root = folders(tmp_path, {**HEAD, "mtp": own})
    with pytest.raises(JobErrors, match=rf"the mtp entry of its config\.json is damaged \({name}\)"):
        require(MTPSettings(), str(root), Sampling())


def test_a_missing_head_names_the_folder_and_the_command(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(POLICY))
    words = r"mtp is not a head's folder: config\.json and model\.safetensors are missing; make a head with"
    with pytest.raises(JobErrors, match=words):
        require(MTPSettings(), str(tmp_path), Sampling())


def test_a_head_without_weights_names_the_file(tmp_path: Path) -> None:
    root = folders(tmp_path, HEAD)
    (root / "mtp" / "model.safetensors").unlink()
    with pytest.raises(JobErrors, match=r"is not a head's folder: model\.safetensors is missing"):
        require(MTPSettings(), str(root), Sampling())


def test_a_missing_policy_names_the_folder_and_the_command(tmp_path: Path) -> None:
    with pytest.raises(
        JobErrors, match=r"is not a model folder: it has no config\.json; run openrlhf-mtp equip"
    ):
        require(MTPSettings(), str(tmp_path / "none"), Sampling())


def test_a_policy_of_the_hub_that_is_not_cached_is_not_judged(tmp_path: Path) -> None:
    root = folders(tmp_path, HEAD)
    mtp = MTPSettings(head=str(root / "mtp"))
    require(mtp, "nobody/has-this-model", Sampling())


@pytest.mark.parametrize("family", ["qwen3_next", "qwen3_5_text"])
def test_cached_prompts_and_drafts_exclude_each_other_with_linear_attention(family: str) -> None:
    (found,) = caching_problems(True, {"model_type": family}, True)
    assert found.level == "error"
    assert f"expected false where engines draft for {family}" in found.text


@pytest.mark.parametrize(
    ("drafts", "family", "caches"),
    [
        (False, "qwen3_next", True),
        (True, "qwen3_next", False),
        (True, "glm4_moe", True),
        (True, "qwen3", True),
    ],
)
def test_either_alone_or_full_attention_is_no_problem(drafts: bool, family: str, caches: bool) -> None:
    assert list(caching_problems(drafts, {"model_type": family}, caches)) == []
    assert list(caching_problems(True, None, True)) == [], "a policy that is not here is not judged"
