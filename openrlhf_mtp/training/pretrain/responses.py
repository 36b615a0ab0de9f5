"""Responses of the policy on disk: written shard by shard, reused when nothing changed, resumed when cut off.

A folder holds `fingerprint.json` (what the responses were made with) and `shard-00000.jsonl`, ... A shard is
written atomically, so one that exists is complete.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from openrlhf_mtp.config.atomic_files import write_atomically

_HASHED_BYTES = 1 << 20
"""Of a weight file only the first and last MiB are hashed (with its size): enough to tell checkpoints apart."""


@dataclass(frozen=True)
class Response:
    """One sampled response.

    Attributes:
        prompt: number of the prompt, for splitting by prompt.
        prompt_ids: token ids of the prompt.
        response_ids: sampled token ids, and the end token among them, whichever it was, unless the response was cut.
        cut: it ended at its limit; None where a shard of an older version does not say.
    """

    prompt: int
    prompt_ids: tuple[int, ...]
    response_ids: tuple[int, ...]
    cut: bool | None = None


def policy_fingerprint(folder: str) -> str:
    """A digest of a policy folder's configuration and weights (subfolders, such as a head, do not count)."""
    digest = hashlib.sha256()
    for path in sorted(Path(folder).iterdir()):
        if path.suffix not in {".json", ".safetensors", ".bin"}:
            continue
        size = path.stat().st_size
        digest.update(f"{path.name}:{size}".encode())
        with path.open("rb") as file:
            digest.update(file.read(_HASHED_BYTES))
            if size > _HASHED_BYTES:
                file.seek(-_HASHED_BYTES, os.SEEK_END)
                digest.update(file.read())
    return digest.hexdigest()


def prompts_fingerprint(prompts: Sequence[Sequence[int]]) -> str:
    """A digest of tokenized prompts in order."""
    return hashlib.sha256(json.dumps([list(ids) for ids in prompts]).encode()).hexdigest()


def responses_fingerprint(responses: Sequence[Response]) -> str:
    """A digest of responses in order, tokens of the prompts included."""
    return hashlib.sha256(repr(list(responses)).encode()).hexdigest()


class ResponseCache:
    """The responses of one policy on one list of prompts.

    Args:
        folder: where shards go; created.
        made_with: everything that determines the responses. A folder made with something else is emptied.
    """

    def __init__(self, folder: Path, made_with: dict[str, Any]) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        marker = folder / "fingerprint.json"
        text = json.dumps(made_with, indent=1, sort_keys=True)
        if not marker.exists() or marker.read_text() != text:
            for shard in folder.glob("shard-*"):
                shard.unlink()
            marker.write_text(text)

    def _shard(self, number: int) -> Path:
        return self.folder / f"shard-{number:05d}.jsonl"

    def missing(self, shards: int) -> list[int]:
        """Numbers of the shards that still have to be generated."""
        return [number for number in range(shards) if not self._shard(number).exists()]

    def write(self, number: int, responses: Sequence[Response]) -> None:
        """Write one shard; it exists completely or not at all."""
        lines = [json.dumps(asdict(response)) + "\n" for response in responses]
        write_atomically(self._shard(number), "".join(lines))

    def read(self) -> list[Response]:
        """All responses, in order of prompts."""
        return list(read_responses(self.folder))


def read_responses(folder: Path) -> Iterator[Response]:
    """Responses of all shards in a folder."""
    for shard in sorted(folder.glob("shard-*.jsonl")):
        for line in shard.read_text().splitlines():
            row = json.loads(line)
            tokens = tuple(row["prompt_ids"]), tuple(row["response_ids"])
            yield Response(row["prompt"], *tokens, cut=row.get("cut"))


def split_by_prompt(
    responses: Sequence[Response], holdout_fraction: float
) -> tuple[list[Response], list[Response]]:
    """Training and held-out responses; no prompt is in both.

    Raises:
        ValueError: fewer than two prompts.
    """
    held_out = set(held_out_prompts(sorted({response.prompt for response in responses}), holdout_fraction))
    train = [response for response in responses if response.prompt not in held_out]
    return train, [response for response in responses if response.prompt in held_out]


def held_out_prompts(prompts: Sequence[int], holdout_fraction: float) -> list[int]:
    """Every n-th prompt is held out, n = round(1 / holdout_fraction), at least one of each kind.

    Raises:
        ValueError: fewer than two prompts.
    """
    if len(prompts) < 2:
        raise ValueError(f"got responses to {len(prompts)} prompts, expected 2 or more: one is held out")
    stride = min(len(prompts), max(2, round(1 / holdout_fraction)))
    return list(prompts[stride - 1 :: stride])
