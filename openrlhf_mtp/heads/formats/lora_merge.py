"""A policy trained with LoRA: OpenRLHF saves the adapter alone, and others want one model."""

from __future__ import annotations

import json
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from openrlhf_mtp.heads.formats.shards import DamagedCheckpoint

ADAPTER_CONFIG = "adapter_config.json"
_TOKENIZER = ("token", "vocab", "merges", "special", "added", "chat_template", "generation")


def is_adapter(policy_dir: Path) -> bool:
    """Whether a folder holds an adapter and no model of its own."""
    return (policy_dir / ADAPTER_CONFIG).is_file()


@contextmanager
def merged_with_base(policy_dir: Path) -> Iterator[Path]:
    """A temporary folder with the adapter merged into its base model, in the base's type, and the policy's tokenizer.

    Raises:
        FileNotFoundError: the base model, which the adapter's configuration names, is not there.
        DamagedCheckpoint: the adapter's tensors are missing, or do not fit the base.
    """
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    base_dir = Path(json.loads((policy_dir / ADAPTER_CONFIG).read_text())["base_model_name_or_path"])
    if not (base_dir / "config.json").is_file():
        raise FileNotFoundError(
            f"{policy_dir}: its {ADAPTER_CONFIG} names the base model {base_dir}, which is not there; put it back or "
            "change base_model_name_or_path"
        )
    base: Any = AutoModelForCausalLM.from_pretrained(base_dir, dtype="auto")
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message="Found missing adapter keys")
            model: Any = PeftModel.from_pretrained(base, str(policy_dir))
    except (UserWarning, RuntimeError, ValueError, SafetensorError) as error:
        raise DamagedCheckpoint(
            f"{policy_dir}: the adapter does not fit its base model {base_dir}: {error}"
        ) from error
    with torch.no_grad():
        merged = model.merge_and_unload(safe_merge=True)
    with tempfile.TemporaryDirectory() as folder:
        merged.save_pretrained(folder)
        for path in policy_dir.iterdir():
            if path.is_file() and path.name.startswith(_TOKENIZER):
                (Path(folder) / path.name).write_bytes(path.read_bytes())
        yield Path(folder)
