"""Hidden states of the trunk on disk, so that the policy's forward pass runs once for each response.

A folder holds `fingerprint.json` (what the states were made with), `states.bin`, the states [T, H] of one response
after the other in the policy's type, and `checksums.bin`. A response is there when its checksum is. Every rank writes
the responses that it computed, at places that the lengths alone decide, and reads all of them.
"""

from __future__ import annotations

import json
import os
import shutil
import zlib
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from openrlhf_mtp.config.atomic_files import write_atomically
from openrlhf_mtp.training.pretrain.responses import Response

_MARKER, _STATES, _CHECKSUMS = "fingerprint.json", "states.bin", "checksums.bin"
_CHECKSUM_BYTES = 8
"""A checksum of 32 bits plus one; 0 says that nothing is there."""


class DamagedError(Exception):
    """The stored states of a response differ from those that were written."""


def length(response: Response) -> int:
    """Tokens of prompt and response."""
    return len(response.prompt_ids) + len(response.response_ids)


def stored_bytes(responses: Sequence[Response], width: int, dtype: torch.dtype) -> int:
    """Size of the states of these responses; equal ones are stored once."""
    return sum(length(response) for response in set(responses)) * width * dtype.itemsize


def prepare(folder: Path, made_with: dict[str, Any]) -> None:
    """Make the folder ready for states of this kind, before any rank opens it; others that lie there are removed."""
    text = json.dumps(made_with, indent=1, sort_keys=True)
    marker = folder / _MARKER
    if marker.exists() and marker.read_text(encoding="utf-8") == text:
        return
    remove(folder)
    folder.mkdir(parents=True)
    for name in (_STATES, _CHECKSUMS):
        (folder / name).touch()
    write_atomically(marker, text)


def remove(folder: Path) -> None:
    """Remove the states; nothing happens where there are none."""
    shutil.rmtree(folder, ignore_errors=True)


class StateStore:
    """The states of some responses, open for one rank.

    Args:
        folder: from `prepare`.
        responses: all that the folder may hold, the same on every rank.
        width: H.
        dtype: of the states.

    Raises:
        OSError: the files are not there.
    """

    def __init__(self, folder: Path, responses: Sequence[Response], width: int, dtype: torch.dtype) -> None:
        self._width, self._dtype = width, dtype
        distinct = list(dict.fromkeys(responses))
        starts = accumulate((length(response) for response in distinct), initial=0)
        self._start = {
            response: start * width * dtype.itemsize
            for response, start in zip(distinct, starts, strict=False)
        }
        self._number = {response: number for number, response in enumerate(distinct)}
        self._states = os.open(folder / _STATES, os.O_RDWR)
        self._checksums = os.open(folder / _CHECKSUMS, os.O_RDWR)
        self._known: dict[Response, int] = {}
        self._verified: set[Response] = set()

    def close(self) -> None:
        """Close the files."""
        os.close(self._states)
        os.close(self._checksums)

    def __contains__(self, response: Response) -> bool:
        return response in self._number and self._checksum(response) > 0

    def write(self, response: Response, states: Tensor) -> None:
        """Store the states [T, H] of one response.

        Raises:
            OSError: there is no room, or the disk fails.
        """
        assert states.shape == (length(response), self._width)
        assert states.dtype == self._dtype
        data = _bytes(states.contiguous())
        _write(self._states, data, self._start[response])
        checksum = zlib.crc32(data) + 1
        number = checksum.to_bytes(_CHECKSUM_BYTES, "little")
        _write(self._checksums, memoryview(number), self._number[response] * _CHECKSUM_BYTES)
        self._known[response] = checksum

    def read(self, responses: Sequence[Response]) -> Tensor:
        """The states of responses, padded with zeros on the right: [B, T, H].

        Raises:
            DamagedError: one is not as it was written. A response is compared with its checksum the first time.
            OSError: the disk fails.
        """
        longest = max(length(response) for response in responses)
        states = torch.zeros(len(responses), longest, self._width, dtype=self._dtype)
        for row, response in enumerate(responses):
            self._read_into(states[row, : length(response)], response)
        return states

    def _read_into(self, states: Tensor, response: Response) -> None:
        data, start = _bytes(states), self._start[response]
        read = 0
        while read < len(data):
            piece = os.preadv(self._states, [data[read:]], start + read)
            if not piece:
                raise DamagedError(f"{_STATES} ends before the states of a response")
            read += piece
        if response not in self._verified:
            if zlib.crc32(data) + 1 != self._checksum(response):
                raise DamagedError("the states of a response do not have their checksum")
            self._verified.add(response)

    def _checksum(self, response: Response) -> int:
        known = self._known.get(response, 0)
        if not known:
            at = self._number[response] * _CHECKSUM_BYTES
            known = int.from_bytes(os.pread(self._checksums, _CHECKSUM_BYTES, at), "little")
            if known:
                self._known[response] = known
        return known


def _bytes(tensor: Tensor) -> memoryview:
    """A contiguous tensor's memory."""
    assert tensor.is_contiguous()
    memory: Any = tensor.view(torch.uint8).numpy()
    return memoryview(memory).cast("B")


def _write(file: int, data: memoryview, start: int) -> None:
    written = 0
    while written < len(data):
        written += os.pwrite(file, data[written:], start + written)
