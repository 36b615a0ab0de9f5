"""A job that is right, and the folder that it needs: what checks are tried on."""

import json
from pathlib import Path
from typing import Any

TRUNK = {
    "model_type": "qwen2",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 100,
    "max_position_embeddings": 256,
}
HEAD = {
    **TRUNK,
    "architectures": ["EagleMTPDraft"],
    "mtp": {"format": 1, "depths": 3, "num_layers": 1, "trunk_model_type": "qwen2"},
}

JOB = """
actor: {model_name_or_path: ./policy, num_gpus_per_node: 1}
ref: {num_gpus_per_node: 1}
vllm: {num_engines: 1}
reward: {remote_url: ./reward.py}
data: {prompt_dataset: ./prompts.jsonl, input_key: input, label_key: label, max_len: 128}
rollout: {batch_size: 4, n_samples_per_prompt: 4, max_new_tokens: 32}
train: {batch_size: 16, micro_batch_size: 4}
ds: {attn_implementation: sdpa}
algo: {advantage: {estimator: group_norm}}
mtp: {depths: 3}
"""


def write_config(file: Path, content: dict[str, Any], **changes: object) -> None:
    """Write a `config.json`."""
    file.write_text(json.dumps({**content, **changes}), encoding="utf-8")


def fill(folder: Path) -> None:
    """Write the job and everything that it names."""
    (folder / "job.yaml").write_text(JOB, encoding="utf-8")
    (folder / "policy" / "mtp").mkdir(parents=True)
    write_config(folder / "policy" / "config.json", TRUNK)
    write_config(folder / "policy" / "mtp" / "config.json", HEAD)
    (folder / "policy" / "mtp" / "model.safetensors").touch()
    (folder / "prompts.jsonl").write_text('{"input": "1+1", "label": "2"}\n', encoding="utf-8")
    (folder / "reward.py").write_text("def reward_func(queries, prompts, labels): ...\n", encoding="utf-8")
