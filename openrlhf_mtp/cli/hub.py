"""A model by folder or by its name on the Hugging Face Hub."""

from __future__ import annotations

from pathlib import Path

from openrlhf_mtp.config.errors import JobError
from openrlhf_mtp.config.reading.paths import is_local

WANTED = ("*.json", "*.safetensors", "*.model", "*.txt", "*.jinja")
"""Configuration, weights, tokenizer; not the same weights again in another format."""


def model_folder(name: str) -> Path:
    """The folder of a model; one of the Hub is downloaded into its cache, or found there.

    Raises:
        JobError: neither a folder here nor a model that the Hub can give.
    """
    if is_local(name):
        return Path(name)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, allow_patterns=list(WANTED)))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError) as problem:
        reason = str(problem).strip().splitlines()[0]
        raise JobError(
            f"model: got {name}, which is not a folder here ({Path.cwd()}) and the Hugging Face Hub did not "
            f"provide it: {reason}"
        ) from problem
