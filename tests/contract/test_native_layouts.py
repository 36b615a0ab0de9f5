"""The installed vLLM still names, orders and wires native heads as `config.native_layouts` says, by its source."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

from openrlhf_mtp.config.native_layouts import LAYOUTS

VLLM = Path(str(importlib.util.find_spec("vllm").origin)).parent
FILES = {
    "mimo": "mimo_mtp",
    "qwen3_5": "qwen3_5_mtp",
    "qwen3_next": "qwen3_next_mtp",
    "glm4_moe": "glm4_moe_mtp",
    "deepseek_v3": "deepseek_mtp",
}


def source(name: str) -> str:
    """A model file of the installed vLLM, without importing it: some need packages that a CPU host lacks."""
    return (VLLM / "model_executor" / "models" / f"{name}.py").read_text()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_vllm_builds_modules_of_these_names(layout):
    text, facts = source(FILES[layout]), LAYOUTS[layout]
    for name in (facts.hidden_norm, facts.token_norm, facts.proj, facts.final_norm):
        assert re.search(rf"self\.{name.split('.')[-1]} =", text), name
    if "shared_head" in facts.final_norm:
        assert "self.shared_head = SharedHead(" in text


@pytest.mark.parametrize("layout", LAYOUTS)
def test_vllm_joins_token_and_hidden_in_this_order(layout):
    (joined,) = re.findall(r"torch\.cat\(\s*\[(\w+), (\w+)\], dim=-1\s*\)", source(FILES[layout]))
    token_first = joined[0] == "inputs_embeds"
    assert set(joined) in ({"inputs_embeds", "hidden_states"}, {"inputs_embeds", "previous_hidden_states"})
    assert token_first == LAYOUTS[layout].token_first


@pytest.mark.parametrize("layout", LAYOUTS)
def test_vllm_hides_the_first_token_where_we_do(layout):
    assert (
        "positions == 0" in source(FILES[layout]) or "positions.unsqueeze(-1) == 0" in source(FILES[layout])
    ) == (LAYOUTS[layout].wiring.hides_first_token)


def test_mimo_reads_and_glm_chains_states_before_the_final_norm():
    model = source("mimo").split("class MiMoModel")[1].split("class MiMoForCausalLM")[0]
    assert "self.norm(" not in model
    assert "hidden_states = self.model.norm(hidden_states)" in source("mimo")
    glm = source("glm4_moe_mtp").split("class Glm4MoeMultiTokenPredictorLayer")[1].split("\nclass ")[0]
    assert "self.shared_head(hidden_states)" not in glm
    assert "return hidden_states, self.shared_head(hidden_states)" in source("deepseek_mtp")
    for layout in ("qwen3_5", "qwen3_next"):
        assert "hidden_states, _ = self.norm(hidden_states, residual)" in source(FILES[layout])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_vllm_takes_the_names_of_the_checkpoint(layout):
    text, facts = source(FILES[layout]), LAYOUTS[layout]
    if facts.root == "mtp.":
        assert 'name.startswith("mtp.")' in text
    elif facts.root == "model.mtp_layers.":
        assert 'f"model.mtp_layers.{i}."' in text
    else:
        assert "get_spec_layer_idx_from_weight_name(self.config, name)" in text
    assert facts.count_field in text


def test_vllm_chooses_the_head_by_architecture_or_model_type():
    text = (VLLM / "config" / "speculative.py").read_text()
    assert f'architectures[0] == "{LAYOUTS["mimo"].architecture}"' in text
    assert 'architectures[0] == "Glm4MoeForCausalLM"' in text
    for model_type in ("qwen3_next", "qwen3_5_text", "deepseek_v3"):
        assert f'"{model_type}"' in text


def test_vllm_names_its_draft_models_and_their_modules_as_the_sync_undoes_it():
    drafts = {name: facts for name, facts in LAYOUTS.items() if facts.draft_type is not None}
    assert drafts.keys() == LAYOUTS.keys() - {"mimo"}
    chosen = (VLLM / "config" / "speculative.py").read_text()
    for layout, facts in drafts.items():
        assert f'hf_config.model_type = "{facts.draft_type}"' in chosen
        if facts.root == "mtp.":
            assert facts.engine_names == (("model.", "mtp."),)
            assert 'name = name.replace("mtp.", "model.")' in source(FILES[layout])
        else:
            assert facts.engine_names == ((".mtp_block.", "."),)
            assert "self.mtp_block = " in source(FILES[layout])
