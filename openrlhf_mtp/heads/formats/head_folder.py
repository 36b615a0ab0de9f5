"""The head's folder, `config.json` and `model.safetensors`: saved whole, loaded bit for bit, refused if it misfits.

Tensors are named `model.blocks.{n}.hidden_norm.weight`, `.token_norm.weight`, `.final_norm.weight`, `.proj.weight` and
`model.blocks.{n}.layer.<the family's own names>`, in the file, in every weight sync and in the engine's draft.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from openrlhf_mtp.config.atomic_files import write_atomically
from openrlhf_mtp.config.head_contract.fit import differences
from openrlhf_mtp.config.head_contract.folder import CONFIG_FILE, WEIGHTS_FILE
from openrlhf_mtp.config.machine.precision import dtype_name
from openrlhf_mtp.heads.formats.shards import PathLike, StoredTensor, header, write_file
from openrlhf_mtp.heads.head import MTPHead
from openrlhf_mtp.heads.head_config import HeadConfig

_PREFIX = "model."


class HeadMismatch(ValueError):
    """A head that cannot be used with this policy; the message lists both sides."""


def named_tensors(head: MTPHead) -> Iterator[tuple[str, Tensor]]:
    """The head's parameters, and what else its state consists of (a router's bias), under their checkpoint names."""
    for name, tensor in head.state_dict(keep_vars=True).items():
        yield _PREFIX + name, tensor


def save_head(folder: PathLike, head: MTPHead) -> None:
    """Write the head's folder. Each file appears whole or not at all, the weights first.

    Raises:
        OSError: the folder cannot be written.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_file(folder / WEIGHTS_FILE, dict(named_tensors(head)))
    # of the weights as they are, whatever the trunk's files were in when the head was made
    dtype = next(parameter for parameter in head.parameters() if parameter.dim() == 2).dtype
    content = {**head.config.to_json(), "dtype": dtype_name(dtype)}
    write_atomically(folder / CONFIG_FILE, json.dumps(content, indent=2, sort_keys=True) + "\n")


def read_head_config(folder: PathLike) -> HeadConfig:
    """The head's configuration.

    Raises:
        FileNotFoundError: no head there.
        ValueError: not a head's configuration, or an unsupported family.
    """
    path = Path(folder) / CONFIG_FILE
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: no MTP head there; make one with `openrlhf-mtp equip`, or point mtp.head at its folder"
        )
    return HeadConfig.from_json(json.loads(path.read_text()), source=str(path))


def head_tensor_specs(folder: PathLike) -> dict[str, StoredTensor]:
    """Names, shapes and dtypes in the head's file, without reading the tensors.

    Raises:
        DamagedCheckpoint: the file is missing, truncated or not safetensors.
    """
    return header(Path(folder) / WEIGHTS_FILE)


def read_head(folder: PathLike, trunk_config: Any) -> tuple[HeadConfig, dict[str, Tensor]]:
    """A head's configuration and its tensors as they are in the file, after every check.

    Args:
        folder: the head's folder.
        trunk_config: the policy's Hugging Face configuration.

    Raises:
        FileNotFoundError: no head there.
        HeadMismatch: another family, other sizes or rotary positions (`config.head_contract.fit`), or tensors that are
            missing, unknown or of another shape; every difference is listed with both sides.
        DamagedCheckpoint: a truncated file.
    """
    config = read_head_config(folder)
    _refuse(folder, list(differences(trunk_config.to_dict(), config.to_json())))
    expected = expected_shapes(config)
    stored = {name: spec.shape for name, spec in head_tensor_specs(folder).items()}
    _refuse(folder, tensor_differences(stored, expected))
    return config, load_file(Path(folder) / WEIGHTS_FILE)


def load_head(
    folder: PathLike, trunk_config: Any, *, dtype: torch.dtype, device: torch.device | str | int
) -> MTPHead:
    """Load a head for a policy.

    Args:
        folder: the head's folder.
        trunk_config: the policy's Hugging Face configuration.
        dtype: of the parameters; bit for bit what was saved if it is the file's. Buffers (a router's bias) keep the
            file's, as in transformers and engines.
        device: where they go.

    Raises:
        FileNotFoundError: no head there.
        HeadMismatch, DamagedCheckpoint: as `read_head`.
    """
    config, tensors = read_head(folder, trunk_config)
    head = assembled(config, tensors).to(device)
    for parameter in head.parameters():
        parameter.data = parameter.data.to(dtype)
    return head.requires_grad_(True)


def assembled(config: HeadConfig, tensors: Mapping[str, Tensor]) -> MTPHead:
    """The head of exactly these tensors (checkpoint names), which it shares."""
    with torch.device("meta"):
        head = MTPHead(config)
    head.load_state_dict(
        {name.removeprefix(_PREFIX): tensor for name, tensor in tensors.items()}, assign=True
    )
    return head


def expected_shapes(config: HeadConfig) -> dict[str, tuple[int, ...]]:
    """Shape of each tensor of such a head, by checkpoint name."""
    with torch.device("meta"):
        head = MTPHead(config)
    return {name: tuple(tensor.shape) for name, tensor in named_tensors(head)}


def _refuse(folder: PathLike, differences: list[str]) -> None:
    if differences:
        lines = "\n".join(f"  - {line}" for line in differences)
        raise HeadMismatch(
            f"{folder}: this head does not fit the policy:\n{lines}\n"
            "Use the head that belongs to this policy, or make one with `openrlhf-mtp equip`."
        )


def tensor_differences(
    stored: Mapping[str, tuple[int, ...]], expected: Mapping[str, tuple[int, ...]]
) -> list[str]:
    """Every tensor that is missing, unknown or of another shape."""
    lines = []
    for name in sorted(stored.keys() | expected.keys()):
        if name not in stored:
            lines.append(f"{name}: missing in the file, expected shape {list(expected[name])}")
        elif name not in expected:
            lines.append(f"{name}: shape {list(stored[name])} in the file, the head has no such tensor")
        elif stored[name] != expected[name]:
            lines.append(f"{name}: shape {list(stored[name])} in the file, expected {list(expected[name])}")
    return lines
