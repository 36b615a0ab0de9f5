"""A policy's folder with a head in it, as far as the head contract reads it."""

import json
from pathlib import Path
from typing import Any

from openrlhf_mtp.config.settings.mtp import MTPSettings

POLICY = {"model_type": "qwen2", "hidden_size": 64, "vocab_size": 100}
HEAD: dict[str, Any] = {
    "architectures": ["EagleMTPDraft"],
    "hidden_size": 64,
    "vocab_size": 100,
    "mtp": {"format": 1, "depths": 3, "num_layers": 1, "trunk_model_type": "qwen2"},
}


def settings(**rollout: Any) -> MTPSettings:
    return MTPSettings.model_validate({"rollout": {"dtype": "float32", **rollout}})


def folders(root: Path, head: dict[str, Any]) -> Path:
    (root / "mtp").mkdir()
    (root / "config.json").write_text(json.dumps(POLICY))
    (root / "mtp" / "config.json").write_text(json.dumps(head))
    (root / "mtp" / "model.safetensors").touch()
    return root
