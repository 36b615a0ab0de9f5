"""Tiny random checkpoints that bring their own MTP head, in every native layout."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

_EXPERTS = {
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 64,
}
_LINEAR_ATTENTION = {
    "layer_types": ["linear_attention", "full_attention"],
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 32,
    "linear_value_head_dim": 32,
}
NATIVES: dict[str, dict[str, Any]] = {
    "mimo": {"model_type": "qwen2", "num_nextn_predict_layers": 1},
    "qwen3_5": {
        "model_type": "qwen3_5_text",
        "head_dim": 64,
        "mtp_num_hidden_layers": 1,
        **_LINEAR_ATTENTION,
    },
    "qwen3_next": {
        "model_type": "qwen3_next",
        "head_dim": 64,
        "num_nextn_predict_layers": 1,
        "num_experts": 4,
        "shared_expert_intermediate_size": 64,
        **_EXPERTS,
        **_LINEAR_ATTENTION,
    },
    "glm4_moe": {
        "model_type": "glm4_moe",
        "head_dim": 64,
        "num_nextn_predict_layers": 1,
        "use_qk_norm": True,
        "first_k_dense_replace": 1,
        "n_routed_experts": 4,
        "n_shared_experts": 1,
        "n_group": 1,
        "topk_group": 1,
        **_EXPERTS,
    },
    "deepseek_v3": {
        "model_type": "deepseek_v3",
        "topk_method": "noaux_tc",
        "scoring_func": "sigmoid",  # as published; without it vLLM takes softmax
        "num_nextn_predict_layers": 1,
        "num_key_value_heads": 4,
        "q_lora_rank": 48,
        "kv_lora_rank": 512,
        "qk_nope_head_dim": 32,
        "qk_rope_head_dim": 64,
        "v_head_dim": 32,
        "first_k_dense_replace": 1,
        "n_routed_experts": 4,
        "n_shared_experts": 1,
        "n_group": 1,
        "topk_group": 1,
        **_EXPERTS,
    },
}
"""Layout -> what sets its trunk apart; the caller's sizes come on top."""

ARCHITECTURES = {
    "mimo": "MiMoForCausalLM",
    "qwen3_5": "Qwen3_5ForCausalLM",
    "qwen3_next": "Qwen3NextForCausalLM",
    "glm4_moe": "Glm4MoeForCausalLM",
    "deepseek_v3": "DeepseekV3ForCausalLM",
}


def write_native_checkpoint(folder: Path, layout: str, sizes: dict[str, Any], **changes: Any) -> None:
    """A random float32 policy with a random head under native names, in one safetensors file.

    Every parameter of the head is random, norms and biases too, so that one that is forgotten or misplaced shows.
    """
    import torch
    from safetensors.torch import load_file, save_file
    from transformers import AutoConfig, AutoModelForCausalLM

    from openrlhf_mtp.heads.formats.head_folder import named_tensors
    from openrlhf_mtp.heads.formats.native import to_native
    from openrlhf_mtp.heads.head import MTPHead
    from openrlhf_mtp.heads.head_config import HeadConfig

    torch.manual_seed(0)
    config = AutoConfig.for_model(**{**sizes, **NATIVES[layout], **changes})
    policy = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    head_config = HeadConfig.from_trunk(config, depths=3, layout=layout)
    head = MTPHead(head_config)
    with torch.no_grad():
        for parameter in policy.parameters():
            if parameter.dim() == 1:
                parameter.add_(0.1 * torch.randn_like(parameter))
        for name, buffer in policy.named_buffers():
            if name.endswith("e_score_correction_bias"):
                buffer.add_(0.1 * torch.randn_like(buffer))
        for name, tensor in named_tensors(head):
            scale = 0.1 if tensor.dim() == 1 else config.initializer_range
            start = tensor if tensor.dim() == 1 and "e_score" not in name else torch.zeros_like(tensor)
            tensor.copy_(start + scale * torch.randn_like(tensor))
    policy.save_pretrained(folder)
    tensors = load_file(folder / "model.safetensors")
    native = {name: t.detach() for name, t in named_tensors(head)}
    tensors.update(to_native(head_config, native, config.num_hidden_layers))
    assert head_config.native is not None
    copies = head_config.native.copied(0, config.num_hidden_layers)
    tensors.update({copy: tensors[original].clone() for copy, original in copies.items()})
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    content = json.loads((folder / "config.json").read_text())
    content["architectures"] = [ARCHITECTURES[layout]]
    (folder / "config.json").write_text(json.dumps(content))
