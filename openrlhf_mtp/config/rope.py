"""Rotary positions as a `config.json` describes them, and how long a context they allow.

transformers 5 writes `rope_parameters`, older versions `rope_theta` and `rope_scaling`; both are read here.
"""

from collections.abc import Mapping
from typing import Any

Angles = dict[str, Any]
"""`rope_type`, `rope_theta` and what the type needs (`factor`, ...), without what is unset."""

_SCALED_IN_THE_CONFIG = ("default", "su", "longrope", "llama3")
"""Types whose `max_position_embeddings` is the scaled length already; vLLM 0.29 (`_get_and_verify_max_len`)."""


def angles(config: Mapping[str, Any]) -> dict[str, Angles]:
    """The angles by kind of layer; one kind, "", where all layers turn alike."""
    given = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if not isinstance(given, Mapping):
        return {}
    kinds = given if given and all(isinstance(one, Mapping) for one in given.values()) else {"": given}
    return {kind: _angles(one, config) for kind, one in kinds.items()}


def context_limit(config: Mapping[str, Any]) -> int | None:
    """Longest sequence in tokens that vLLM serves the model with, None when the config does not say.

    With YaRN it is the length before scaling times the factor, whatever `max_position_embeddings` says.
    """
    limit = config.get("max_position_embeddings")
    if not isinstance(limit, int) or isinstance(limit, bool):
        return None
    factor = 1.0
    for one in angles(config).values():
        if one["rope_type"] in _SCALED_IN_THE_CONFIG:
            continue
        factor = one.get("factor", factor)
        if one["rope_type"] == "yarn":
            limit = one.get("original_max_position_embeddings", limit)
    return int(limit * factor)


def _angles(given: Mapping[str, Any], config: Mapping[str, Any]) -> Angles:
    theta = given.get("rope_theta") or config.get("rope_theta") or 10_000.0
    kind = given.get("rope_type") or given.get("type") or "default"
    rest = {name: value for name, value in given.items() if value is not None and name != "type"}
    return {**rest, "rope_type": kind, "rope_theta": float(theta)}
