"""Prints what workers, drivers and Ray's own crashes say, line by line, for `kubectl logs`."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field

from openrlhf_mtp.cluster.pod_logs.follower import Chunk

_WORKER = re.compile(r"worker-.*-(?P<pid>\d+)\.(?:out|err)(?:[.~].*)?")
_DRIVER = re.compile(r"job-driver-.*\.log(?:[.~].*)?")
_RAY = re.compile(r"(?P<who>raylet|gcs_server)\.(?P<kind>err|out)(?:[.~].*)?")
_RAY_ERROR = re.compile(r"\[[^\]]* [ECF] \d+ \d+\] .*")
"""An error in Ray's own log, `[2026-11-30 04:52:26,440 E 23358 23358] (raylet) …`; else it prints tables, too."""
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
    """A log file's origin, the next byte to read, and the beginning of a line without an end."""

    label: str
    pid: str
    errors_only: bool = False
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
            self._say(speaker, f"... {chunk.offset - speaker.next} bytes more than can be shown ...")
            speaker.rest = b""
        *lines, rest = re.split(rb"[\r\n]", speaker.rest + chunk.data)
        if len(rest) >= _LONGEST:
            lines, rest = [*lines, rest], b""
        speaker.rest, speaker.next, speaker.waits = rest, chunk.offset + len(chunk.data), False
        self._print(speaker, lines)

    def settle(self) -> None:
        """Call between two looks: a line whose end has not come since the last call is printed as it is. It may be the
        last word of a process that has died."""
        for speaker in self._speakers.values():
            if speaker.waits:
                self._print(speaker, [speaker.rest])
                speaker.rest = b""
            speaker.waits = bool(speaker.rest)

    def _print(self, speaker: _Speaker, lines: list[bytes]) -> None:
        for line in lines:
            text = _CONTROL.sub("", line.decode("utf-8", errors="replace")).rstrip()
            if name := _NAME.fullmatch(text):
                speaker.label = name[1]
            elif speaker.errors_only and not _RAY_ERROR.fullmatch(text):
                continue
            elif text and not _PROGRESS.fullmatch(text) and not _MARK.match(text):
                self._say(speaker, text)

    def _say(self, speaker: _Speaker, text: str) -> None:
        self.say(f"[{speaker.label}{speaker.pid}] {text}")


def _speaker(name: str) -> _Speaker:
    if worker := _WORKER.fullmatch(name):
        return _Speaker("worker", f" pid={worker['pid']}")
    if ray := _RAY.fullmatch(name):
        return _Speaker(ray["who"], "", errors_only=ray["kind"] == "out")
    return _Speaker("driver", "")
