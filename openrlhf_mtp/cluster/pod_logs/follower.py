"""New output in the log folders of a pod's Ray sessions: files that grow, are renamed, cut off or replaced."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path
from typing import BinaryIO

from openrlhf_mtp.config.atomic_files import atomic_path

CHUNK_BYTES = 1 << 16
_HEAD_BYTES = 64
_REWRITTEN = "debug_state"
"""Ray rewrites these files every few seconds: a state, no log."""


@dataclass(frozen=True)
class Chunk:
    """Bytes of a log file: `data` is at `offset` of the file that was first seen as `name` below `session`."""

    session: str
    name: str
    offset: int
    data: bytes


@dataclass
class Source:
    """A file as far as it has been read. It is known by its inode, because a rotation renames it; `head` is how it
    begins (hexadecimal), which tells a file that was replaced or that got the inode of another."""

    session: str
    name: str
    offset: int = 0
    head: str = ""
    mtime_ns: int = 0


class Follower:
    """Reads each log file below `root/session_*/logs` once, also across restarts of its own.

    Args:
        root: Ray's folder, usually /tmp/ray; it may not be there yet.
        memory: a file for what has been read.
        most_behind: bytes of a file that wait to be read, at most; where more do, some are left out, but never a file's
            beginning.
        wanted: whether a file, by its path below `logs`, is read.
    """

    def __init__(
        self,
        root: Path,
        memory: Path,
        *,
        most_behind: int,
        wanted: Callable[[str], bool] = lambda name: True,
    ) -> None:
        self.root, self.memory = root, memory
        self.most_behind, self.wanted = most_behind, wanted
        self.sources = _recalled(memory)
        self._changed = False

    def new(self) -> Iterator[Chunk]:
        """Yield the output written since. A chunk counts as read when the next one is asked for."""
        for session, name, path in self._files():
            try:
                stat = path.stat()
                known = self.sources.get(_key(stat))
                if stat.st_size == 0 or (
                    known and (known.offset, known.mtime_ns) == (stat.st_size, stat.st_mtime_ns)
                ):
                    continue
                file = path.open("rb")
            except OSError:  # renamed or removed just now
                continue
            with file:
                yield from self._read(file, session, name)

    def remember(self) -> None:
        """Write down what has been read."""
        if self._changed:
            self.memory.parent.mkdir(parents=True, exist_ok=True)
            text = json.dumps({key: asdict(one) for key, one in self.sources.items()})
            with atomic_path(self.memory) as partial:
                partial.write_text(text, encoding="utf-8")
            self._changed = False

    def _files(self) -> Iterator[tuple[str, str, Path]]:
        """Session, path below its `logs`, path. `session_latest` is a link to one that is listed by itself."""
        for session in sorted(self.root.glob("session_*")):
            if session.is_symlink():
                continue
            logs = session / "logs"
            for folder, folders, files in os.walk(logs):
                folders.sort()
                for file in sorted(files):
                    path = Path(folder) / file
                    name = path.relative_to(logs).as_posix()
                    if (
                        path.is_file()
                        and not path.is_symlink()
                        and not file.startswith(_REWRITTEN)
                        and self.wanted(name)
                    ):
                        yield session.name, name, path

    def _read(self, file: BinaryIO, session: str, name: str) -> Iterator[Chunk]:
        """Up to the end as it is now: a file that never stops growing must not keep others waiting."""
        stat = os.fstat(file.fileno())
        source = self._source(file, stat, session, name)
        while left := stat.st_size - source.offset:
            if source.offset and left > self.most_behind:
                left = self.most_behind
                source.offset = stat.st_size - left
            file.seek(source.offset)
            data = file.read(min(CHUNK_BYTES, left))
            if not data:  # cut off meanwhile
                return
            yield Chunk(source.session, source.name, source.offset, data)
            source.offset += len(data)
            self._changed = True
        source.mtime_ns = stat.st_mtime_ns

    def _source(self, file: BinaryIO, stat: os.stat_result, session: str, name: str) -> Source:
        head = file.read(_HEAD_BYTES).hex()
        known = self.sources.get(_key(stat))
        if known is not None and stat.st_size >= known.offset and head.startswith(known.head):
            known.head = head
            return known
        taken = {one.name for one in self.sources.values() if one.session == session}
        free = next(one for one in numbered(name, "~") if one not in taken)
        self.sources[_key(stat)] = made = Source(session, free, head=head)
        return made


def numbered(name: str, mark: str) -> Iterator[str]:
    """A name, then what it is called when others had it before: NAME, NAME~2, NAME~3, … for the mark "~"."""
    yield name
    yield from (f"{name}{mark}{number}" for number in count(2))


def _key(stat: os.stat_result) -> str:
    return f"{stat.st_dev}:{stat.st_ino}"


def _recalled(memory: Path) -> dict[str, Source]:
    try:
        found = json.loads(memory.read_text(encoding="utf-8"))
        return {key: Source(**one) for key, one in found.items()}
    except (
        OSError,
        ValueError,
        TypeError,
        AttributeError,
    ):  # none yet, or cut off by a full disk: read all again
        return {}
