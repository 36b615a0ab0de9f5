"""Work in stages that is not done twice: a stage is skipped when it finished before and its inputs are unchanged.

A stage that was begun and did not finish continues from what it left; if that fails it starts from its beginning,
once. The user gets one error in words, with the stage, the reason, and where the traceback is.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from openrlhf_mtp.cli.failures import RunFailed
from openrlhf_mtp.cli.progress.estimate import Part
from openrlhf_mtp.cli.progress.line import StageParts, Whole
from openrlhf_mtp.config.errors import JobError
from openrlhf_mtp.runlog.run_folder import RunFolderError


@dataclass(frozen=True)
class Stage:
    """A stage of the quickstart.

    Attributes:
        name: shown to the user, and the name of the stage's mark on the disk.
        does: what it does, in a few words.
        inputs: files whose content decides the result, besides the results of the stages before.
        parts: what it consists of, for the time that is left.
        run: does it. Given true, it continues from what an attempt on the same inputs left; given false, it starts
            over, whatever is there.
    """

    name: str
    does: str
    inputs: Sequence[Path]
    parts: Sequence[Part]
    run: Callable[[bool], None]

    @property
    def stage_parts(self) -> StageParts:
        """The name and parts of the stage, for the line of progress."""
        return StageParts(self.name, self.parts)


class StageFailed(RunFailed):
    """A stage ended with an error; the message names it and says why, and the cause is the error."""


class StageInterrupted(KeyboardInterrupt):
    """The user ended a stage; the message names it."""


class Marks:
    """Records, in a folder, of the stages that were begun and finished, and of their inputs."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def seconds(self, stage: str, fingerprint: str) -> float | None:
        """Seconds that the stage took when it finished on these inputs, None if it did not."""
        mark = self._read(f"{stage}.json")
        return float(mark["seconds"]) if mark.get("fingerprint") == fingerprint else None

    def was_begun(self, stage: str, fingerprint: str) -> bool:
        """Whether an attempt on these inputs did not finish."""
        return self._read(f"{stage}.begun").get("fingerprint") == fingerprint

    def begin(self, stage: str, fingerprint: str) -> None:
        """The stage runs now."""
        (self._folder / f"{stage}.json").unlink(missing_ok=True)
        self._write(f"{stage}.begun", {"fingerprint": fingerprint})

    def finish(self, stage: str, fingerprint: str, seconds: float) -> None:
        """The stage's result is there."""
        self._write(f"{stage}.json", {"fingerprint": fingerprint, "seconds": seconds})
        (self._folder / f"{stage}.begun").unlink()

    def _read(self, name: str) -> dict[str, str | float]:
        try:
            mark = json.loads((self._folder / name).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return mark if isinstance(mark, dict) else {}

    def _write(self, name: str, mark: dict[str, str | float]) -> None:
        (self._folder / name).write_text(json.dumps(mark) + "\n", encoding="utf-8")


def run_stages(stages: Sequence[Stage], marks: Marks, whole: Whole, log: Path) -> dict[str, float]:
    """Run the stages in order, those whose result is not there already.

    Args:
        stages: in order; a stage that runs again makes all after it run again.
        marks: of earlier calls.
        whole: told where the work is; its stages are these.
        log: file to which the traceback of a failure is added.

    Returns:
        Seconds that each stage took when it ran, by name.

    Raises:
        StageFailed: one failed, from its beginning.
        StageInterrupted: by the user.
    """
    seconds: dict[str, float] = {}
    fingerprint = ""
    for number, stage in enumerate(stages):
        fingerprint = content_of(fingerprint, stage.name, stage.inputs)
        before = marks.seconds(stage.name, fingerprint)
        if before is not None:
            seconds[stage.name] = before
            whole.skip(number)
            continue
        started = time.monotonic()
        resume = marks.was_begun(stage.name, fingerprint)
        marks.begin(stage.name, fingerprint)
        whole.begin(number)
        try:
            _attempt(stage, resume, whole, log)
        except KeyboardInterrupt as end:
            raise StageInterrupted(f"in {_title(stage, number, stages)}") from end
        except (Exception, SystemExit) as error:
            kept = _log_traceback(log, stage.name)
            raise StageFailed(
                f"{_title(stage, number, stages)}, failed:\n{indented(reason(error))}\n{kept}"
            ) from error
        seconds[stage.name] = round(time.monotonic() - started, 1)
        marks.finish(stage.name, fingerprint, seconds[stage.name])
        whole.end(f"{stage.does}, {seconds[stage.name]:.0f} s")
    return seconds


def _attempt(stage: Stage, resume: bool, whole: Whole, log: Path) -> None:
    if not resume:
        stage.run(False)
        return
    whole.print(f"{stage.name}: continuing what an earlier attempt left")
    try:
        stage.run(True)
    except Exception as error:
        kept = _log_traceback(log, stage.name)
        whole.print(f"{stage.name}: cannot continue from it:\n{indented(reason(error))}\n{kept}")
        whole.print(f"{stage.name}: starting this stage from its beginning")
        whole.restart()
        stage.run(False)


def _title(stage: Stage, number: int, stages: Sequence[Stage]) -> str:
    return f"stage {number + 1} of {len(stages)}, {stage.name} ({stage.does})"


def reason(error: BaseException) -> str:
    """An error in words: ours as they are, others with their type."""
    if isinstance(error, (RunFailed, JobError, RunFolderError)):
        return str(error)
    if isinstance(error, shutil.Error) and isinstance(error.args[0], list):  # one entry a file, all alike
        return f"copying failed: {error.args[0][0][2]} ({len(error.args[0])} in all)"
    text = str(error).strip() or "no message"
    if isinstance(error, ModuleNotFoundError):
        text += "\nthe environment is not complete: run make setup"
    return f"{type(error).__name__}: {text}"


def indented(text: str) -> str:
    """Two spaces before each line."""
    return "\n".join(f"  {line}" for line in text.splitlines())


def _log_traceback(log: Path, stage: str) -> str:
    """Add the current exception to the log; a line that says where it is."""
    try:
        with log.open("a", encoding="utf-8") as file:
            file.write(f"\n{time.strftime('%Y-%m-%d %H:%M:%S')} {stage}\n{traceback.format_exc()}")
    except OSError as problem:
        return f"no log: {problem}"
    return f"log: {log}"


def content_of(before: str, stage: str, inputs: Sequence[Path]) -> str:
    """A stage's fingerprint: a digest of its name, of its input files' content and of the fingerprint `before` it."""
    digest = hashlib.sha256(f"{before}\n{stage}\n".encode())
    for path in inputs:
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()
