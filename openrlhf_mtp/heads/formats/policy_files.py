"""The files of a policy's folder that are the model: what `equip` and `export` copy, and what they leave behind.

Weights are those that the checkpoint's index names. Of the rest everything belongs to the model that holds no weights:
configuration, tokenizer, chat templates, code, licenses, also in sub-folders. A folder that a trainer saved into holds
checkpoints and states of its optimizer beside that, which can be many times the model.
"""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

from openrlhf_mtp.config.atomic_files import copy_atomically
from openrlhf_mtp.config.head_contract.folder import CONFIG_FILE, HEAD_FOLDER
from openrlhf_mtp.heads.formats.shards import INDEX_FILE, files_by_tensor

LIST_FILE = "export.json"
"""What an export wrote; it says nothing of a folder that is made of it."""
_WEIGHTS = (
    "*.safetensors",
    "*.bin",
    "*.pt",
    "*.pth",
    "*.gguf",
    "*.onnx*",
    "*.h5",
    "*.msgpack",
    "*.ckpt",
    "*.index.json",
)
_TRAINING_FOLDERS = ("global_step*", "checkpoint-*", "checkpoints", "runs", "wandb")
_TRAINING_FILES = ("latest", "zero_to_fp32.py", "trainer_state.json", "events.out.tfevents*")
"""Of DeepSpeed, of transformers' Trainer, of loggers."""


def copy_weights(policy_dir: Path, out_dir: Path) -> None:
    """Copy the files of the checkpoint's tensors, and their index if there is one."""
    for name in sorted(set(files_by_tensor(policy_dir).values())):
        copy_atomically(policy_dir / name, out_dir / name)
    if (policy_dir / INDEX_FILE).is_file():
        copy_atomically(policy_dir / INDEX_FILE, out_dir / INDEX_FILE)


def copy_other_files(policy_dir: Path, out_dir: Path) -> None:
    """Copy every file of the model that holds no weights; a head's folder is not looked into."""
    for path in other_files(policy_dir):
        target = out_dir / path.relative_to(policy_dir)
        target.parent.mkdir(parents=True, exist_ok=True)
        copy_atomically(path, target)


def other_files(folder: Path) -> Iterator[Path]:
    """The files of a policy's folder that belong to the model and hold no weights, the configuration last."""
    found = sorted(_within(folder))
    yield from (path for path in found if path != folder / CONFIG_FILE)
    yield from (path for path in found if path == folder / CONFIG_FILE)


def _within(folder: Path) -> Iterator[Path]:
    for path in folder.iterdir():
        if path.name.startswith("."):
            continue
        if path.is_dir():
            if path.name != HEAD_FOLDER and not _matches(path.name, _TRAINING_FOLDERS):
                yield from _within(path)
        elif path.name != LIST_FILE and not _matches(path.name, _WEIGHTS + _TRAINING_FILES):
            yield path


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch(name, pattern) for pattern in patterns)
