"""`python -m openrlhf_mtp.cluster.pod_logs`: shows and keeps what this pod's Ray, workers and engines print.

It runs beside Ray at low priority and ends with its container. If something fails, it says so once and continues.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from openrlhf_mtp.cluster.pod_logs import flush
from openrlhf_mtp.cluster.pod_logs.console import Console, is_output
from openrlhf_mtp.cluster.pod_logs.follower import Chunk, Follower
from openrlhf_mtp.cluster.pod_logs.keeper import Keeper, own_folder

EVERY_S = 1.0
"""Between two looks: a line is lost when its container is killed within this time and its pod goes as well."""
RETRY_S = 15.0
"""Between two tries where the volume is full or away."""
_MOST_BEHIND = 4 << 20
_NICE = 10


def say(text: str) -> None:
    """A line of the container's output; one that nobody reads is nobody's loss."""
    try:
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()
    except OSError:
        pass


class Loop(threading.Thread):
    """Passes on what is new, again and again until `ending`, and once more then. One of its own for each receiver: a
    volume that hangs must not stop what is shown."""

    def __init__(
        self,
        what: str,
        follower: Follower,
        take: Callable[[Chunk], None],
        ending: threading.Event,
        *,
        settle: Callable[[], None] = lambda: None,
        asked: Callable[[], bool] = lambda: False,
        answer: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(daemon=True)
        self.what, self.follower, self.take, self.ending = what, follower, take, ending
        self.settle, self.asked, self.answer = settle, asked, answer
        self._told: set[str] = set()

    def run(self) -> None:
        """Look again and again until told to stop; the thread's body."""
        pause = 0.0
        while True:
            last = self._pause(pause)
            pause = EVERY_S if self._look() else RETRY_S
            if last:
                return

    def _pause(self, seconds: float) -> bool:
        """Until the next look, or a flush is asked for; whether it is the last."""
        while seconds > 0 and not self.asked():
            step = min(0.2, seconds)
            if self.ending.wait(step):
                break
            seconds -= step
        return self.ending.is_set()

    def _look(self) -> bool:
        """Whether everything could be passed on."""
        wanted = self.asked()
        try:
            for chunk in self.follower.new():
                self.take(chunk)
            self.settle()
            self.follower.remember()
        except Exception as problem:  # whatever it is: the run does not depend on its logs
            self._complain(problem)
            return False
        finally:
            if wanted:
                self.answer()
        return True

    def _complain(self, problem: Exception) -> None:
        text = f"{type(problem).__name__}: {problem}"
        if text not in self._told:
            self._told.add(text)
            say(
                f"[logs] this pod's logs are not {self.what} for now, tried again every {RETRY_S:g} s: {text}"
            )


def loops(arguments: argparse.Namespace, memory: Path, ending: threading.Event) -> list[Loop]:
    """One that shows, and one that keeps where there is a place for it."""
    ray = Path(arguments.ray)
    shown = Follower(ray, memory / "shown.json", most_behind=_MOST_BEHIND, wanted=is_output)
    console = Console(say)
    made = [Loop("shown", shown, console.take, ending, settle=console.settle)]
    if arguments.keep:
        limit = arguments.limit_bytes

        keeper = Keeper(partial(own_folder, arguments.keep, arguments.pod, memory / "folder"), limit)
        kept = Follower(ray, memory / "kept.json", most_behind=limit // 64)
        asked, answer = partial(flush.asked, memory), partial(flush.answer, memory)
        made.append(Loop("kept", kept, keeper.take, ending, asked=asked, answer=answer))
    return made


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(prog="python -m openrlhf_mtp.cluster.pod_logs", description=__doc__)
    made.add_argument(
        "--keep", type=Path, metavar="FOLDER", help="keep logs in FOLDER/POD; without it they are shown only"
    )
    made.add_argument("--limit-bytes", type=int, default=256 << 20, help="how much of a pod's logs is kept")
    made.add_argument(
        "--pod", default=os.environ.get("POD_NAME") or socket.gethostname(), help="this pod's name"
    )
    made.add_argument("--ray", type=Path, default=Path(tempfile.gettempdir()) / "ray", help="Ray's folder")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Until SIGTERM, or the end of the container."""
    arguments = parser().parse_args(argv)
    os.nice(_NICE)
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    ending = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ending.set())
    memory = flush.memory_folder()
    memory.mkdir(parents=True, exist_ok=True)
    running = loops(arguments, memory, ending)
    for loop in running:
        loop.start()
    ending.wait()
    for loop in running:
        loop.join(flush.PATIENCE_S)
    return 0


if __name__ == "__main__":
    sys.exit(main())
