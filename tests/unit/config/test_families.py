"""The families that the checks accept are the families that a head can be attached to."""

from openrlhf_mtp.config.model_files import MODEL_TYPES
from openrlhf_mtp.heads.families import FAMILIES


def test_checks_and_heads_know_the_same_families():
    assert set(MODEL_TYPES) == set(FAMILIES)
