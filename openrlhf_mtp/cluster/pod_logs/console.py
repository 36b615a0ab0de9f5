"""Prints what workers, drivers and Ray's own crashes say, line by line, for `kubectl logs`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from openrlhf_mtp.cluster.pod_logs.follower import Chunk

_WORKER = re.compile(r"worker-.*-(?P<pid>\d+)\.(?:out|err)(?:[.~].*)?")
_DRIVER = re.compile(r"job-driver-.*\.log(?:[.~].*)?")
_RAY = re.compile(r"(?P<who>raylet|gcs_server)\.(?:err|out)(?:[.~].*)?")
_HARMLESS = re.compile(r"\[[^\]]* [DIW] \d+ \d+\] ")
"""A line of Ray's own log that is no error: `[2026-11-30 04:52:26,440 I 23358 23358] (raylet) …`."""
_NAME = re.compile(r":(?:actor|task)_name:(.*)")
_MARK = re.compile(r":(?:job_id|actor_name|task_name):")
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_PROGRESS = re.compile(r".*\b(?!100%)\d+%\s*(?:Completed )?\|.*[\])]\s*")
"""A progress bar that has not reached its end."""
_LONGEST = 1 << 16
"""A line of more bytes is printed in pieces."""


def is_output(name: str) -> bool:
    """Whether a log file holds what people look for: output of workers (and so of vLLM and NCCL) and of drivers, and of
    the raylet and the control plane. All else is Ray's chatter."""
    return any(kind.fullmatch(name) for kind in (_WORKER, _DRIVER, _RAY))


@dataclass
class _Speaker:
    """Whose lines a file holds, the byte that comes next, and the beginning of a line that has no end yet."""

    label: str
    pid: str
    next: int | None = None
    rest: bytes = b""
    waits: bool = False


@dataclass
class Console:
    """Turns chunks into lines with a prefix, `[MTPRolloutActor pid=812] text`; without Ray's marks and what it logs
    beside errors, the middle of progress bars, and blank lines.

    Args:
        say: prints a line.
    """

    say: Callable[[str], None]
    _speakers: dict[tuple[str, str], _Speaker] = field(default_factory=dict)

    def take(self, chunk: Chunk) -> None:
        """Print the lines that end in it."""
        speaker = self._speakers.setdefault((chunk.session, chunk.name), _speaker(chunk.name))
        if speaker.next is not None and chunk.offset > speaker.next:
            self._print(speaker, f"... {chunk.offset - speaker.next} bytes more than can be shown ...")
            speaker.rest = b""
        *lines, rest = re.split(rb"[\r\n]", speaker.rest + chunk.data)
        if len(rest) >= _LONGEST:
            lines, rest = [*lines, rest], b""
        speaker.rest, speaker.next, speaker.waits = rest, chunk.offset + len(chunk.data), False
        for line in _shown(lines):
            self._print(speaker, line)

    def settle(self) -> None:
        """Call between two looks: a line whose end has not come since the last call is printed as it is. It may be the
        last word of a process that has died."""
        for speaker in self._speakers.values():
            if speaker.waits:
                for line in _shown([speaker.rest]):
                    self._print(speaker, line)
                speaker.rest = b""
            speaker.waits = bool(speaker.rest)

    def _print(self, speaker: _Speaker, line: str) -> None:
        if _MARK.match(line):
            if name := _NAME.fullmatch(line):
                speaker.label = name[1]
            return
        self.say(f"[{speaker.label}{speaker.pid}] {line}")


def _speaker(name: str) -> _Speaker:
    if worker := _WORKER.fullmatch(name):
        return _Speaker("worker", f" pid={worker['pid']}")
    ray = _RAY.fullmatch(name)
    return _Speaker(ray["who"] if ray else "driver", "")


def _shown(lines: list[bytes]) -> Iterator[str]:
    for line in lines:
        text = _CONTROL.sub("", line.decode("utf-8", errors="replace")).rstrip()
        if text and not _PROGRESS.fullmatch(text) and not _HARMLESS.match(text):
            yield text
