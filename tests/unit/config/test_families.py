"""One table of families: what `check` accepts, and which of them RL can train with a head."""

import json
import re
from pathlib import Path

import pytest

from openrlhf_mtp.config.families import FAMILIES, NATIVE_FAMILIES, RL_FAMILIES, family_of
from openrlhf_mtp.config.native_layouts import BUILT_IN, LAYOUTS
from tests.engine import tiny as on_engines
from tests.unit.config.equipped import HEAD, TRUNK
from tests.unit.heads import tiny as beside_transformers


@pytest.mark.parametrize("name", [*FAMILIES, *NATIVE_FAMILIES])
def test_check_accepts_all_families_for_pretraining_and_those_that_can_be_sent_for_rl(problems, folder, name):
    own, count = {**HEAD["mtp"], "trunk_model_type": name}, {}
    if name in NATIVE_FAMILIES:
        (layout,) = (one for one in LAYOUTS.values() if name in one.model_types)
        own["layout"], count = layout.name, {layout.count_field: 1}
    policy = {**TRUNK, "model_type": name, **EXPERTS, **count}
    (folder / "policy" / "config.json").write_text(json.dumps(policy))
    (folder / "policy" / "mtp" / "config.json").write_text(json.dumps({**HEAD, "mtp": own}))
    assert problems(trains_policy=False) == []
    refused = [text for text in problems() if "error: actor.model_name_or_path" in text]
    assert bool(refused) == (name not in RL_FAMILIES)


@pytest.mark.parametrize(
    ("override", "text"),
    [
        ("vllm.tensor_parallel_size=2", "got 2, expected 1 for glm4_moe"),
        ("ds.lora.rank=8", "got 8, expected 0 for glm4_moe"),
        ("train.async_enable=true", "got true, expected false for glm4_moe"),
        ("mtp.regime=joint_policy", "got joint_policy, expected detach for glm4_moe"),
        (None, None),
    ],
)
def test_modes_that_a_draft_model_of_vllms_has_not_run_in_are_refused(problems, folder, override, text):
    native = {"model_type": "glm4_moe", "num_nextn_predict_layers": 1}
    own = {**HEAD["mtp"], "trunk_model_type": "glm4_moe", "layout": "glm4_moe"}
    (folder / "policy" / "config.json").write_text(json.dumps({**TRUNK, **native}))
    (folder / "policy" / "mtp" / "config.json").write_text(json.dumps({**HEAD, "mtp": own}))
    overrides = [] if override is None else [override]
    found = [one for one in problems(*overrides, gpus=8) if "vLLM's own draft model" in one]
    assert len(found) == len(overrides)
    assert all(text in one and one.startswith(f"error: {override.split('=')[0]}:") for one in found)


@pytest.mark.parametrize("count", [None, 0, 2])
def test_a_policy_by_whose_configuration_vllm_would_build_another_draft_is_refused(problems, folder, count):
    own = {**HEAD["mtp"], "trunk_model_type": "glm4_moe", "layout": "glm4_moe"}
    policy = {**TRUNK, "model_type": "glm4_moe", "num_nextn_predict_layers": count}
    (folder / "policy" / "config.json").write_text(json.dumps(policy))
    (folder / "policy" / "mtp" / "config.json").write_text(json.dumps({**HEAD, "mtp": own}))
    (text,) = (one for one in problems() if "vLLM builds the draft model by it" in one)
    assert f"has num_nextn_predict_layers {count}, expected 1" in text


EXPERTS = {"num_experts": 4, "moe_intermediate_size": 32}


ADAPTERS = "ds.lora.target_modules"


@pytest.mark.parametrize(
    ("overrides", "refused"),
    [
        ([], "all-linear"),
        ([f"{ADAPTERS}=[q_proj, gate_proj, up_proj]"], "gate_proj, up_proj"),
        ([f"{ADAPTERS}=[q_proj, o_proj]"], None),
        (["ds.lora.rank=0"], None),
    ],
)
def test_adapters_of_experts_are_refused(problems, folder, overrides, refused):
    own = {**HEAD["mtp"], "trunk_model_type": "qwen3_moe"}
    config = {**TRUNK, "model_type": "qwen3_moe", **EXPERTS}
    (folder / "policy" / "config.json").write_text(json.dumps(config))
    (folder / "policy" / "mtp" / "config.json").write_text(json.dumps({**HEAD, "mtp": own}))
    found = [text for text in problems("ds.lora.rank=8", *overrides) if ADAPTERS in text]
    if refused is None:
        assert found == []
    else:
        (text,) = found
        assert text.startswith(f"error: {ADAPTERS}: got {refused}, expected some of q_proj, k_proj")


DENSE = {name for name, family in FAMILIES.items() if not family.has_experts}


def test_one_family_has_experts_and_a_dense_head():
    assert set(FAMILIES) - DENSE == {"qwen3_moe"}
    assert not set(FAMILIES) & set(NATIVE_FAMILIES)


def test_every_layout_is_of_a_family_of_the_table():
    for layout in LAYOUTS.values():
        assert family_of(BUILT_IN.get(layout.model_types[0], layout.model_types[0]))
    assert BUILT_IN == {"mimo": "qwen2"}


def test_every_rl_family_is_tested_for_parity_drafting_and_sync():
    assert set(beside_transformers.FAMILIES) == DENSE, "the block of the others is one of theirs"
    assert {case["model_type"] for case in on_engines.FAMILIES.values()} == DENSE
    assert on_engines.WITH_EXPERTS["model_type"] == "qwen3_moe"
    rounds = Path(on_engines.__file__).with_name("test_sync_round.py").read_text(encoding="utf-8")
    assert set(re.findall(r'FAMILIES\["(\w+)"\], 1\)', rounds)) == DENSE
    assert "MANY_EXPERTS = {**WITH_EXPERTS," in rounds
    assert '"experts": (sync_experts, MANY_EXPERTS)' in rounds
    drafts = Path(on_engines.__file__).with_name("test_draft_parity.py").read_text(encoding="utf-8")
    assert '"qwen3_moe": (WITH_EXPERTS, {})' in drafts
