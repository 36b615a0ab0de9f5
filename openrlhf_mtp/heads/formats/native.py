"""Import the native head of a checkpoint, and export it under its own names.

A native head becomes an ordinary head of ours (`model.blocks.{n}.*`) with `layout` set: names change, the halves of
the projection change places where the family reads [token; hidden], and experts are stacked as transformers holds
them. Nothing is computed, so there and back is bit for bit.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from openrlhf_mtp.config.head_contract.folder import CONFIG_FILE
from openrlhf_mtp.config.native_layouts import BUILT_IN, LAYOUTS, REFUSED, Layout, split_expert
from openrlhf_mtp.heads.formats.head_folder import (
    HeadMismatch,
    assembled,
    expected_shapes,
    tensor_differences,
)
from openrlhf_mtp.heads.formats.shards import PathLike, files_by_tensor, read_tensors, stored_tensors
from openrlhf_mtp.heads.head import MTPHead
from openrlhf_mtp.heads.head_config import HeadConfig

_REMOTE_CODE = "auto_map"


def read_config(model_dir: PathLike) -> dict[str, Any]:
    """A checkpoint's config.json, with a built-in model type where the trunk has one.

    Raises:
        FileNotFoundError: no model there.
    """
    path = Path(model_dir) / CONFIG_FILE
    if not path.is_file():
        raise FileNotFoundError(
            f"{model_dir}: no {CONFIG_FILE} there; expected the folder of a Hugging Face model"
        )
    content: dict[str, Any] = json.loads(path.read_text())
    if content.get("model_type") in BUILT_IN:
        content["model_type"] = BUILT_IN[content["model_type"]]
        content.pop(_REMOTE_CODE, None)
    return content


def read_trunk_config(model_dir: PathLike) -> Any:
    """The text configuration of a checkpoint's trunk, as transformers' object.

    Raises:
        FileNotFoundError: no model there.
        ValueError: transformers does not know the model type.
    """
    from transformers import AutoConfig

    return AutoConfig.for_model(**read_config(model_dir)).get_text_config()


def find_layout(trunk_config: Any, tensors: Collection[str]) -> Layout | None:
    """The layout of the head in a checkpoint with these tensors, None if it brings none.

    Raises:
        ValueError: there is a head of a family that cannot be trained.
    """
    layers = trunk_config.num_hidden_layers
    for layout in LAYOUTS.values():
        fits = trunk_config.model_type in layout.model_types
        if fits and f"{layout.modules(0, layers)['proj']}.weight" in tensors:
            return layout
    reason = REFUSED.get(trunk_config.model_type)
    if reason is not None:
        raise ValueError(
            f"model_type: got {trunk_config.model_type}, whose MTP head cannot be trained: {reason}"
        )
    return None


def read_native(model_dir: PathLike, trunk_config: Any, *, depths: int) -> MTPHead | None:
    """The head in a checkpoint, its tensors as they are in the file; None if the checkpoint brings none.

    Raises:
        HeadMismatch: more blocks than vLLM serves, or tensors that are missing, unknown or of another shape, each
            with both sides.
        DamagedCheckpoint: a file that cannot be read.
        ValueError: a family whose head cannot be trained.
    """
    layout = find_layout(trunk_config, files_by_tensor(model_dir))
    if layout is None:
        return None
    stored = stored_tensors(model_dir)
    layers = trunk_config.num_hidden_layers
    blocks = _count_blocks(layout, stored, layers)
    if blocks > layout.max_blocks:
        raise HeadMismatch(
            f"{model_dir}: got {blocks} MTP blocks, expected {layout.max_blocks} in the layout {layout.name}: vLLM "
            "runs the first block alone at every depth; remove the others from the checkpoint to train that one"
        )
    config = HeadConfig.from_trunk(trunk_config, depths=depths, num_blocks=blocks, layout=layout.name)
    copies = {copy for n in range(blocks) for copy in layout.copied(n, layers)}
    found = {n: t.shape for n, t in stored.items() if layout.owns(n, layers, blocks) and n not in copies}
    expected = {name: tuple(t.shape) for name, t in to_native(config, _empty(config), layers).items()}
    differences = tensor_differences(found, expected)
    if differences:
        lines = "\n".join(f"  - {line}" for line in differences)
        raise HeadMismatch(f"{model_dir}: its MTP head is not one of the layout {layout.name}:\n{lines}")
    return assembled(config, from_native(config, read_tensors(model_dir, expected), layers))


def to_native(config: HeadConfig, tensors: Mapping[str, Tensor], trunk_layers: int) -> dict[str, Tensor]:
    """A head's tensors under the names of its native layout."""
    assert config.native is not None, "only a head with a layout has native names"
    return {
        native: piece.contiguous()
        for name, tensor in tensors.items()
        for native, piece in _pieces(config.native, name, tensor, trunk_layers)
    }


def from_native(config: HeadConfig, tensors: Mapping[str, Tensor], trunk_layers: int) -> dict[str, Tensor]:
    """The inverse of `to_native`."""
    assert config.native is not None, "only a head with a layout has native names"
    joined = {}
    for name, empty in _empty(config).items():
        natives = [native for native, _ in _pieces(config.native, name, empty, trunk_layers)]
        joined[name] = _joined(config.native, name, [tensors[native] for native in natives])
    return joined


def _empty(config: HeadConfig) -> dict[str, Tensor]:
    """Tensors of the right shapes without content."""
    return {name: torch.empty(shape, device="meta") for name, shape in expected_shapes(config).items()}


def _count_blocks(layout: Layout, tensors: Collection[str], trunk_layers: int) -> int:
    count = 1
    while f"{layout.modules(count, trunk_layers)['layer']}.input_layernorm.weight" in tensors:
        count += 1
    return count


def stacked(layout: Layout, name: str, tensor: Tensor, trunk_layers: int) -> tuple[str, Tensor]:
    """One of a head's tensors under its native name, experts still stacked: so it travels to vLLM's own draft model.

    Args:
        layout: the head's.
        name: ours.
        tensor: whole.
        trunk_layers: the policy's layers.
    """
    _, _, block, module, *rest = name.split(".")  # model.blocks.0.layer.mlp.up_proj.weight
    native = ".".join([layout.modules(int(block), trunk_layers)[module], *rest])
    if module == "proj" and layout.token_first:
        hidden, token = tensor.chunk(2, dim=1)
        tensor = torch.cat([token, hidden], dim=1)
    return native, tensor


def _pieces(layout: Layout, name: str, tensor: Tensor, trunk_layers: int) -> Iterator[tuple[str, Tensor]]:
    """The checkpoint's tensors that one of ours consists of, in the order in which `_joined` takes them."""
    native, tensor = stacked(layout, name, tensor, trunk_layers)
    parts = len(split_expert(native, 0))
    if not parts:
        yield native, tensor
        return
    for expert, rows in enumerate(tensor):  # [2 * width, H] or [H, width]
        yield from zip(split_expert(native, expert), rows.chunk(parts), strict=True)


def _joined(layout: Layout, name: str, pieces: list[Tensor]) -> Tensor:
    """One of our tensors from the checkpoint's."""
    if ".proj." in name and layout.token_first:
        token, hidden = pieces[0].chunk(2, dim=1)
        return torch.cat([hidden, token], dim=1)
    if name.endswith("experts.gate_up_proj"):
        gates, ups = pieces[::2], pieces[1::2]
        return torch.stack([torch.cat([gate, up]) for gate, up in zip(gates, ups, strict=True)])
    return torch.stack(pieces) if name.endswith("experts.down_proj") else pieces[0]
