"""Attach a head to a policy checkpoint: its native one, or a new one.

A new block starts as a copy of the trunk's last layer and final norm, so that it already speaks the output head's
language. If that layer has experts, the dense block starts as the mean of a few of them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from openrlhf_mtp.config.atomic_files import write_atomically
from openrlhf_mtp.config.families import FAMILIES
from openrlhf_mtp.config.head_contract.folder import CONFIG_FILE, HEAD_FOLDER
from openrlhf_mtp.config.native_layouts import Layout, vllm_architecture
from openrlhf_mtp.heads.formats.head_folder import save_head
from openrlhf_mtp.heads.formats.native import read_config, read_native, read_trunk_config
from openrlhf_mtp.heads.formats.policy_files import copy_other_files, copy_weights
from openrlhf_mtp.heads.formats.published import holds_more_than_text, write_text_model
from openrlhf_mtp.heads.formats.shards import PathLike, files_by_tensor, read_tensors
from openrlhf_mtp.heads.head import MTPHead
from openrlhf_mtp.heads.head_config import HeadConfig

_INPUT_RMS = 0.3


def equip(
    model_dir: PathLike,
    out_dir: PathLike,
    *,
    depths: int,
    num_blocks: int = 1,
    seed: int = 0,
    fresh: bool = False,
) -> Path:
    """Write a checkpoint folder with a head: the model's files as they are (`policy_files`), plus `mtp/`.

    Plain transformers still loads the folder as the policy. With `out_dir` equal to `model_dir` only `mtp/` is added.
    Each file appears whole or not at all, the head's configuration last.
    Of a checkpoint with a vision tower the language model is taken out (`published`).
    The head is the checkpoint's own (`layouts.py`) if it brings one along.

    Args:
        model_dir: the policy's Hugging Face checkpoint (safetensors).
        out_dir: where the equipped checkpoint goes.
        depths: k, the depths to draft.
        num_blocks: blocks that the depths take in turn.
        seed: of the random part of the projection.
        fresh: leave the checkpoint's own head alone and make a new one.

    Returns:
        The head's folder.

    Raises:
        FileNotFoundError: no checkpoint, or one without safetensors.
        FileExistsError: there is a head already, or a configuration that would have to change in place.
        HeadMismatch, DamagedCheckpoint: the checkpoint's own head is not what its layout says.
        ValueError: an unsupported family, or impossible depths or blocks.
    """
    model_dir, out_dir = Path(model_dir), Path(out_dir)
    head_dir = out_dir / HEAD_FOLDER
    for folder in (head_dir, model_dir / HEAD_FOLDER):
        if folder.exists():
            raise FileExistsError(
                f"{folder}: there is a head already; remove that folder to make a new one, or use it as it is"
            )
    trunk_config = read_trunk_config(model_dir)
    head = None if fresh else read_native(model_dir, trunk_config, depths=depths)
    if head is None:
        head = _new_head(model_dir, trunk_config, depths=depths, num_blocks=num_blocks, seed=seed)
    _copy_policy(model_dir, out_dir, head.config.native)
    save_head(head_dir, head)
    return head_dir


def _copy_policy(model_dir: Path, out_dir: Path, layout: Layout | None) -> None:
    """The model's files, its configuration with a model type that needs no remote code and, for vLLM, an architecture
    that suits the head."""
    if holds_more_than_text(model_dir):
        if out_dir.resolve() == model_dir.resolve():
            raise FileExistsError(
                f"{out_dir}: its language model is taken out of the checkpoint, which must not happen in place; give "
                "another folder as --out"
            )
        write_text_model(model_dir, out_dir)
        return
    config = read_config(model_dir)
    if "architectures" in config:
        config["architectures"] = vllm_architecture(config, layout)
    changed = config != json.loads((model_dir / CONFIG_FILE).read_text())
    if out_dir.resolve() == model_dir.resolve():
        if changed:
            raise FileExistsError(
                f"{out_dir}: its {CONFIG_FILE} would change (model type {config['model_type']}, architectures "
                f"{config.get('architectures')}), which must not happen in place; give another folder as --out"
            )
        return
    out_dir.mkdir(parents=True, exist_ok=True)
    copy_weights(model_dir, out_dir)
    copy_other_files(model_dir, out_dir)
    if changed:
        write_atomically(out_dir / CONFIG_FILE, json.dumps(config, indent=2) + "\n")


def _new_head(model_dir: Path, trunk_config: Any, *, depths: int, num_blocks: int, seed: int) -> MTPHead:
    if trunk_config.model_type not in FAMILIES:
        raise ValueError(
            f"model_type: got {trunk_config.model_type!r}, expected one of {', '.join(FAMILIES)} for a new head; a "
            "checkpoint of another family must bring its own head along (docs/formats.md)"
        )
    config = HeadConfig.from_trunk(trunk_config, depths=depths, num_blocks=num_blocks)
    last_layer, final_norm = _read_last_layer(model_dir, trunk_config)
    generator = torch.Generator().manual_seed(seed)
    if any(".experts." in name for name in last_layer):
        last_layer = dense_layer(last_layer, config.model.intermediate_size, generator)
    return init_head(config, last_layer, final_norm, seed=seed)


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
            block.hidden_norm.weight.fill_(config.family.norm_identity)
            block.token_norm.weight.fill_(config.family.norm_identity)
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


def dense_layer(layer: Mapping[str, Tensor], width: int, generator: torch.Generator) -> dict[str, Tensor]:
    """A decoder layer with one dense MLP of this width in place of its experts, the rest as it is.

    The MLP is the mean of the first experts that fit into its width: their neurons side by side, what they write
    divided by their number. Neurons that no expert fills start small and random.
    """
    kept = {name: tensor for name, tensor in layer.items() if not name.startswith("mlp.")}
    experts = 1 + max(int(name.split(".")[2]) for name in layer if name.startswith("mlp.experts."))
    expert_width, hidden = layer["mlp.experts.0.up_proj.weight"].shape
    used = min(experts, -(-width // expert_width))

    def side_by_side(name: str, dim: int) -> Tensor:
        parts = [layer[f"mlp.experts.{n}.{name}.weight"] for n in range(used)]
        joined = torch.cat(parts, dim).narrow(dim, 0, min(width, used * expert_width))
        spare = torch.randn(width - joined.shape[dim], hidden, generator=generator) * hidden**-0.5
        return torch.cat([joined, (spare if dim == 0 else spare.T).to(joined.dtype)], dim)

    return {
        **kept,
        "mlp.gate_proj.weight": side_by_side("gate_proj", 0),
        "mlp.up_proj.weight": side_by_side("up_proj", 0),
        "mlp.down_proj.weight": side_by_side("down_proj", 1) / used,
    }


def _read_last_layer(model_dir: Path, trunk_config: Any) -> tuple[dict[str, Tensor], Tensor]:
    """The last decoder layer's tensors by the family's names, and the final norm's weight."""
    prefix = f"model.layers.{trunk_config.num_hidden_layers - 1}."
    final_norm = "model.norm.weight"
    names = [name for name in files_by_tensor(model_dir) if name.startswith(prefix)] + [final_norm]
    tensors = read_tensors(model_dir, names)
    norm = tensors.pop(final_norm)
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}, norm
