"""Responses of a policy with its hidden states: made once, a part at a time, and read by every run.

FOLDER/part_0003.safetensors    tokens [B, T], hidden [B, T, H] after the final norm in float16, and of each row the
                                position of its first sampled token and the one after its last [B]
FOLDER/samples.json             how they were made; other settings need another folder

float16 keeps eleven bits of a hidden state. The policy that a head is compared with is the one of these states.
"""

import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from text.sampling import continue_prompts
from torch import Tensor
from torch.nn.functional import pad

from openrlhf_mtp.config.atomic_files import atomic_path, write_atomically
from openrlhf_mtp.training.head_batch import HeadBatch

SETTINGS = "samples.json"


@dataclass(frozen=True)
class Sampling:
    """How responses are made.

    Attributes:
        parts: how many batches of prompts.
        temperature: of the policy.
        seed: of prompts and samples.
        new_tokens: longest response.
        times: responses of each prompt.
    """

    parts: int
    temperature: float
    seed: int
    new_tokens: int
    times: int = 1

    def part_seed(self, number: int) -> int:
        """Seed of a part."""
        return self.seed * 100_003 + number


Prompts = Callable[[int], Tensor]
"""A part's number -> its prompts, all of one length [B, P]."""


def book_prompts(stream: Tensor, sampling: Sampling, *, rows: int, width: int) -> Prompts:
    """Pieces of a text at random places: `rows` of `width` tokens a part, from one row of tokens [M]."""

    def prompts(number: int) -> Tensor:
        generator = torch.Generator().manual_seed(sampling.part_seed(number))
        begin = torch.randint(len(stream) - width, (rows,), generator=generator)
        return stream[begin[:, None] + torch.arange(width)]

    return prompts


def make_samples(
    folder: Path, model: Any, sampling: Sampling, prompts: Prompts, end_tokens: Sequence[int] = ()
) -> None:
    """Make the parts that are not there yet.

    Args:
        folder: for the parts.
        model: the policy, in evaluation mode.
        sampling: how.
        prompts: of each part.
        end_tokens: tokens that end a response, which they belong to; none for text that goes on.

    Raises:
        ValueError: the folder holds samples that were made otherwise.
    """
    folder.mkdir(parents=True, exist_ok=True)
    claim(folder, sampling)
    missing = [number for number in range(sampling.parts) if not _part(folder, number).exists()]
    started, made = time.monotonic(), 0
    for done, number in enumerate(missing, 1):
        given = prompts(number)
        tokens, hidden = continue_prompts(
            model,
            given,
            given.shape[1] + sampling.new_tokens,
            temperature=sampling.temperature,
            seed=sampling.part_seed(number),
            times=sampling.times,
        )
        begin = torch.full((len(tokens),), given.shape[1])
        end = begin + response_lengths(tokens[:, given.shape[1] :], end_tokens)
        part = {"tokens": tokens.int(), "hidden": hidden.half(), "begin": begin, "end": end}
        with atomic_path(_part(folder, number)) as partial:
            save_file(part, partial)
        made += int((end - begin).sum())
        rate = made / (time.monotonic() - started)
        left = made / done * (len(missing) - done) / rate
        print(
            f"{folder.name}: part {number + 1} of {sampling.parts}, {rate:.0f} tokens/s, {left / 60:.0f} min left",
            file=sys.stderr,
            flush=True,
        )


def response_lengths(responses: Tensor, end_tokens: Sequence[int]) -> Tensor:
    """Tokens of each response up to its first end token, which counts, or all of them: [B, n] -> [B].

    >>> response_lengths(torch.tensor([[5, 1, 7], [5, 6, 7], [2, 5, 1]]), [1, 2]).tolist()
    [2, 3, 1]
    """
    is_end = torch.isin(responses, torch.tensor(end_tokens, dtype=responses.dtype))
    return ((is_end.cumsum(1) == 0).sum(1) + 1).clamp(max=responses.shape[1])


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
    """The responses of a folder, in memory; rows are padded on the right.

    Attributes:
        tokens: [N, T].
        hidden: float16 [N, T, H].
        begin, end: the position of the first sampled token, and the one after the last [N].

    Raises:
        FileNotFoundError: a part is missing.
    """

    def __init__(self, folder: Path) -> None:
        count = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))["parts"]
        parts = [load_file(_part(folder, number)) for number in range(count)]
        longest = max(part["tokens"].shape[1] for part in parts)
        self.tokens = torch.cat([pad(p["tokens"], (0, longest - p["tokens"].shape[1])) for p in parts])
        self.hidden = torch.cat([pad(p["hidden"], (0, 0, 0, longest - p["hidden"].shape[1])) for p in parts])
        self.begin, self.end = (torch.cat([part[name] for part in parts]) for name in ("begin", "end"))

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def anchors(self) -> int:
        """Anchors of all responses: every sampled token but the last of a response."""
        return int((self.end - self.begin - 1).sum())

    def batch(self, rows: Tensor) -> HeadBatch:
        """Some responses, by their numbers [B]."""
        longest = int(self.end[rows].max())
        place = torch.arange(longest)
        is_token = place < self.end[rows, None]
        return HeadBatch(
            sequences=self.tokens[rows, :longest].long(),
            attention_mask=is_token.long(),
            action_mask=is_token & (place >= self.begin[rows, None]),
            hidden=self.hidden[rows, :longest].float(),
        )
