"""Write a policy and its head for others to use, and account for every tensor.

| format | what it is | who serves it |
|---|---|---|
| `native` | one checkpoint as it was published, the head under the family's own names | stock vLLM, `method: mtp` |
| `draft-folder` | the head alone, `config.json` and `model.safetensors` | vLLM with our plugin, `method: eagle` |
| `merged` | the policy with the head in `mtp/`, as `equip` lays it out | vLLM with our plugin |

Each file appears whole or not at all. The result is read again afterwards: every tensor of the sources must be there
with its shape and type, those of the head bit for bit, and nothing else. The list goes to `export.json`, which comes
last: a folder without one is not a finished export.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from openrlhf_mtp.config.atomic_files import copy_atomically, write_atomically
from openrlhf_mtp.config.head_contract.folder import CONFIG_FILE, HEAD_FOLDER, WEIGHTS_FILE
from openrlhf_mtp.config.native_layouts import LAYOUTS, Layout, vllm_architecture
from openrlhf_mtp.heads.formats.accounting import ExportError, Planned, account
from openrlhf_mtp.heads.formats.head_folder import head_tensor_specs, read_head
from openrlhf_mtp.heads.formats.lora_merge import is_adapter, merged_with_base
from openrlhf_mtp.heads.formats.native import read_config, read_trunk_config, to_native
from openrlhf_mtp.heads.formats.policy_files import LIST_FILE, copy_other_files, copy_weights
from openrlhf_mtp.heads.formats.published import Published
from openrlhf_mtp.heads.formats.shards import (
    PathLike,
    files_by_tensor,
    read_tensors,
    stored_as,
    stored_tensors,
    write_file,
    write_index,
)
from openrlhf_mtp.heads.head_config import HeadConfig

NATIVE_FILE = "model-mtp.safetensors"
TRUNK_FILE = "model-trunk.safetensors"


@dataclass(frozen=True)
class Head:
    """A head as its file holds it.

    Attributes:
        folder: its folder.
        config: its shape.
        tensors: by our names.
        published: where the checkpoint is that its policy was taken out of, if not where it was.
    """

    folder: Path
    config: HeadConfig
    tensors: Mapping[str, Tensor]
    published: Path | None = None


def export(
    policy_dir: PathLike,
    head_dir: PathLike,
    out_dir: PathLike,
    format: str,
    published: PathLike | None = None,
) -> list[Planned]:
    """Write one of `FORMATS` into an empty folder.

    Args:
        policy_dir: the policy's checkpoint; after training with LoRA the adapter's folder, which is merged into its
            base first.
        head_dir: the head's folder.
        out_dir: a folder that is empty or does not exist.
        format: see the table above.
        published: the checkpoint that the policy was taken out of, if it is not where `equip` found it; `native` alone
            writes it back.

    Returns:
        Every tensor that was written.

    Raises:
        FileNotFoundError: no policy or no head there.
        HeadMismatch, DamagedCheckpoint: the head does not fit the policy, or a file cannot be read.
        ExportError: the folder is not empty, the head has no native layout, or something was left out.
    """
    policy_dir, head_dir, out_dir = Path(policy_dir), Path(head_dir), Path(out_dir)
    if format not in FORMATS:
        raise ExportError(f"format: got {format!r}, expected one of {', '.join(FORMATS)}")
    if published is not None and format != "native":
        raise ExportError(
            f"--published: got {published} with format {format}, expected native, which writes it back"
        )
    if out_dir.exists() and any(out_dir.iterdir()):
        raise ExportError(f"{out_dir}: got a folder with files in it, expected an empty or a new one")
    with merged_with_base(policy_dir) if is_adapter(policy_dir) else nullcontext(policy_dir) as policy:
        config, tensors = read_head(head_dir, read_trunk_config(policy))
        out_dir.mkdir(parents=True, exist_ok=True)
        head = Head(head_dir, config, tensors, None if published is None else Path(published))
        written = account(out_dir, FORMATS[format](policy, head, out_dir))
    rows = [
        {"file": w.file, "name": w.name, "shape": w.stored.shape, "dtype": w.stored.dtype, "source": w.source}
        for w in written
    ]
    record = {"format": format, "policy": str(policy_dir), "head": str(head_dir), "tensors": rows}
    write_atomically(out_dir / LIST_FILE, json.dumps(record, indent=2) + "\n")
    return written


def native_config(content: Mapping[str, Any], layout: Layout, blocks: int) -> dict[str, Any]:
    """The policy's config.json with what makes vLLM look for the head: the number of blocks and, where the model
    type does not say it, the architecture."""
    changed = {**content, layout.count_field: blocks, "architectures": vllm_architecture(content, layout)}
    if "text_config" in content:
        changed["text_config"] = {**content["text_config"], layout.count_field: blocks}
    return changed


def _draft_folder(policy_dir: Path, head: Head, out_dir: Path) -> list[Planned]:
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        copy_atomically(head.folder / name, out_dir / name)
    stored = head_tensor_specs(head.folder)
    return [
        Planned(WEIGHTS_FILE, name, stored[name], "head", tensor) for name, tensor in head.tensors.items()
    ]


def _merged(policy_dir: Path, head: Head, out_dir: Path) -> list[Planned]:
    stored, files = stored_tensors(policy_dir), files_by_tensor(policy_dir)
    copy_weights(policy_dir, out_dir)
    copy_other_files(policy_dir, out_dir)
    content = read_config(policy_dir)
    architectures = vllm_architecture(content, head.config.native)
    if architectures != content.get("architectures"):
        changed = {**content, "architectures": architectures}
        write_atomically(out_dir / CONFIG_FILE, json.dumps(changed, indent=2) + "\n")
    (out_dir / HEAD_FOLDER).mkdir()
    of_head = _draft_folder(policy_dir, head, out_dir / HEAD_FOLDER)
    return [Planned(files[name], name, stored[name], "policy") for name in stored] + [
        Planned(f"{HEAD_FOLDER}/{p.file}", p.name, p.stored, p.source, p.content) for p in of_head
    ]


def _native(policy_dir: Path, head: Head, out_dir: Path) -> list[Planned]:
    layout, blocks = head.config.native, head.config.num_blocks
    if layout is None:
        raise ExportError(
            f"{head.folder}: got a head made by `openrlhf-mtp equip`, expected one taken over from a checkpoint whose "
            f"layout vLLM serves by itself ({', '.join(LAYOUTS)}); its math is our own: export it as draft-folder or "
            "merged"
        )
    layers = read_trunk_config(policy_dir).num_hidden_layers
    of_head = to_native(head.config, head.tensors, layers)
    copies = {copy: name for n in range(blocks) for copy, name in layout.copied(n, layers).items()}
    absent = sorted(set(copies.values()) - stored_tensors(policy_dir).keys())
    if absent:
        raise ExportError(
            f"{policy_dir}: got no {', '.join(absent)}, expected it in the policy's files, since a {layout.name} head "
            "repeats it (a policy whose output head is its embedding has none): export as draft-folder or merged"
        )
    originals = read_tensors(policy_dir, set(copies.values()))
    published = Published.of(policy_dir, head.published)
    copy_other_files(policy_dir, out_dir)
    if published is None:
        trunk = _copy_trunk(policy_dir, out_dir, lambda name: not layout.owns(name, layers, blocks))
    else:
        published.copy_files(policy_dir, out_dir)
        trunk = published.write_around(policy_dir, out_dir)
    native = {**of_head, **{copy: originals[name] for copy, name in copies.items()}}
    write_file(out_dir / NATIVE_FILE, {name: tensor.clone() for name, tensor in native.items()})
    write_index(
        out_dir, {**{tensor.name: tensor.file for tensor in trunk}, **dict.fromkeys(native, NATIVE_FILE)}
    )
    whole = read_config(policy_dir) if published is None else published.config
    content = native_config(whole, layout, blocks)
    write_atomically(out_dir / CONFIG_FILE, json.dumps(content, indent=2) + "\n")
    return trunk + [
        Planned(NATIVE_FILE, name, stored_as(tensor), copies.get(name, "head"), tensor)
        for name, tensor in native.items()
    ]


FORMATS: dict[str, Callable[[Path, Head, Path], list[Planned]]] = {
    "native": _native,
    "draft-folder": _draft_folder,
    "merged": _merged,
}
"""Format -> what writes it and says what it wrote."""


def _copy_trunk(policy_dir: Path, out_dir: Path, keep: Callable[[str], bool]) -> list[Planned]:
    """The policy's files without the tensors of an older head; a file without such is copied as it is."""
    stored, files = stored_tensors(policy_dir), files_by_tensor(policy_dir)
    planned: list[Planned] = []
    for file in sorted(set(files.values())):
        names = [name for name in files if files[name] == file]
        kept = [name for name in names if keep(name)]
        # transformers would read a file of this name alone, without the index
        target = TRUNK_FILE if file == WEIGHTS_FILE else file
        if kept == names:
            copy_atomically(policy_dir / file, out_dir / target)
            planned += [Planned(target, name, stored[name], "policy") for name in kept]
        elif kept:
            tensors = read_tensors(policy_dir, kept)
            write_file(out_dir / target, tensors)
            planned += [Planned(target, name, stored[name], "policy", tensors[name]) for name in kept]
    return planned
