"""Attach a new head to a policy checkpoint.

The block starts as a copy of the trunk's last layer and final norm, so that it already speaks the output head's
language.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from openrlhf_mtp.heads.checkpoint import CONFIG_FILE, WEIGHTS_FILE, PathLike, save_head
from openrlhf_mtp.heads.config import HeadConfig
from openrlhf_mtp.heads.head import MTPHead

HEAD_FOLDER = "mtp"
"""The head's folder inside a policy's."""

_INPUT_RMS = 0.3

_INDEX_FILE = "model.safetensors.index.json"


def equip(model_dir: PathLike, out_dir: PathLike, *, depths: int, num_layers: int = 1, seed: int = 0) -> Path:
    """Write a checkpoint folder with a fresh head: the policy's files as they are, plus `mtp/`.

    Plain transformers still loads the folder as the policy. With `out_dir` equal to `model_dir` only `mtp/` is added.

    Args:
        model_dir: the policy's Hugging Face checkpoint (safetensors).
        out_dir: where the equipped checkpoint goes.
        depths: k, the depths to draft.
        num_layers: blocks that the depths take in turn.
        seed: of the random part of the projection.

    Returns:
        The head's folder.

    Raises:
        FileNotFoundError: no checkpoint, or one without safetensors.
        FileExistsError: there is a head already.
        ValueError: an unsupported family, or impossible depths or blocks.
    """
    from transformers import AutoConfig

    model_dir, out_dir = Path(model_dir), Path(out_dir)
    head_dir = out_dir / HEAD_FOLDER
    for folder in (head_dir, model_dir / HEAD_FOLDER):
        if folder.exists():
            raise FileExistsError(
                f"{folder}: there is a head already; remove that folder to make a new one, or use it as it is"
            )
    if not (model_dir / CONFIG_FILE).is_file():
        raise FileNotFoundError(
            f"{model_dir}: no {CONFIG_FILE} there; expected the folder of a Hugging Face model"
        )
    trunk_config = AutoConfig.from_pretrained(model_dir)
    config = HeadConfig.from_trunk(trunk_config, depths=depths, num_layers=num_layers)
    last_layer, final_norm = _read_last_layer(model_dir, trunk_config)
    head = init_head(config, last_layer, final_norm, seed=seed)
    if out_dir.resolve() != model_dir.resolve():
        shutil.copytree(model_dir, out_dir, dirs_exist_ok=True)
    save_head(head_dir, head)
    return head_dir


def init_head(
    config: HeadConfig, last_layer: Mapping[str, Tensor], final_norm: Tensor, *, seed: int = 0
) -> MTPHead:
    """A fresh head from the trunk's last decoder layer.

    Args:
        config: the head's shape.
        last_layer: the layer's tensors under the family's names, for example "mlp.up_proj.weight".
        final_norm: weight of the trunk's final norm [H].
        seed: of the random part of the projection; the global random state is not touched.

    Returns:
        The head in the trunk's dtype, on the CPU.
    """
    with torch.device("meta"):
        head = MTPHead(config)
    head.to_empty(device="cpu").to(final_norm.dtype)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for block in head.blocks:
            block.layer.load_state_dict(dict(last_layer))
            block.final_norm.weight.copy_(final_norm)
            block.hidden_norm.weight.fill_(1.0)
            block.token_norm.weight.fill_(1.0)
            block.proj.weight.copy_(initial_projection(config.model.hidden_size, generator))
    return head


def initial_projection(width: int, generator: torch.Generator) -> Tensor:
    """proj's start [H, 2H]: random, so that the layer's input has RMS 0.3.

    Chosen by the first 100 steps on a small policy (docs/head_start.md): expected length 2.78 at step 100, against
    2.46 for [I; 0] and 2.33 for [I; I] / 2. Passing the hidden state through makes a head that is sure of the
    token it has just read, and 25 steps go into unlearning that.
    """
    std = _INPUT_RMS / (2 * width) ** 0.5
    return torch.randn(width, 2 * width, generator=generator) * std


def _read_last_layer(model_dir: Path, trunk_config: Any) -> tuple[dict[str, Tensor], Tensor]:
    """The last decoder layer's tensors by the family's names, and the final norm's weight."""
    prefix = f"model.layers.{trunk_config.num_hidden_layers - 1}."
    final_norm = "model.norm.weight"
    files = _files_by_tensor(model_dir)
    names = [name for name in files if name.startswith(prefix)] + [final_norm]
    tensors = {}
    for name in names:
        with safe_open(model_dir / files[name], framework="pt") as file:
            tensors[name] = file.get_tensor(name)
    norm = tensors.pop(final_norm)
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}, norm


def _files_by_tensor(model_dir: Path) -> dict[str, str]:
    """Which file of a (possibly sharded) checkpoint holds which tensor."""
    index = model_dir / _INDEX_FILE
    if index.is_file():
        weight_map: dict[str, str] = json.loads(index.read_text())["weight_map"]
        return weight_map
    if not (model_dir / WEIGHTS_FILE).is_file():
        raise FileNotFoundError(
            f"{model_dir}: got neither {WEIGHTS_FILE} nor {_INDEX_FILE}, expected a model saved as safetensors; "
            "load it with transformers and call save_pretrained"
        )
    with safe_open(model_dir / WEIGHTS_FILE, framework="pt") as file:
        return dict.fromkeys(file.keys(), WEIGHTS_FILE)
