"""The safetensors files of a checkpoint folder, one or several: which holds what, read and written by name."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from openrlhf_mtp.config.atomic_files import atomic_path, write_atomically
from openrlhf_mtp.config.head_contract.folder import WEIGHTS_FILE

PathLike = str | os.PathLike[str]

INDEX_FILE = "model.safetensors.index.json"


class DamagedCheckpoint(ValueError):
    """A folder whose files cannot be what they claim to be."""


@dataclass(frozen=True)
class StoredTensor:
    """Shape and dtype (safetensors' name, for example "BF16") of a tensor in a file."""

    shape: tuple[int, ...]
    dtype: str


_DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.uint8: "U8",
}


def stored_as(tensor: Tensor) -> StoredTensor:
    """A tensor's entry in a file's header.

    Raises:
        ValueError: a type that no checkpoint of ours holds.
    """
    if tensor.dtype not in _DTYPES:
        raise ValueError(f"got a tensor of {tensor.dtype}, expected one of {', '.join(map(str, _DTYPES))}")
    return StoredTensor(tuple(tensor.shape), _DTYPES[tensor.dtype])


def header(path: Path) -> dict[str, StoredTensor]:
    """The contents of a safetensors file, without reading the tensors.

    Raises:
        DamagedCheckpoint: missing, truncated, or not safetensors.
    """
    try:
        with safe_open(path, framework="pt") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
            return {n: StoredTensor(tuple(s.get_shape()), s.get_dtype()) for n, s in slices.items()}
    except (SafetensorError, FileNotFoundError) as error:
        size = f"{path.stat().st_size} bytes" if path.is_file() else "no file"
        raise DamagedCheckpoint(
            f"{path}: got {size} that cannot be read as safetensors ({error}); the file is missing or was cut off, "
            "copy it again or create it again"
        ) from error


def files_by_tensor(model_dir: PathLike) -> dict[str, str]:
    """The file of each tensor of a (possibly sharded) checkpoint.

    Raises:
        FileNotFoundError: no safetensors there.
        DamagedCheckpoint: the file of an unsharded checkpoint cannot be read.
    """
    model_dir = Path(model_dir)
    index = model_dir / INDEX_FILE
    if index.is_file():
        weight_map: dict[str, str] = json.loads(index.read_text())["weight_map"]
        return weight_map
    if not (model_dir / WEIGHTS_FILE).is_file():
        raise FileNotFoundError(
            f"{model_dir}: got neither {WEIGHTS_FILE} nor {INDEX_FILE}, expected a model saved as safetensors; "
            "load it with transformers and call save_pretrained"
        )
    return dict.fromkeys(header(model_dir / WEIGHTS_FILE), WEIGHTS_FILE)


def stored_tensors(model_dir: PathLike) -> dict[str, StoredTensor]:
    """Every tensor of a checkpoint, from the files' own headers.

    Raises:
        FileNotFoundError: no safetensors there.
        DamagedCheckpoint: a file cannot be read, or the index and the files disagree.
    """
    model_dir, files = Path(model_dir), files_by_tensor(model_dir)
    headers = {file: header(model_dir / file) for file in sorted(set(files.values()))}
    held = {(name, file) for file, tensors in headers.items() for name in tensors}
    indexed = set(files.items())
    problems = [f"{name}: the index says {file}, which does not hold it" for name, file in indexed - held]
    problems += [f"{name}: in {file} and not in the index" for name, file in held - indexed]
    if problems:
        raise DamagedCheckpoint(f"{model_dir}:\n  " + "\n  ".join(sorted(problems)))
    return {name: headers[file][name] for name, file in files.items()}


def read_tensors(model_dir: PathLike, names: Iterable[str]) -> dict[str, Tensor]:
    """Some tensors of a checkpoint, each file opened once."""
    model_dir, files = Path(model_dir), files_by_tensor(model_dir)
    by_file: dict[str, list[str]] = {}
    for name in names:
        by_file.setdefault(files[name], []).append(name)
    tensors: dict[str, Tensor] = {}
    for file, wanted in by_file.items():
        with safe_open(model_dir / file, framework="pt") as opened:
            tensors.update({name: opened.get_tensor(name) for name in wanted})
    return tensors


def write_file(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """A safetensors file that appears whole or not at all."""
    with atomic_path(path) as partial:
        save_file(
            {name: t.detach().cpu().contiguous() for name, t in tensors.items()}, partial, {"format": "pt"}
        )


def write_index(folder: Path, weight_map: Mapping[str, str]) -> None:
    """The index of a sharded checkpoint, whole or not at all."""
    total = sum((folder / file).stat().st_size for file in set(weight_map.values()))
    content = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
    write_atomically(folder / INDEX_FILE, json.dumps(content, indent=2) + "\n")
