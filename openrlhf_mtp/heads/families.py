"""The trunk families a head can be attached to, each by its own decoder layer in transformers and in vLLM.

A family fits when its decoder layer is `x + attention(norm(x))` then `x + mlp(norm(x))`, with separate q, k, v and o
projections, rotary positions, and full attention in every layer. Only names here: nothing heavy is imported before
a class is asked for.
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
        class_prefix: what the family's class names in transformers begin with.
        vllm_layer: vLLM's decoder layer, "module:Class".
        normalizes_qk: queries and keys are normalised by head before the rotation.
    """

    model_type: str
    class_prefix: str
    vllm_layer: str
    normalizes_qk: bool = False

    def _hf_class(self, suffix: str) -> type[Any]:
        module = import_module(f"transformers.models.{self.model_type}.modeling_{self.model_type}")
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
        return self._hf_class("RotaryEmbedding")


_VLLM = "vllm.model_executor.models"

FAMILIES: dict[str, Family] = {
    family.model_type: family
    for family in (
        Family("qwen2", "Qwen2", f"{_VLLM}.qwen2:Qwen2DecoderLayer"),
        Family("qwen3", "Qwen3", f"{_VLLM}.qwen3:Qwen3DecoderLayer", normalizes_qk=True),
        Family("llama", "Llama", f"{_VLLM}.llama:LlamaDecoderLayer"),
        Family("mistral", "Mistral", f"{_VLLM}.mistral:MistralDecoderLayer"),
    )
}
"""model_type -> family. Qwen2.5 is `qwen2`; Llama 3, 3.1 and 3.2 are `llama`."""


def family_of(model_type: str) -> Family:
    """Look a family up.

    Raises:
        ValueError: lists the families there are.
    """
    if model_type not in FAMILIES:
        raise ValueError(
            f"model_type: got {model_type!r}, expected one of {', '.join(FAMILIES)}; an MTP head uses the decoder "
            "layer of the policy's own family, so another family needs an entry in openrlhf_mtp/heads/families.py"
        )
    return FAMILIES[model_type]
