"""A family's classes in transformers, imported when a head is built."""

from importlib import import_module
from typing import Any

from openrlhf_mtp.config.families import Family


def layer_class(family: Family) -> type[Any]:
    """The decoder layer."""
    return _class(family, "DecoderLayer")


def norm_class(family: Family) -> type[Any]:
    """The RMSNorm of the family."""
    return _class(family, "RMSNorm")


def rotary_class(family: Family) -> type[Any]:
    """The rotary embedding, which knows the family's RoPE scaling."""
    return _class(family, family.rotary)


def normalizes_qk(family: Family, config: Any) -> bool:
    """Whether a block of this configuration normalizes queries and keys; GLM-4.5's sizes differ in it."""
    return family.normalizes_qk or bool(vars(config).get("use_qk_norm", False))


def _class(family: Family, suffix: str) -> type[Any]:
    name = family.module or family.model_type
    module = import_module(f"transformers.models.{name}.modeling_{name}")
    found: type[Any] = vars(module)[family.class_prefix + suffix]
    return found
