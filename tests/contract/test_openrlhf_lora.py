"""The installed OpenRLHF still wraps LoRA policies as `training.weight_source` takes them apart and
`heads.formats.lora_merge` merges them, read from its source."""

from __future__ import annotations

import importlib.util
from pathlib import Path

OPENRLHF = Path(str(importlib.util.find_spec("openrlhf").origin)).parent


def test_a_policy_is_wrapped_with_plain_lora_without_trained_biases():
    text = (OPENRLHF / "models" / "actor.py").read_text()
    settings = text.split("lora_config = LoraConfig(")[1].split(")\n")[0]
    assert "self.model = get_peft_model(self.model, lora_config)" in text
    assert 'bias="none"' in settings
    assert "use_dora" not in settings
    assert "modules_to_save" not in settings


def test_only_the_adapter_is_saved():
    text = (OPENRLHF / "utils" / "deepspeed" / "deepspeed.py").read_text()
    saving = text.split("if isinstance(model_to_save, PeftModel):")[1].split("else:")[0]
    assert "model_to_save.save_pretrained(output_dir" in saving


def test_upstream_still_sends_parameters_under_pefts_names():
    """The day it merges by itself, ours is no longer needed."""
    sending = (OPENRLHF / "trainer" / "ray" / "ppo_actor.py").read_text().split("def broadcast_to_vllm")[1]
    assert "for n, p in model.named_parameters()" in sending
    assert "merge" not in sending.split("class PolicyModelActor")[0].split("def _gather_params_ctx")[0]
