"""`python -m openrlhf_mtp.cluster.attempts begin|end`: whether a failed run is started again, counted in its folder.

    attempts.json   {"run": "run1-5f…", "begun": 4, "checkpoint": "global_step40", "step": 40, "failed": 1, …}
    failed.json     why the run is not started again; not there as long as it may be

The run's script calls it at both ends of an attempt. The count is of attempts that have failed since the newest
whole checkpoint came: a run that gets on may lose as many pods as it likes, one that does not ends. An attempt without
a recorded end was killed, and counts as failed when the next one begins. One that was told to stop (SIGTERM: a drained
node, an uninstall) has not failed.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from openrlhf_mtp.cluster.own_job import stop_own_job
from openrlhf_mtp.config.atomic_files import write_atomically
from openrlhf_mtp.config.checkpoints import Checkpoint, resume_point
from openrlhf_mtp.config.errors import USER_ERROR
from openrlhf_mtp.config.run_files import ATTEMPTS, CHECKPOINTS, FAILED

NONE_LEFT = 4
"""Exit code of the run's script when too many attempts have failed since the newest checkpoint."""
DONE = 5
"""`begin`: the run has succeeded before. KubeRay starts a finished run again where it cannot ask Ray how it ended."""
TOLD_TO_STOP = 143
"""Exit code of the run's script after SIGTERM."""
_SAID = re.compile(
    r"^attempts: attempt \d+ (begins|failed)[^;\n]*; ((\d+) failed [^,\n]*), job\.retries=", re.MULTILINE
)


@dataclass(frozen=True)
class Attempts:
    """The attempts of one run so far.

    Attributes:
        run: the run's name. Another run in the same folder (an upgrade) counts from 0.
        begun: attempts that have begun, in all.
        checkpoint: the newest whole checkpoint that was seen; "" for none.
        step: the RL step after which it was saved; -1 for none. It never falls: a checkpoint that is made again after
            it was lost is no progress.
        failed: attempts that have failed since it came.
        running: an attempt has begun and not ended.
        over: "succeeded" or "failed" when the run has ended for good. One that has failed starts over after that: the
            user has seen to it.
    """

    run: str
    begun: int = 0
    checkpoint: str = ""
    step: int = -1
    failed: int = 0
    running: bool = False
    over: str = ""

    def having(self, newest: Checkpoint | None) -> Attempts:
        """With the newest checkpoint as it is now; one that is new takes the failures back."""
        if newest is None or newest.step <= self.step:
            return self
        return replace(self, checkpoint=newest.tag, step=newest.step, failed=0)

    def begin(self, newest: Checkpoint | None) -> Attempts:
        """An attempt begins; one that has not ended was killed."""
        now = self.having(newest)
        if self.running:
            now = replace(now, failed=now.failed + 1)
        return replace(now, begun=now.begun + 1, running=True)

    def end(self, newest: Checkpoint | None, code: int) -> Attempts:
        """It has ended with an exit code."""
        now = replace(self.having(newest), running=False, over="" if code else "succeeded")
        if not self.running or code in (0, TOLD_TO_STOP):
            return now
        return replace(now, failed=now.failed + 1)

    def since(self) -> str:
        """The count in words: "2 failed since checkpoint global_step40"."""
        return f"{self.failed} failed " + (
            f"since checkpoint {self.checkpoint}" if self.checkpoint else "and no checkpoint yet"
        )


def said_in(output: str) -> tuple[int, str] | None:
    """The last count that an attempt's script printed, for a reader of its output who cannot see its folder.

    Returns:
        How many had failed before this attempt, and its own words of the count now; None where it printed nothing yet.
    """
    said = list(_SAID.finditer(output))
    return (int(said[-1][3]) - (said[-1][1] == "failed"), said[-1][2]) if said else None


def read(folder: Path, run: str) -> Attempts:
    """The record of a run; empty if the file is missing, unreadable, another run's, or that of a failed run."""
    try:
        found = Attempts(**json.loads((folder / ATTEMPTS).read_text(encoding="utf-8")))
    except FileNotFoundError:
        return Attempts(run)
    except (OSError, ValueError, TypeError) as problem:
        print(f"attempts: {folder / ATTEMPTS} cannot be read ({problem}), counting from zero", flush=True)
        return Attempts(run)
    if not _is_sound(found):
        print(f"attempts: {folder / ATTEMPTS} is not as it was written, counting from zero", flush=True)
        return Attempts(run)
    return found if found.run == run and found.over != "failed" else Attempts(run)


def _is_sound(found: Attempts) -> bool:
    typed = all(type(getattr(found, one.name)).__name__ == one.type for one in fields(Attempts))
    return typed and found.begun >= 0 and found.failed >= 0


def write(folder: Path, name: str, content: dict[str, Any]) -> None:
    """Write a file as a whole or not at all. A full disk is told, no more: an attempt is worth more than its count."""
    try:
        write_atomically(folder / name, json.dumps(content) + "\n")
    except OSError as problem:
        print(f"attempts: {folder / name} cannot be written ({problem})", flush=True)


def newest_checkpoint(folder: Path) -> Checkpoint | None:
    """The checkpoint that the next attempt continues from; None if there is none or the volume does not answer."""
    try:
        return resume_point(folder).checkpoint
    except OSError as problem:
        print(f"attempts: {folder} cannot be read ({problem})", flush=True)
        return None


@dataclass(frozen=True)
class Verdict:
    """The end of the run's script.

    Attributes:
        code: its exit code.
        reason: why the run is not started again; None where it may be, or has not failed.
        now: what was recorded; None where nothing is counted.
    """

    code: int
    reason: str | None = None
    now: Attempts | None = None


def begin(run: Path, name: str, retries: int, checkpoints: Path) -> int:
    """Record that an attempt begins; 0 when it may, `NONE_LEFT` when too many were killed, `DONE` after a success."""
    (run / FAILED).unlink(missing_ok=True)
    before = read(run, name)
    if before.over:
        print(
            f"attempts: this run has succeeded before, in attempt {before.begun}; nothing is left to do",
            flush=True,
        )
        return DONE
    now = before.begin(newest_checkpoint(checkpoints))
    if before.running:
        print(
            f"attempts: attempt {before.begun} failed (killed); {now.since()}, job.retries={retries}",
            flush=True,
        )
    if now.failed > retries:
        write(run, ATTEMPTS, asdict(replace(now, begun=before.begun, running=False)))
        return NONE_LEFT
    write(run, ATTEMPTS, asdict(now))
    print(f"attempts: attempt {now.begun} begins; {now.since()}, job.retries={retries}", flush=True)
    return 0


def end(run: Path, name: str, retries: int, checkpoints: Path, code: int) -> Verdict:
    """Record that an attempt has ended with an exit code."""
    before = read(run, name)
    if before.over:
        return not_counted(code)
    if before.begun == 0:  # it ended before it could be counted, or another run has taken the folder over
        closed = unwritable(run) if code else None
        return Verdict(USER_ERROR, closed) if closed else not_counted(code)
    now = before.end(newest_checkpoint(checkpoints), code)
    write(run, ATTEMPTS, asdict(now))
    if code in (0, USER_ERROR, TOLD_TO_STOP):
        return replace(not_counted(code), now=now)
    if before.running:
        failed = f"attempt {now.begun} failed (exit code {code})"
        print(f"attempts: {failed}; {now.since()}, job.retries={retries}", flush=True)
    if now.failed > retries:
        return Verdict(NONE_LEFT, f"{now.since()}, and job.retries={retries}", now)
    return Verdict(1 if code == NONE_LEFT else code, None, now)  # a command of the user's may end with it


def unwritable(run: Path) -> str | None:
    """Why no attempt could even begin: the run folder, or what it would be made in, is not this user's to write to."""
    here = next(path for path in (run, *run.absolute().parents) if os.path.exists(path))
    if os.access(here, os.W_OK | os.X_OK):
        return None
    return f"{here} cannot be written to by uid {os.getuid()}; give the volume to it, or set pods.podSecurityContext"


def not_counted(code: int) -> Verdict:
    """By the exit code alone: the backend counts, or nothing has to be."""
    if code != USER_ERROR:
        return Verdict(code)
    words = "another attempt would end the same way; the reason is printed above"
    return Verdict(code, f"exit code {USER_ERROR} says that {words}")


def give_up(run: Path, verdict: Verdict, dashboard: str | None) -> None:
    """Say that the run has failed for good, in its output and its folder, and see that nobody repeats it.

    Args:
        run: the run folder.
        verdict: with a reason.
        dashboard: Ray's, where its job is stopped: KubeRay repeats one that has failed, whatever its exit code, and not
            one that was stopped. None where the exit code is enough.
    """
    print(f"attempts: the run has failed and is not started again: {verdict.reason}", flush=True)
    content: dict[str, Any] = {"reason": verdict.reason, "exit_code": verdict.code}
    if verdict.now is not None:
        content |= {"attempts": verdict.now.begun, "checkpoint": verdict.now.checkpoint}
    write(run, FAILED, content)
    if dashboard and not stop_own_job(dashboard):
        return  # it will be repeated; what was counted still holds then
    if verdict.now is not None:
        write(run, ATTEMPTS, asdict(replace(verdict.now, over="failed")))


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(prog="python -m openrlhf_mtp.cluster.attempts", description=__doc__)
    made.add_argument("which", choices=["begin", "end"], help="of an attempt")
    made.add_argument("--run", type=Path, required=True, help="the run folder")
    made.add_argument("--name", required=True, help="the run's name")
    made.add_argument(
        "--retries",
        type=int,
        help="attempts that may fail since the newest checkpoint; without it nothing is counted here",
    )
    made.add_argument("--checkpoints", type=Path, help="where they are; default: in the run folder")
    made.add_argument("--code", type=int, default=0, help="the exit code that the attempt ends with")
    made.add_argument(
        "--stop-job",
        metavar="DASHBOARD",
        help="end a hopeless run by stopping its own Ray job, at http://HOST:PORT",
    )
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """`begin`: 0 when the attempt may begin. `end`: the exit code of the run's script."""
    given = parser().parse_args(argv)
    checkpoints = given.checkpoints or given.run / CHECKPOINTS
    if given.which == "begin":
        return 0 if given.retries is None else begin(given.run, given.name, given.retries, checkpoints)
    if given.retries is None:
        verdict = not_counted(given.code)
    else:
        verdict = end(given.run, given.name, given.retries, checkpoints, given.code)
    if verdict.reason is not None:
        give_up(given.run, verdict, given.stop_job)
    return verdict.code


if __name__ == "__main__":
    sys.exit(main())
