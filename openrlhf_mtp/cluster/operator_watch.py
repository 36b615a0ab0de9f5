"""`python -m openrlhf_mtp.cluster.operator_watch RUN`: say so while KubeRay's operator does not ask Ray for the job.

The operator asks the dashboard for the job's state every 3 s. If a NetworkPolicy or a mesh keeps it out, nothing
shows until it is too late: KubeRay 1.6 takes a run that has finished for failed, 1.7 ends one after 300 s
(rayjob_controller.go, 1.6.2 and 1.7.0). Ray's dashboard logs every request with its User-Agent: the submitter's is
Python's, the operator's Go's.
"""

from __future__ import annotations

import argparse
import contextlib
import re
import sys
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from openrlhf_mtp.runlog.notices import say

LOG = Path("/tmp/ray/session_latest/logs/dashboard.log")
DASHBOARD = "http://127.0.0.1:8265"
POLL_S = 3.0
PROOF_S = 10.0
"""How long a request of our own may take to appear in the log."""
OTHERS = ("python", "mozilla", "curl", "openrlhf-mtp")
"""How the User-Agents of everybody else begin: the submitter and Ray itself, browsers, people, this module."""
_REQUEST = re.compile(r"'[A-Z]+ (?P<path>/\S*) HTTP/[\d.]+' \d{3} .*'(?P<agent>[^'\n]*)'")

SILENT = (
    "KubeRay's operator has not asked Ray for this run's job in {silent:.0f} s; it asks every 3 s where it reaches "
    "port 8265 of the head. While that is so, KubeRay 1.6 marks the run as failed when it has finished, and repeats "
    "it; KubeRay 1.7 ends it after 300 s. Is the operator running? Then let it in: networkPolicy.operator takes its "
    "pods or addresses, networkPolicy.enabled=false lets in everybody (`helm upgrade` changes either beside the run); "
    "another policy of the namespace or a mesh can keep it out too."
)
AGAIN = "KubeRay's operator asks Ray for this run's job again, {silent:.0f} s after it last did."


class Request(NamedTuple):
    """One request to the dashboard: its path and User-Agent."""

    path: str
    agent: str

    @property
    def is_operators(self) -> bool:
        """Whether it asks for a job and nobody else is known to ask so."""
        return self.path.startswith("/api/jobs/") and not self.agent.lower().startswith(OTHERS)


def requests(text: str) -> Iterator[Request]:
    """Every request that lines of the dashboard's log tell of."""
    for match in _REQUEST.finditer(text):
        yield Request(match["path"], match["agent"])


@dataclass
class DashboardLog:
    """Requests logged since the last look. Ray renames a log that is large; the next one is read from its start."""

    path: Path = LOG
    _inode: int = -1
    _offset: int = 0

    def fresh(self) -> list[Request]:
        """Requests in the lines that have ended since the last call; none where there is no log."""
        try:
            with self.path.open("rb") as file:
                inode = self.path.stat().st_ino
                if inode != self._inode or self.path.stat().st_size < self._offset:
                    self._inode, self._offset = inode, 0
                file.seek(self._offset)
                data = file.read()
        except OSError:
            return []
        whole = data[: data.rfind(b"\n") + 1]
        self._offset += len(whole)
        return list(requests(whole.decode("utf-8", errors="replace")))


def ask(agent: str, dashboard: str = DASHBOARD, path: str = "/api/version") -> None:
    """One request of our own under a User-Agent; what Ray answers, a refusal too, does not matter."""
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # no proxy of the environment
    request = urllib.request.Request(f"{dashboard}{path}", headers={"User-Agent": agent})
    with contextlib.suppress(OSError, ValueError):
        direct.open(request, timeout=5).close()


@dataclass
class Watch:
    """Looks into the dashboard's log, and says when the operator falls silent and when it is back.

    It is silent where it cannot tell: before it says anything, a request of its own must appear in the log.

    Args:
        log: where requests are logged.
        tell: says a text to the user.
        limit_s: a silence of so many seconds is said.
        ask: makes a request of our own under a User-Agent.
        now, sleep: the clock.
    """

    log: DashboardLog
    tell: Callable[[str], None]
    limit_s: float
    ask: Callable[[str], None] = ask
    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    _told: bool = False
    _heard: float = field(init=False)

    def __post_init__(self) -> None:
        self._heard = self.now()

    def look(self) -> None:
        """One look, and a word where there is something to say."""
        if self._listen():
            return
        if not self._told and self._silent() >= self.limit_s and self._log_is_kept():
            self._told = True
            self.tell(SILENT.format(silent=self._silent()))

    def _silent(self) -> float:
        return self.now() - self._heard

    def _listen(self, until: str = "") -> bool:
        """Read on; whether the operator has asked, or whoever comes under the User-Agent `until`."""
        fresh = self.log.fresh()
        if any(request.is_operators for request in fresh):
            if self._told:
                self.tell(AGAIN.format(silent=self._silent()))
            self._heard, self._told = self.now(), False
            return True
        return bool(until) and any(request.agent == until for request in fresh)

    def _log_is_kept(self) -> bool:
        """Whether a request of our own appears in the log, and still none of the operator's."""
        agent = f"openrlhf-mtp/{uuid.uuid4().hex}"
        self.ask(agent)
        end = self.now() + PROOF_S
        while not self._listen(until=agent):
            if self.now() >= end:
                return False
            self.sleep(0.5)
        return self._silent() >= self.limit_s


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(prog="python -m openrlhf_mtp.cluster.operator_watch", description=__doc__)
    made.add_argument("run", type=Path, help="the run folder")
    made.add_argument("--limit-s", type=float, default=60.0, help="how long the operator may be silent")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Look until ended."""
    arguments = parser().parse_args(argv)

    def tell(text: str) -> None:
        print(text, flush=True)
        with contextlib.suppress(OSError):  # the preflight names a folder that cannot be written to
            say(arguments.run, text)

    watch = Watch(DashboardLog(), tell, arguments.limit_s)
    while True:
        watch.look()
        time.sleep(POLL_S)


if __name__ == "__main__":
    sys.exit(main())
