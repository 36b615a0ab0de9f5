"""Copies a pod's logs to a folder that outlives it, the run folder's `logs/POD`, in bounded space."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from openrlhf_mtp.cluster.pod_logs.console import is_output
from openrlhf_mtp.cluster.pod_logs.follower import Chunk, numbered

_SHARE = 16
"""One file gets a sixteenth of the space at most, so that one that floods does not drive the others out."""


@dataclass
class Keeper:
    """Writes chunks below `find()/SESSION`.

    Of a file that outgrows its share the beginning and the end are kept:

        worker-1.err                its beginning
        worker-1.err.from-9000000   its last two parts, each by the byte that it begins with
        worker-1.err.from-9500000

    When all files together outgrow the space, those that were written longest ago go first, and what Ray says of itself
    before what workers print. Writing the same chunk twice is the same as once.

    Args:
        find: the folder of this pod, asked for at the first chunk: the volume may not be there before.
        limit: bytes of all files together; they may be exceeded by a sixteenth for a moment.
    """

    find: Callable[[], Path]
    limit: int
    _parts: dict[Path, list[int]] = field(default_factory=dict)
    _unchecked: int = 0

    @cached_property
    def folder(self) -> Path:
        """The folder of this pod; OSError when there is none yet."""
        return self.find()

    def take(self, chunk: Chunk) -> None:
        """Write a chunk into the run folder.

        Raises:
            OSError: it cannot be written.
        """
        path = self.folder / chunk.session / chunk.name
        start = self._part_for(path, chunk.offset)
        part = _part(path, start)
        part.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT, 0o644)
        try:
            _write(descriptor, chunk.data, chunk.offset - start)
        finally:
            os.close(descriptor)  # where a network file system sends it off, and says whether it could
        self._unchecked += len(chunk.data)
        if self._unchecked > self.limit // _SHARE:
            self._trim()

    def _part_for(self, path: Path, offset: int) -> int:
        """The byte that the part begins with into which `offset` is written: the last one, or a new one where that is
        full, has been removed, or ends before (bytes were left out)."""
        starts = self._parts.setdefault(path, _starts(path))
        if starts and starts[-1] <= offset:
            place = offset - starts[-1]
            if place <= _size(_part(path, starts[-1])) and place < self._room(starts[-1]):
                return starts[-1]
        starts.append(offset)
        while len(starts) > 3:
            _part(path, starts.pop(1)).unlink(missing_ok=True)
        return offset

    def _room(self, start: int) -> int:
        """Bytes of a part: half of a file's share is for its beginning, the rest for two that take turns."""
        return self.limit // _SHARE // (2 if start == 0 else 4)

    def _trim(self) -> None:
        self._unchecked = 0
        found = [(path, path.stat()) for path in self.folder.rglob("*") if path.is_file()]
        excess = sum(stat.st_size for _, stat in found) - self.limit
        found.sort(key=lambda one: (is_output(one[0].name), one[1].st_mtime_ns))
        for path, stat in found:
            if excess <= 0:
                return
            path.unlink(missing_ok=True)
            excess -= stat.st_size


def own_folder(logs: Path, pod: str, memory: Path) -> Path:
    """A folder below `logs` for this pod alone: `POD`, or `POD.2` where another of that name was there before, as a
    StatefulSet's pod is at every attempt. `memory` is a file of the pod's own, so that a container that is restarted
    in the same pod continues in the same folder.

    Raises:
        OSError: it cannot be made.
    """
    if memory.exists():
        return logs / memory.read_text(encoding="utf-8")
    logs.mkdir(parents=True, exist_ok=True)
    for name in numbered(pod, "."):
        try:
            (logs / name).mkdir()
        except FileExistsError:
            continue
        memory.parent.mkdir(parents=True, exist_ok=True)
        memory.write_text(name, encoding="utf-8")
        return logs / name
    raise AssertionError("there is always another number")


def _part(path: Path, start: int) -> Path:
    return path.with_name(f"{path.name}.from-{start}") if start else path


def _starts(path: Path) -> list[int]:
    """The parts that exist, in order."""
    found = [int(one.name.rpartition("-")[2]) for one in path.parent.glob(f"{path.name}.from-*")]
    return sorted([*([0] if path.exists() else []), *found])


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return -1


def _write(descriptor: int, data: bytes, place: int) -> None:
    written = 0
    while written < len(data):
        written += os.pwrite(descriptor, data[written:], place + written)
