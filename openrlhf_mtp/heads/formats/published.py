"""Checkpoints that hold a language model inside a larger one, as Qwen3.5 is published: a vision tower around it.

| tensor | in the published checkpoint | in the text model that `equip` writes |
|---|---|---|
| of the language model | `model.language_model.*` | `model.*` |
| output head, native MTP head | `lm_head.*`, `mtp.*` | the same |
| of the vision tower | `model.visual.*` | – |

The language model is trained on text. `export --format native` puts it back between what it came from: the text
model's config.json says where that is, and a trainer saves the field with the rest of the configuration.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from openrlhf_mtp.config.atomic_files import copy_atomically, write_atomically
from openrlhf_mtp.config.head_contract.folder import CONFIG_FILE
from openrlhf_mtp.heads.formats.accounting import ExportError, Planned
from openrlhf_mtp.heads.formats.native import read_config
from openrlhf_mtp.heads.formats.policy_files import copy_other_files, other_files
from openrlhf_mtp.heads.formats.shards import (
    INDEX_FILE,
    StoredTensor,
    files_by_tensor,
    read_tensors,
    stored_tensors,
    write_file,
    write_index,
)

FIELD = "published_checkpoint"
"""Of a text model's config.json: the folder that it was taken out of."""
ARCHITECTURES = {"qwen3_5": "Qwen3_5ForCausalLM"}
"""Model type of a published checkpoint -> class of its language model alone."""
_WITHIN, _ALONE = "model.language_model.", "model."


def holds_more_than_text(model_dir: Path) -> bool:
    """Whether the checkpoint's language model is a part of it.

    Raises:
        FileNotFoundError: no model there.
    """
    return "vision_config" in read_config(model_dir)


def text_name(name: str) -> str | None:
    """A published tensor's name in the text model; None of what the text model does not have.

    >>> text_name("model.language_model.norm.weight"), text_name("model.visual.norm.weight")
    ('model.norm.weight', None)
    """
    if name.startswith(_WITHIN):
        return _ALONE + name.removeprefix(_WITHIN)
    return None if name.startswith(_ALONE) else name


def text_config(model_dir: Path) -> dict[str, Any]:
    """The config.json of a published checkpoint's language model alone.

    Raises:
        ValueError: a model type that is not known here.
    """
    whole = read_config(model_dir)
    if whole.get("model_type") not in ARCHITECTURES:
        raise ValueError(
            f"model_type: got {whole.get('model_type')!r} with a vision_config, expected {', '.join(ARCHITECTURES)} "
            "or a text model"
        )
    ties = {key: whole[key] for key in ("tie_word_embeddings",) if key in whole}
    own = {"architectures": [ARCHITECTURES[whole["model_type"]]], FIELD: str(model_dir.resolve())}
    return {**whole["text_config"], **ties, **own}


def write_text_model(model_dir: Path, out_dir: Path) -> None:
    """The language model of a published checkpoint as a checkpoint of its own, file by file, its configuration last."""
    config = text_config(model_dir)
    out_dir.mkdir(parents=True, exist_ok=True)
    weight_map: dict[str, str] = {}
    for file, names in _by_file(files_by_tensor(model_dir)).items():
        kept = {name: alone for name in names if (alone := text_name(name)) is not None}
        if kept:
            tensors = read_tensors(model_dir, kept)
            write_file(out_dir / file, {kept[name]: tensor for name, tensor in tensors.items()})
            weight_map |= dict.fromkeys(kept.values(), file)
    if (model_dir / INDEX_FILE).is_file():
        write_index(out_dir, weight_map)
    copy_other_files(model_dir, out_dir)
    write_atomically(out_dir / CONFIG_FILE, json.dumps(config, indent=2) + "\n")


@dataclass(frozen=True)
class Published:
    """The checkpoint that a text model was taken out of.

    Attributes:
        folder: of the published checkpoint.
        config: its config.json.
    """

    folder: Path
    config: Mapping[str, Any]

    @classmethod
    def of(cls, policy_dir: Path, given: Path | None) -> Published | None:
        """That of a policy, None if it is a model of its own.

        Args:
            policy_dir: the policy.
            given: where the published checkpoint is now, if not where it was.

        Raises:
            ExportError: the checkpoint is not there, or one was given to a policy that was not taken out of any.
        """
        recorded = read_config(policy_dir).get(FIELD)
        if recorded is None:
            if given is not None:
                raise ExportError(
                    f"{policy_dir}: got --published {given}, expected none: its config.json has no {FIELD}, so the "
                    "policy is a whole model"
                )
            return None
        folder = Path(recorded) if given is None else given
        if not (folder / CONFIG_FILE).is_file():
            raise ExportError(
                f"{policy_dir}: its vision tower is in {folder}, which is not there; give the folder of the published "
                "checkpoint with --published"
            )
        return cls(folder, read_config(folder))

    def write_around(self, policy_dir: Path, out_dir: Path) -> list[Planned]:
        """Every tensor of the published checkpoint but the MTP head's, those of the language model from the policy.

        Raises:
            ExportError: the two do not hold the same language model.
        """
        published, policy = stored_tensors(self.folder), stored_tensors(policy_dir)
        within = {
            name: alone
            for name in published
            if (alone := text_name(name)) is not None and not _is_heads(name)
        }
        _require_same(within, policy)
        planned: list[Planned] = []
        for file, names in _by_file(files_by_tensor(self.folder)).items():
            kept = [name for name in names if not _is_heads(name)]
            taken = read_tensors(policy_dir, [within[name] for name in kept if name in within])
            rest = read_tensors(self.folder, [name for name in kept if name not in within])
            tensors = {name: rest[name] if name in rest else taken[within[name]] for name in kept}
            target = f"published-{file}"  # transformers would read model.safetensors without the index
            if tensors:
                write_file(out_dir / target, tensors)
            for name, tensor in tensors.items():
                is_text = name in within
                stored = policy[within[name]] if is_text else published[name]
                planned.append(Planned(target, name, stored, "policy" if is_text else "published", tensor))
        return planned

    def copy_files(self, policy_dir: Path, out_dir: Path) -> None:
        """The published checkpoint's files that hold no weights and that the policy does not have."""
        own = {path.relative_to(policy_dir) for path in other_files(policy_dir)}
        for path in other_files(self.folder):
            name = path.relative_to(self.folder)
            if name not in own and path.name != CONFIG_FILE:
                (out_dir / name).parent.mkdir(parents=True, exist_ok=True)
                copy_atomically(path, out_dir / name)


def _is_heads(name: str) -> bool:
    return name.startswith("mtp.")


def _require_same(within: Mapping[str, str], policy: Mapping[str, StoredTensor]) -> None:
    own = {name for name in policy if not _is_heads(name)}
    absent, unknown = sorted({*within.values()} - own), sorted(own - {*within.values()})
    if absent or unknown:
        raise ExportError(
            "the policy is not the published checkpoint's language model: "
            f"absent {', '.join(absent) or 'none'}; unknown {', '.join(unknown) or 'none'}"
        )


def _by_file(files: Mapping[str, str]) -> dict[str, list[str]]:
    names: dict[str, list[str]] = {}
    for name, file in sorted(files.items()):
        names.setdefault(file, []).append(name)
    return names
