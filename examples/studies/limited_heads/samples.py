"""Responses of a policy with its hidden states: made once, a part at a time, and read by every run.

FOLDER/part_0003.safetensors    tokens [B, T], hidden [B, T, H] after the final norm, float16
FOLDER/samples.json             how they were made; other settings need another folder

float16 keeps eleven bits of a hidden state. The policy that a head is compared with is the one of these states.
"""

import json
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from text.sampling import continue_prompts
from torch import Tensor

from openrlhf_mtp.config.atomic_files import atomic_path, write_atomically
from openrlhf_mtp.training.head_batch import HeadBatch

SETTINGS = "samples.json"


@dataclass(frozen=True)
class Sampling:
    """How responses are made.

    Attributes:
        rows: how many there are, rounded up to whole parts.
        temperature: of the policy.
        seed: of prompts and samples.
        prompt: tokens of the book that a response begins with.
        length: T, prompt and response.
        part: responses that are sampled side by side.
    """

    rows: int
    temperature: float
    seed: int
    prompt: int = 16
    length: int = 256
    part: int = 128

    @property
    def parts(self) -> int:
        """Number of parts."""
        return -(-self.rows // self.part)


def make_samples(folder: Path, model: Any, stream: Tensor, sampling: Sampling) -> None:
    """Make the parts that are not there yet.

    Args:
        folder: for the parts.
        model: the policy, in evaluation mode.
        stream: the book as one row of tokens, from which prompts are cut [M].
        sampling: how.

    Raises:
        ValueError: the folder holds samples that were made otherwise.
    """
    folder.mkdir(parents=True, exist_ok=True)
    claim(folder, sampling)
    missing = [number for number in range(sampling.parts) if not _part(folder, number).exists()]
    started = time.monotonic()
    for done, number in enumerate(missing, 1):
        seed = sampling.seed * 100_003 + number
        begin = torch.randint(
            len(stream) - sampling.prompt, (sampling.part,), generator=torch.Generator().manual_seed(seed)
        )
        prompts = stream[begin[:, None] + torch.arange(sampling.prompt)]
        tokens, hidden = continue_prompts(
            model, prompts, sampling.length, temperature=sampling.temperature, seed=seed
        )
        with atomic_path(_part(folder, number)) as partial:
            save_file({"tokens": tokens.int(), "hidden": hidden.half()}, partial)
        rate = done * sampling.part * sampling.length / (time.monotonic() - started)
        left = (len(missing) - done) * sampling.part * sampling.length / rate
        print(
            f"{folder.name}: part {number + 1} of {sampling.parts}, {rate:.0f} tokens/s, {left / 60:.0f} min left",
            file=sys.stderr,
            flush=True,
        )


def claim(folder: Path, sampling: Sampling) -> None:
    """Write how the folder's samples are made, or see that they are made so."""
    path = folder / SETTINGS
    asked = asdict(sampling)
    if not path.exists():
        write_atomically(path, json.dumps(asked) + "\n")
        return
    found = json.loads(path.read_text(encoding="utf-8"))
    if found != asked:
        raise ValueError(f"{folder}: got samples made with {found}, expected {asked}; choose another --runs")


def _part(folder: Path, number: int) -> Path:
    return folder / f"part_{number:04d}.safetensors"


class Samples:
    """The responses of a folder, in memory.

    Attributes:
        tokens: [N, T].
        hidden: float16 [N, T, H].
        prompt: tokens of each prompt.
    """

    def __init__(self, folder: Path) -> None:
        settings = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
        parts = [load_file(part) for part in sorted(folder.glob("part_*.safetensors"))]
        self.tokens = torch.cat([part["tokens"] for part in parts])[: settings["rows"]]
        self.hidden = torch.cat([part["hidden"] for part in parts])[: settings["rows"]]
        self.prompt: int = settings["prompt"]

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def response_tokens(self) -> int:
        """Sampled tokens of a response."""
        return self.tokens.shape[1] - self.prompt

    def batch(self, rows: Tensor) -> HeadBatch:
        """Some responses, by their numbers [B]."""
        sequences = self.tokens[rows].long()
        action_mask = torch.ones_like(sequences, dtype=torch.bool)
        action_mask[:, : self.prompt] = False
        return HeadBatch(sequences, torch.ones_like(sequences), action_mask, self.hidden[rows].float())
