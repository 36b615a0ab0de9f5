"""The families that the checks accept are the families that a head can be attached to."""

from openrlhf_mtp.config.model_files import MODEL_TYPES, NATIVE_TYPES, WITH_EXPERTS
from openrlhf_mtp.heads.families import FAMILIES, NATIVE_FAMILIES


def test_checks_and_heads_know_the_same_families():
    assert set(MODEL_TYPES) == set(FAMILIES)
    assert set(NATIVE_TYPES) == set(NATIVE_FAMILIES)
    assert {name for name, family in FAMILIES.items() if family.block_type is not None} == set(WITH_EXPERTS)
