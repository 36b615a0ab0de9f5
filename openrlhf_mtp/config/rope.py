"""Rotary positions as a `config.json` describes them, and how long a context they allow.

transformers 5 writes `rope_parameters`, older versions `rope_theta` and `rope_scaling`; both are read here.
"""

import math
from collections.abc import Mapping
from typing import Any

from openrlhf_mtp.config.errors import JobError
from openrlhf_mtp.config.reading.values import UnfitError, number, shown

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
        factor = _number(one, "factor", factor)
        if one["rope_type"] == "yarn":
            limit = _number(one, "original_max_position_embeddings", limit)
    return int(limit * factor)


def _angles(given: Mapping[str, Any], config: Mapping[str, Any]) -> Angles:
    theta = _number(given, "rope_theta", 0) or _number(config, "rope_theta", 0) or 10_000.0
    kind = given.get("rope_type") or given.get("type") or "default"
    rest = {name: value for name, value in given.items() if value is not None and name != "type"}
    return {**rest, "rope_type": kind, "rope_theta": theta}


def _number(given: Mapping[str, Any], name: str, otherwise: float) -> float:
    """A number above 0; `otherwise` where there is none."""
    value = given.get(name)
    if value is None:
        return otherwise
    try:
        result = number(value)
    except UnfitError:
        result = 0.0
    if not 0 < result < math.inf:
        raise JobError(f"the model's config.json: {name}: got {shown(value)}, expected a number above 0")
    return result
