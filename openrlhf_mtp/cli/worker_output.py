"""The output of workers: in this machine's Ray session, or on Kubernetes, for all pods, in the run folder.

The chart has each pod copy its logs to `RUN/logs/POD/SESSION` (`openrlhf_mtp.cluster.pod_logs`); a driver sees its own
machine's otherwise, and what failed is most often on another.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

_ERROR_LINE = re.compile(r"(?:^|\s)(\w+(?:\.\w+)*(?:Error|Exception|Timeout|Refused)): \S")
_NOISE = (
    "EngineDeadError",
    "EngineCore failed to start",
    "Engine core initialization failed",
    "RayTaskError",
    "resource_tracker",
    "KeyError: '/",
)
_PREFIX = re.compile(r"^(?:\(\w+ pid=\d+\)\s*)?(?:(?:ERROR|INFO|WARNING) [\d: -]+\[[^\]]*\]\s*)?")
_MARK = re.compile(r":(?:job_id|actor_name|task_name):")
_WORKER = re.compile(r"worker-.*-(\d+)\.(?:out|err)")
_SHOWN = 3
_END_BYTES = 1 << 14
SETTLE_S = 3.0
"""Pods copy what is new every second, and a network file system shows it a moment later."""


@dataclass(frozen=True)
class Output:
    """Log folders of a Ray session, with the pod that each is of; None: of this machine."""

    folders: Sequence[tuple[str | None, Path]]
    where: str
    """The place of the output in words for people."""

    def errors(self, pid: int | None = None) -> list[str]:
        """The first error lines that workers have printed, those of worker `pid` first.

        vLLM's engine processes report "see stack trace above" and print the reason to their own output.
        """
        found: list[str] = []
        for pod, path in sorted(self._files(), key=lambda one: not _is_of(one[1], pid)):
            for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
                if _ERROR_LINE.search(line) and not any(noise in line for noise in _NOISE):
                    text = _said(pod, path, _PREFIX.sub("", line).strip())
                    if text not in found:
                        found.append(text)
        return found[:_SHOWN]

    def last_lines(self, pid: int | None) -> list[str]:
        """The end of what worker `pid` has printed: a process that crashes need not say an error's name."""
        return [
            _said(pod, path, line)
            for pod, path in self._files()
            if _is_of(path, pid)
            for line in _end_of(path)[-_SHOWN:]
        ]

    def _files(self) -> Iterator[tuple[str | None, Path]]:
        for pod, folder in self.folders:
            for path in sorted(folder.glob("worker-*.*")):
                yield pod, path


def output(run: Path, session: Path, *, sleep: Callable[[float], None] = time.sleep) -> Output:
    """The output of all pods if the run folder has it, else that of this machine.

    Args:
        run: the run folder.
        session: the folder of this machine's Ray session; its name is the same on every node.
        sleep: waits seconds, for copies of what was printed last.
    """
    kept = f"logs/*/{session.name}"
    if not any(run.glob(kept)):
        return Output([(None, session / "logs")], f"{session / 'logs'} (or run with --verbose)")
    sleep(SETTLE_S)
    return Output([(folder.parent.name, folder) for folder in sorted(run.glob(kept))], f"{run / kept}")


def _is_of(path: Path, pid: int | None) -> bool:
    worker = _WORKER.match(path.name)
    return worker is not None and worker[1] == str(pid)


def _said(pod: str | None, path: Path, text: str) -> str:
    worker = _WORKER.match(path.name)
    return text if pod is None or worker is None else f"{pod} pid={worker[1]}: {text}"


def _end_of(path: Path) -> list[str]:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _END_BYTES))
        lines = file.read().decode("utf-8", errors="replace").splitlines()
    return [line.strip() for line in lines if line.strip() and not _MARK.match(line)]
