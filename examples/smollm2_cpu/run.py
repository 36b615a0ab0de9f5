"""The whole example: `make real` installs its requirements and runs this.

Each stage is a command that you could type, and is printed before it runs. Run again, it continues where it stopped: a
stage that finished on the same inputs is not run again.

    python examples/smollm2_cpu/run.py --out runs/real
"""

from __future__ import annotations

import argparse
import json
import shlex
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from figures import print_figures

from openrlhf_mtp.cli.processes import peak_memory
from openrlhf_mtp.cli.quickstart.stages import Marks, content_of
from openrlhf_mtp.config.atomic_files import write_atomically
from openrlhf_mtp.config.run_files import DRIVER_LOG, FINAL, NOTICES, RUN_YAML, TRAINED_HEAD

EXAMPLE = Path("examples/smollm2_cpu")
JOB = EXAMPLE / "job.yaml"
DEFAULT_OUT = Path("runs/real")
"""Where the job file's paths lead."""
RECORD = "real.json"


@dataclass(frozen=True)
class Stage:
    """A command and what decides its result.

    Attributes:
        name: shown, and the name of its mark.
        command: its words, as a user would type them.
        inputs: files whose content decides the result, besides the results of the stages before.
        run_folder: where `--resume` and `--overwrite` apply; None for a command that knows neither.
    """

    name: str
    command: Sequence[str]
    inputs: Sequence[Path] = ()
    run_folder: Path | None = None

    def words(self, *, continues: bool) -> list[str]:
        """The command, continuing or replacing the run that an earlier attempt left."""
        if self.run_folder is None or not (self.run_folder / RUN_YAML).exists():
            return list(self.command)
        return [*self.command, "--resume" if continues else "--overwrite"]


def stages(out: Path, settings: Sequence[str] = ()) -> list[Stage]:
    """In order.

    Args:
        out: folder of everything; another one than the job file's replaces its paths.
        settings: `key=value`, for the commands that take a job.
    """
    policy, equipped, data = out / "policy", out / "equipped", out / "data"
    pretrained, trained = out / "pretrain", out / "rl"
    made_by = [EXAMPLE / name for name in ("requirements.txt", "prepare.py", "policy_folder.py", "tasks.py")]
    given = [*(_paths(equipped, data) if out != DEFAULT_OUT else []), *settings]
    prepare = f"python {EXAMPLE}/prepare.py --policy {policy} --data {data}"
    equip = f"openrlhf-mtp equip {policy} --out {equipped}"
    pretrain = f"openrlhf-mtp pretrain {JOB} --out {pretrained}"
    train = f"openrlhf-mtp train {JOB} --out {trained} mtp.head={pretrained / TRAINED_HEAD}"
    report = f"openrlhf-mtp report {trained}"
    bench = f"openrlhf-mtp bench rollout {trained / FINAL} --prompts {data}/eval.jsonl --out {out}/bench"
    return [
        Stage("prepare", prepare.split(), made_by),
        Stage("equip", equip.split()),
        Stage("pretrain", [*pretrain.split(), *given], [JOB], pretrained),
        Stage("train", [*train.split(), *given], [EXAMPLE / "reward.py"], trained),
        Stage("report", report.split()),
        Stage("bench", bench.split()),
    ]


def _paths(equipped: Path, data: Path) -> list[str]:
    return [
        f"actor.model_name_or_path={equipped}",
        f"data.prompt_dataset={data}/train.jsonl",
        f"eval.dataset={data}/eval.jsonl",
    ]


class Record:
    """Seconds and peak memory of the finished stages, in a file of the example's folder."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.content: dict[str, Any] = {"stages": {}}
        if file.is_file():
            self.content = json.loads(file.read_text(encoding="utf-8"))

    def add(self, stage: str, seconds: float, peak_memory_gib: float) -> None:
        """Enter a stage that finished."""
        self.content["stages"][stage] = {
            "seconds": round(seconds, 1),
            "peak_memory_gib": round(peak_memory_gib, 2),
        }
        write_atomically(self.file, json.dumps(self.content, indent=2) + "\n")


def run(todo: Sequence[Stage], out: Path) -> Record:
    """Run what is not done; the record of all stages.

    Raises:
        SystemExit: a stage failed; the message says where its log is and what to do next.
    """
    out.mkdir(parents=True, exist_ok=True)
    marks, record, fingerprint = Marks(out / ".stages"), Record(out / RECORD), ""
    for number, stage in enumerate(todo, start=1):
        fingerprint = content_of(fingerprint, "\0".join([stage.name, *stage.command]), stage.inputs)
        title = f"[{number}/{len(todo)}] {stage.name}"
        if marks.seconds(stage.name, fingerprint) is not None:
            print(f"{title}: done before", flush=True)
            continue
        words = stage.words(continues=marks.was_begun(stage.name, fingerprint))
        print(f"{title}: {shlex.join(words)}", flush=True)
        marks.begin(stage.name, fingerprint)
        started = time.monotonic()
        with peak_memory() as peak:
            code = _call(words)
        if code:
            raise SystemExit(_failure(title, code, stage))
        seconds = time.monotonic() - started
        marks.finish(stage.name, fingerprint, seconds)
        record.add(stage.name, seconds, peak.bytes / 2**30)
    return record


def _call(words: Sequence[str]) -> int:
    """Run a command in this terminal; its exit code. Ctrl-C reaches the command itself, which ends by its own rules;
    SIGTERM is passed on to it, also one that arrives while it starts."""
    process: subprocess.Popen[bytes] | None = None
    arrived = False

    def pass_on(*_: object) -> None:
        nonlocal arrived
        arrived = True
        if process is not None:
            process.terminate()

    before = signal.signal(signal.SIGTERM, pass_on)
    try:
        with subprocess.Popen(words) as process:
            if arrived:
                process.terminate()
            while True:
                try:
                    return process.wait()
                except KeyboardInterrupt:
                    continue
    finally:
        signal.signal(signal.SIGTERM, before)


def _failure(title: str, code: int, stage: Stage) -> str:
    names = () if stage.run_folder is None else (DRIVER_LOG, NOTICES)
    logs = [str(stage.run_folder / name) for name in names if (stage.run_folder / name).exists()]
    log = f"; log: {', '.join(logs)}" if logs else ""
    return (
        f"{title}: ended with exit code {code}, the reason is above{log}\n"
        "to continue: make real (finished stages are kept, this one continues from its last checkpoint)"
    )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("settings", nargs="*", metavar="key=value", help="replace settings of the job file")
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT, help="folder for all results")
    args = parser.parse_args()
    record = run(stages(args.out, args.settings), args.out)
    print_figures(args.out, record.content)


if __name__ == "__main__":
    main()
