"""The trunk families a head can be attached to, each by its own decoder layer in transformers and in vLLM.

A family fits when its block's decoder layer is `x + attention(norm(x))` then `x + mlp(norm(x))`, with separate q, k, v
and o projections, rotary positions and full attention. Only names here: nothing heavy is imported before a class is
asked for.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any


@dataclass(frozen=True)
class Family:
    """One model family.

    Attributes:
        model_type: the name in a checkpoint's config.json.
        class_prefix: what the class names of its block's layer in transformers begin with.
        vllm_layer: vLLM's decoder layer for our draft class, "module:Class"; None if only vLLM's own `method: mtp`
            serves a head of this family.
        module: the model type in whose module those classes are, if it is not this one.
        block_type: the model type of the block's configuration, if it is not the trunk's: a trunk with experts gets a
            dense block of its dense sibling.
        rotary: the last part of the rotary embedding's class name.
        normalizes_qk: queries and keys are normalized by head before the rotation.
        gates_attention: q_proj also computes a gate for each channel of the attention's output.
        compresses_attention: keys and values come from a shared compressed projection (`latent.py`).
        norm_identity: the norm weight that scales by one.
    """

    model_type: str
    class_prefix: str
    vllm_layer: str | None = None
    module: str | None = None
    block_type: str | None = None
    rotary: str = "RotaryEmbedding"
    normalizes_qk: bool = False
    gates_attention: bool = False
    compresses_attention: bool = False
    norm_identity: float = 1.0

    def _hf_class(self, suffix: str) -> type[Any]:
        name = self.module or self.model_type
        module = import_module(f"transformers.models.{name}.modeling_{name}")
        found: type[Any] = vars(module)[self.class_prefix + suffix]
        return found

    def hf_layer_class(self) -> type[Any]:
        """The decoder layer in transformers."""
        return self._hf_class("DecoderLayer")

    def hf_norm_class(self) -> type[Any]:
        """The RMSNorm in transformers."""
        return self._hf_class("RMSNorm")

    def hf_rotary_class(self) -> type[Any]:
        """The rotary embedding in transformers, which knows the family's RoPE scaling."""
        return self._hf_class(self.rotary)


_VLLM = "vllm.model_executor.models"
_QWEN3_LAYER = f"{_VLLM}.qwen3:Qwen3DecoderLayer"

FAMILIES: dict[str, Family] = {
    family.model_type: family
    for family in (
        Family("qwen2", "Qwen2", f"{_VLLM}.qwen2:Qwen2DecoderLayer"),
        Family("qwen3", "Qwen3", _QWEN3_LAYER, normalizes_qk=True),
        Family("qwen3_moe", "Qwen3", _QWEN3_LAYER, module="qwen3", block_type="qwen3", normalizes_qk=True),
        Family("llama", "Llama", f"{_VLLM}.llama:LlamaDecoderLayer"),
        Family("mistral", "Mistral", f"{_VLLM}.mistral:MistralDecoderLayer"),
    )
}
"""model_type -> family that `equip` can graft a head onto. Qwen2.5 is `qwen2`; Llama 3, 3.1 and 3.2 are `llama`."""

NATIVE_FAMILIES: dict[str, Family] = {
    family.model_type: family
    for family in (
        Family(
            "qwen3_5_text",
            "Qwen3_5",
            module="qwen3_5",
            rotary="TextRotaryEmbedding",
            normalizes_qk=True,
            gates_attention=True,
            norm_identity=0.0,
        ),
        Family("qwen3_next", "Qwen3Next", normalizes_qk=True, gates_attention=True, norm_identity=0.0),
        Family("glm4_moe", "Glm4Moe"),
        Family("deepseek_v3", "DeepseekV3", compresses_attention=True),
    )
}
"""Families whose own head (`layouts.py`) is trained and written back; our draft class does not serve them."""


def normalizes_qk(family: Family, config: Any) -> bool:
    """Whether a block of this configuration normalizes queries and keys; GLM-4.5's sizes differ in it."""
    return family.normalizes_qk or bool(vars(config).get("use_qk_norm", False))


def family_of(model_type: str) -> Family:
    """Look a family up.

    Raises:
        ValueError: lists the families there are.
    """
    known = {**FAMILIES, **NATIVE_FAMILIES}
    if model_type not in known:
        raise ValueError(
            f"model_type: got {model_type!r}, expected one of {', '.join(known)}; an MTP head uses the decoder "
            "layer of the policy's own family, so another family needs an entry in openrlhf_mtp/heads/families.py"
        )
    return known[model_type]
