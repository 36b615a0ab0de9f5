"""The model families a head can be attached to: one entry a family, with all that differs between them.

A family fits when its block's decoder layer is `x + attention(norm(x))` then `x + mlp(norm(x))`, with separate q, k, v
and o projections, rotary positions and full attention. To add one, add an entry; `heads.hf_classes` and
`rollout.draft_model` take its layers' classes from transformers and vLLM by the names given here, `check` accepts it,
and sizes and the sync follow. A family that brings a head of its own also has an entry in `native_layouts`.
"""

from dataclasses import dataclass

from openrlhf_mtp.config.errors import JobError


@dataclass(frozen=True)
class Family:
    """One model family.

    Attributes:
        model_type: the name in a checkpoint's config.json.
        class_prefix: what the class names of its block's layer in transformers begin with.
        vllm_layer: vLLM's decoder layer for our draft class, "module:Class"; None if only vLLM's own `method: mtp`
            serves a head of this family.
        vllm_layer_takes_all: that layer is made from vLLM's whole configuration (config, prefix, model) and not from
            its parts (model, cache, quantization, prefix).
        module: the model type in whose module those classes are, if it is not this one.
        block_type: the model type of the block's configuration, if it is not the trunk's: a trunk with experts gets a
            dense block of its dense sibling.
        rotary: the last part of the rotary embedding's class name.
        biases_qkv: the q, k and v projections have a bias whatever the configuration says.
        normalizes_qk: queries and keys are normalized by head before the rotation.
        gates_attention: q_proj also computes a gate for each channel of the attention's output.
        compresses_attention: keys and values come from a shared compressed projection (`latent.py`).
        norm_identity: the norm weight that scales by one.
        linear_attention: most of the trunk's layers keep a state in place of keys and values.
        gates_mlp: the MLP has a gate's projection beside its two others.
        float32: endings of the names of tensors that engines hold in float32 whatever they compute in.
        rl: policies of a family whose head vLLM drafts with can be sent to rollout engines and verified there.
    """

    model_type: str
    class_prefix: str
    vllm_layer: str | None = None
    vllm_layer_takes_all: bool = False
    module: str | None = None
    block_type: str | None = None
    rotary: str = "RotaryEmbedding"
    biases_qkv: bool = False
    normalizes_qk: bool = False
    gates_attention: bool = False
    compresses_attention: bool = False
    norm_identity: float = 1.0
    linear_attention: bool = False
    gates_mlp: bool = True
    float32: tuple[str, ...] = ()
    rl: bool = False

    @property
    def drafts_natively(self) -> bool:
        """Whether vLLM's own draft model runs the head (`method: mtp`), and not our draft class."""
        return self.vllm_layer is None

    @property
    def has_experts(self) -> bool:
        """Whether the trunk's layers have experts where the block of a new head is dense."""
        return self.block_type is not None


_VLLM = "vllm.model_executor.models"
_STATE_DECAY = ".linear_attn.A_log"
_ROUTER_BIAS = ".mlp.gate.e_score_correction_bias"
_QWEN3_LAYER = f"{_VLLM}.qwen3:Qwen3DecoderLayer"

FUSED: dict[str, dict[str, str | int]] = {
    "qkv_proj": {"q_proj": "q", "k_proj": "k", "v_proj": "v"},
    "gate_up_proj": {"gate_proj": 0, "up_proj": 1},
    "fused_qkv_a_proj": {"q_a_proj": 0, "kv_a_proj_with_mqa": 1},
}
"""vLLM's fused layers: the checkpoint's tensors in the order of the fused rows, each with vLLM's name for its shard."""

FAMILIES: dict[str, Family] = {
    family.model_type: family
    for family in (
        Family("qwen2", "Qwen2", f"{_VLLM}.qwen2:Qwen2DecoderLayer", biases_qkv=True),
        Family("qwen3", "Qwen3", _QWEN3_LAYER, normalizes_qk=True),
        Family("qwen3_moe", "Qwen3", _QWEN3_LAYER, module="qwen3", block_type="qwen3", normalizes_qk=True),
        Family("llama", "Llama", f"{_VLLM}.llama:LlamaDecoderLayer", vllm_layer_takes_all=True),
        Family("mistral", "Mistral", f"{_VLLM}.mistral:MistralDecoderLayer", vllm_layer_takes_all=True),
        Family("seed_oss", "SeedOss", f"{_VLLM}.seed_oss:SeedOssDecoderLayer", biases_qkv=True),
        Family("arcee", "Arcee", f"{_VLLM}.arcee:ArceeDecoderLayer", gates_mlp=False),
    )
}
"""model_type -> family that `equip` can graft a head onto. Qwen2.5 is `qwen2`; Llama 3, 3.1 and 3.2 are `llama`;
AFM is `arcee`.

The policies of these families can be sent to rollout engines and verified there, so that RL runs with a head.
"""

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
            linear_attention=True,
            float32=(_STATE_DECAY,),
            rl=True,
        ),
        Family(
            "qwen3_next",
            "Qwen3Next",
            normalizes_qk=True,
            gates_attention=True,
            norm_identity=0.0,
            linear_attention=True,
            float32=(_STATE_DECAY,),
            rl=True,
        ),
        Family("glm4_moe", "Glm4Moe", float32=(_ROUTER_BIAS, ".mlp.gate.weight"), rl=True),
        Family("deepseek_v3", "DeepseekV3", compresses_attention=True, float32=(_ROUTER_BIAS,), rl=True),
    )
}
"""Families whose own head (`native_layouts`) is trained and written back; vLLM's draft models serve them, ours does
not."""

RL_FAMILIES: dict[str, Family] = {
    **FAMILIES,
    **{name: family for name, family in NATIVE_FAMILIES.items() if family.rl},
}
"""Families whose policies RL trains with a head."""


def family_of(model_type: str) -> Family:
    """Look a family up.

    Raises:
        JobError: lists the families there are.
    """
    known = {**FAMILIES, **NATIVE_FAMILIES}
    if model_type not in known:
        raise JobError(
            f"model_type: got {model_type!r}, expected one of {', '.join(known)}; an MTP head uses the decoder "
            "layer of the policy's own family, so another family needs an entry in openrlhf_mtp/config/families.py"
        )
    return known[model_type]
