"""The tensors that an export must contain, and the proof that it does."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from openrlhf_mtp.heads.formats.shards import StoredTensor, header


class ExportError(ValueError):
    """The export was not made, or is not whole."""


@dataclass(frozen=True)
class Planned:
    """One tensor of an export.

    Attributes:
        file: relative to the export's folder.
        name: in that file.
        stored: its shape and type.
        source: what it was before: "policy", "head", or the name of the policy's tensor that it repeats.
        content: what its bits must be; None where a whole file was copied.
    """

    file: str
    name: str
    stored: StoredTensor
    source: str
    content: Tensor | None = None


def account(folder: Path, planned: Iterable[Planned]) -> list[Planned]:
    """Read an export back and compare it with the plan.

    Returns:
        The plan.

    Raises:
        ExportError: a tensor is missing, unexpected, has a different shape or dtype, or is not bit-identical; all
            of them are listed.
        DamagedCheckpoint: a file cannot be read.
    """
    expected = {(tensor.file, tensor.name): tensor for tensor in planned}
    paths = sorted(folder.rglob("*.safetensors"))
    found = {
        (str(path.relative_to(folder)), name): stored
        for path in paths
        for name, stored in header(path).items()
    }
    problems = [f"{name}: left out of {file}" for file, name in expected.keys() - found.keys()]
    problems += [f"{name}: in {file}, from nowhere" for file, name in found.keys() - expected.keys()]
    for key in expected.keys() & found.keys():
        tensor, stored = expected[key], found[key]
        if tensor.stored != stored:
            problems.append(
                f"{tensor.name}: shape {list(stored.shape)} {stored.dtype} in {tensor.file}, expected "
                f"{list(tensor.stored.shape)} {tensor.stored.dtype}"
            )
        elif tensor.content is not None and not _same_bits(folder / tensor.file, tensor.name, tensor.content):
            problems.append(f"{tensor.name}: other values in {tensor.file} than in its source")
    if problems:
        raise ExportError(f"{folder}: the export is not whole:\n  " + "\n  ".join(sorted(problems)))
    return list(expected.values())


def _same_bits(path: Path, name: str, content: Tensor) -> bool:
    with safe_open(path, framework="pt") as file:
        written = file.get_tensor(name)
    return torch.equal(written.view(torch.uint8), content.detach().cpu().contiguous().view(torch.uint8))
