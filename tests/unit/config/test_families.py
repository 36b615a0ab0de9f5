"""One table of families: what `check` accepts, and which of them RL can train with a head."""

import json
import re
from pathlib import Path

import pytest

from openrlhf_mtp.config.families import DENSE, FAMILIES, NATIVE_FAMILIES, family_of
from openrlhf_mtp.config.native_layouts import BUILT_IN, LAYOUTS
from tests.engine import tiny as on_engines
from tests.unit.config.equipped import HEAD, TRUNK
from tests.unit.heads import tiny as beside_transformers


@pytest.mark.parametrize("name", [*FAMILIES, *NATIVE_FAMILIES])
def test_check_accepts_all_families_for_pretraining_and_dense_ones_for_rl(problems, folder, name):
    own = {**HEAD["mtp"], "trunk_model_type": name}
    (folder / "policy" / "config.json").write_text(json.dumps({**TRUNK, "model_type": name, **EXPERTS}))
    (folder / "policy" / "mtp" / "config.json").write_text(json.dumps({**HEAD, "mtp": own}))
    assert problems(trains_policy=False) == []
    refused = [text for text in problems() if "error: actor.model_name_or_path" in text]
    assert bool(refused) == (name not in DENSE)


EXPERTS = {"num_experts": 4, "moe_intermediate_size": 32}


def test_the_families_with_experts_are_left_out_of_rl():
    assert {name for name in FAMILIES if name not in DENSE} == {"qwen3_moe"}
    assert not set(FAMILIES) & set(NATIVE_FAMILIES)


def test_every_layout_is_of_a_family_of_the_table():
    for layout in LAYOUTS.values():
        assert family_of(BUILT_IN.get(layout.model_types[0], layout.model_types[0]))
    assert BUILT_IN == {"mimo": "qwen2"}


def test_every_rl_family_is_tested_for_parity_drafting_and_sync():
    assert set(beside_transformers.FAMILIES) == set(DENSE)
    assert {case["model_type"] for case in on_engines.FAMILIES.values()} == set(DENSE)
    rounds = Path(on_engines.__file__).with_name("test_sync_round.py").read_text(encoding="utf-8")
    assert set(re.findall(r'FAMILIES\["(\w+)"\], 1\)', rounds)) == set(DENSE)
