"""A small trained policy and its head, made as costly as a large model without changing what they compute.

Decoding a tiny model is not limited by memory traffic, so it cannot show what speculation gains. A model of a
few hundred million parameters can, but a CPU cannot train one in minutes. The stand-in has the small model's
distributions (and so its head's acceptance) at the large model's cost:

- Wider by a whole factor f: every matrix is padded with zeros, new heads and channels carry zeros. The mean square
  under an RMSNorm falls by f, so norm weights are divided by sqrt(f) and its epsilon by f.
- Deeper: layers on top whose attention and MLP write zeros (zero output projections) and are random otherwise.

Both are exact in real arithmetic; in bfloat16 they round like any other model. The vocabulary stays as it is.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from openrlhf_mtp.config.errors import JobError
from openrlhf_mtp.config.head_contract import head_folder


@dataclass(frozen=True)
class Size:
    """The stand-in's shape; the default has about 270 million parameters in a Qwen2-like family."""

    hidden: int = 1024
    intermediate: int = 2816
    layers: int = 24

    @classmethod
    def near(cls, config: dict[str, Any]) -> Size:
        """The default, with the widest multiple of a policy's width that is no wider.

        >>> Size.near({"hidden_size": 192}).hidden
        960
        """
        width = config["hidden_size"]
        return replace(cls(), hidden=max(1, cls.hidden // width) * width) if width <= cls.hidden else cls()

    def factor(self, config: dict[str, Any]) -> int:
        """The factor by which it is wider than the model of `config`.

        Raises:
            ValueError: the widths are not multiples, or the model is larger than the stand-in.
        """
        width, layers = config["hidden_size"], config["num_hidden_layers"]
        if self.hidden % width or config["intermediate_size"] > self.intermediate or layers > self.layers:
            raise ValueError(
                f"hidden_size, intermediate_size, num_hidden_layers: got {width}, {config['intermediate_size']}, "
                f"{layers}, expected a divisor of {self.hidden}, at most {self.intermediate} and at most "
                f"{self.layers}; such a model is measured as it is, without a stand-in"
            )
        return int(self.hidden // width)


def widen(name: str, tensor: Tensor, factor: int, intermediate: int) -> Tensor:
    """One tensor of a policy or a head in its wider form, original values in the leading corner.

    Args:
        name: its checkpoint name.
        tensor: its values, a vector [n] or a matrix [rows, columns].
        factor: hidden width and heads grow this many times.
        intermediate: the MLP's new width.

    Raises:
        ValueError: a tensor of a kind that the supported families do not have.
    """
    kind = name.removesuffix(".weight").removesuffix(".bias").rsplit(".", 1)[-1]
    rows, columns = tensor.shape[0], tensor.shape[-1]
    if kind in ("q_norm", "k_norm"):
        return tensor
    if kind == "norm" or kind.endswith(("_norm", "layernorm")):
        wide = torch.ones(rows * factor, dtype=tensor.dtype)
        wide[:rows] = tensor / math.sqrt(factor)
        return wide
    if kind == "proj":
        # columns are [hidden; embedding], each half widened on its own
        halves = [_padded(half, (rows * factor, columns // 2 * factor)) for half in tensor.chunk(2, dim=1)]
        return torch.cat(halves, dim=1)
    shapes = {
        "embed_tokens": (rows, columns * factor),
        "lm_head": (rows, columns * factor),
        "gate_proj": (intermediate, columns * factor),
        "up_proj": (intermediate, columns * factor),
        "down_proj": (rows * factor, intermediate),
        **dict.fromkeys(("q_proj", "k_proj", "v_proj", "o_proj"), (rows * factor, columns * factor)),
    }
    if kind not in shapes:
        raise ValueError(
            f"{name}: got a tensor that no supported family has, expected one of {', '.join(shapes)}"
        )
    return _padded(tensor, shapes[kind][: tensor.dim()])


def _padded(tensor: Tensor, shape: tuple[int, ...]) -> Tensor:
    wide = torch.zeros(shape, dtype=tensor.dtype)
    wide[tuple(slice(size) for size in tensor.shape)] = tensor
    return wide


def idle_layers(first: dict[str, Tensor], numbers: range, seed: int = 0) -> Iterator[tuple[str, Tensor]]:
    """Layers that cost what layer 0 costs and add nothing to the residual stream.

    Args:
        first: layer 0's widened tensors by name.
        numbers: the new layers' numbers.
        seed: of the random weights.
    """
    generator = torch.Generator().manual_seed(seed)
    for number in numbers:
        for name, tensor in first.items():
            if name.endswith("norm.weight"):
                new = torch.ones_like(tensor)
            elif tensor.dim() == 1 or ".o_proj." in name or ".down_proj." in name:
                new = torch.zeros_like(tensor)
            else:
                new = torch.empty(tensor.shape).normal_(std=0.02, generator=generator).to(tensor.dtype)
            yield name.replace("model.layers.0.", f"model.layers.{number}."), new


def wide_config(config: dict[str, Any], size: Size, *, layers: int) -> dict[str, Any]:
    """`config.json` of the widened policy or head, with this many layers."""
    factor = size.factor(config)
    wide = {
        **config,
        "hidden_size": size.hidden,
        "intermediate_size": size.intermediate,
        "num_attention_heads": config["num_attention_heads"] * factor,
        "num_key_value_heads": config["num_key_value_heads"] * factor,
        "rms_norm_eps": config["rms_norm_eps"] / factor,
        "num_hidden_layers": layers,
    }
    if config.get("layer_types") is not None:
        wide["layer_types"] = ["full_attention"] * layers
    return wide


def _read(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    tensors: dict[str, Tensor] = {}
    for file in sorted(folder.glob("*.safetensors")):
        tensors.update(load_file(file))
    return json.loads((folder / "config.json").read_text()), tensors


def _write(folder: Path, config: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")


def build_stand_in(policy_dir: Path, head_dir: Path, out_dir: Path, size: Size | None = None) -> int:
    """Write the stand-in (policy in `out_dir`, head in `out_dir/mtp`) and return its parameters without the head.

    Args:
        policy_dir, head_dir: the small ones.
        out_dir: for the large ones.
        size: default `Size.near`.

    Raises:
        ValueError: the policy is too large, or its width does not divide the stand-in's.
    """
    config, policy = _read(policy_dir)
    size = size or Size.near(config)
    factor = size.factor(config)
    wide = {name: widen(name, tensor, factor, size.intermediate) for name, tensor in policy.items()}
    first = {name: tensor for name, tensor in wide.items() if name.startswith("model.layers.0.")}
    wide.update(idle_layers(first, range(config["num_hidden_layers"], size.layers)))
    _write(out_dir, wide_config(config, size, layers=size.layers), wide)
    widen_head(head_dir, head_folder(None, out_dir), size)
    return sum(tensor.numel() for tensor in wide.values())


def widen_head(head_dir: Path, out_dir: Path, size: Size | None = None) -> None:
    """Write a head in the width of its policy's stand-in.

    Args:
        head_dir: a head of the small policy.
        out_dir: for the wide one.
        size: the stand-in's; default `Size.near`.

    Raises:
        ValueError: as in `build_stand_in`.
    """
    config, head = _read(head_dir)
    size = size or Size.near(config)
    factor = size.factor(config)
    wide = {name: widen(name, tensor, factor, size.intermediate) for name, tensor in head.items()}
    _write(out_dir, wide_config(config, size, layers=config["num_hidden_layers"]), wide)


def cached_stand_in(policy_dir: Path, head_dir: Path, out_dir: Path) -> tuple[Path, int]:
    """The stand-in's folder and parameters; built again only when policy or head changed.

    Raises:
        JobError: no stand-in can be made of this policy.
    """
    digest = hashlib.sha256()
    for source in (policy_dir, head_dir):
        for file in sorted([*source.glob("*.safetensors"), source / "config.json"]):
            digest.update(file.read_bytes())
    mark = out_dir / "made_from.json"
    if mark.is_file() and json.loads(mark.read_text())["sha256"] == digest.hexdigest():
        return out_dir, json.loads(mark.read_text())["parameters"]
    shutil.rmtree(out_dir, ignore_errors=True)
    try:
        parameters = build_stand_in(policy_dir, head_dir, out_dir)
    except ValueError as problem:
        raise JobError(f"{policy_dir}: no stand-in can be made of it: {problem}") from problem
    mark.write_text(json.dumps({"sha256": digest.hexdigest(), "parameters": parameters}))
    return out_dir, parameters
