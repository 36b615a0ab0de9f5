"""`openrlhf-mtp quickstart`: the whole way on one machine without a GPU, in minutes.

    teach      only with --teach: a tiny transformer learns to add, fairly but not well; else the one that is shipped
    equip      it gets an MTP head
    pretrain   the head learns to draft the policy's own responses
    train      GRPO with speculative rollouts; the head stays aligned

Figures, one HTML file and the table of what came out end it. Everything is in one folder. Run again, it continues
where it stopped.
"""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from openrlhf_mtp.analysis.summary import summarize
from openrlhf_mtp.cli.jobs import checked_job
from openrlhf_mtp.cli.processes import peak_memory
from openrlhf_mtp.cli.progress.estimate import Part
from openrlhf_mtp.cli.progress.line import Whole
from openrlhf_mtp.cli.quickstart.lessons import LESSONS, take_lessons
from openrlhf_mtp.cli.quickstart.stages import (
    Marks,
    Stage,
    StageFailed,
    StageInterrupted,
    indented,
    reason,
    run_stages,
)
from openrlhf_mtp.cli.quickstart.table import goals, render
from openrlhf_mtp.config.atomic_files import write_atomically
from openrlhf_mtp.config.job import Job, load_job
from openrlhf_mtp.config.run_files import CHECKPOINTS, REPORT, TRAINED_HEAD
from openrlhf_mtp.runlog.run import read_run
from openrlhf_mtp.runlog.run_folder import RunFolderError, claim
from openrlhf_mtp.upstream.openrlhf.flags import flag_specs

EXAMPLE = Path(__file__).parents[3] / "examples" / "arithmetic"
JOB = EXAMPLE / "job.yaml"
SHIPPED_POLICY = EXAMPLE / "policy"
SUMMARY = "quickstart.json"
LOG = "quickstart.log"
DEFAULT_OUT = Path("runs/quickstart")
SAVE_STEPS = 5
"""RL steps between two checkpoints, from which an interrupted run continues."""


class Quickstart:
    """The stages and where each puts its results, below `out`."""

    def __init__(self, out: Path, *, teach: bool, verbose: bool) -> None:
        self.out = out
        self.teaches, self.verbose = teach, verbose
        self.policy = out / "policy" if teach else SHIPPED_POLICY
        self.data, self.equipped = out / "data", out / "equipped"
        self.pretrained, self.trained = out / "pretrain", out / "rl"

    def stages(self) -> list[Stage]:
        """In order, each with the files that decide its result; seconds are those of the README's machine."""
        teach = Stage(
            "teach",
            "a tiny transformer learns to add, from scratch",
            [EXAMPLE / name for name in ("problems.py", "byte_tokenizer.py", "teach.py")],
            [Part(LESSONS, 110.0)],
            self.teach,
        )
        shipped = [] if self.teaches else sorted(SHIPPED_POLICY.iterdir())
        made_by = [EXAMPLE / name for name in ("problems.py", "make_data.py", "prompt_files.py")]
        return [
            *([teach] if self.teaches else []),
            Stage(
                "equip",
                "a policy with an MTP head, and prompts",
                [*shipped, *made_by, JOB],
                [EQUIP],
                self.equip,
            ),
            Stage("pretrain", "the head trained on the policy's own responses", [], PRETRAIN, self.pretrain),
            Stage("train", "GRPO with speculative rollouts", [EXAMPLE / "reward.py"], TRAIN, self.train),
        ]

    def teach(self, resume: bool) -> None:
        """The lessons start over: they leave nothing behind before they end."""
        empty(self.policy)
        take_lessons(EXAMPLE / "teach.py", self.policy, self.out / LOG)

    def equip(self, resume: bool) -> None:
        """A fresh head beside a copy of the policy; the prompts."""
        from openrlhf_mtp.heads.formats.equip import equip

        empty(self.equipped)
        empty(self.data)
        command = [sys.executable, str(EXAMPLE / "make_data.py"), "--out", str(self.data)]
        subprocess.run(command, check=True)
        mtp = load_job(JOB, [], flag_specs()).mtp
        assert mtp is not None, "the example's job has an mtp section"
        equip(self.policy, self.equipped, depths=mtp.depths, num_blocks=mtp.num_blocks)

    def pretrain(self, resume: bool) -> None:
        """The pre-RL stage of the example's job."""
        from openrlhf_mtp.cli.pretrain import run_pretrain

        job = self.job(self.pretrained, resume)
        run_pretrain(job, self.pretrained, resume=resume, overwrite=not resume, verbose=self.verbose)

    def train(self, resume: bool) -> None:
        """The RL of the example's job, with the head of the stage before."""
        from openrlhf_mtp.cli.train import run_train

        resume = resume and (self.trained / CHECKPOINTS).is_dir()
        given = (f"mtp.head={self.pretrained / TRAINED_HEAD}", f"ckpt.save_steps={SAVE_STEPS}")
        job = self.job(self.trained, resume, *given)
        run_train(job, self.trained, resume=resume, overwrite=not resume, verbose=self.verbose)

    def job(self, run_folder: Path, resume: bool, *overrides: str) -> Job:
        """The example's job with this quickstart's folders; without `resume` in an empty run folder."""
        if not resume:
            empty(run_folder)
        here = (
            f"actor.model_name_or_path={self.equipped}",
            f"data.prompt_dataset={self.data / 'train.jsonl'}",
            f"eval.dataset={self.data / 'eval.jsonl'}",
            f"reward.remote_url={EXAMPLE / 'reward.py'}",
        )
        return checked_job(JOB, [*here, *overrides], out=run_folder, resume=resume, overwrite=not resume)

    def command(self) -> str:
        """The command that continues this quickstart."""
        words = ["openrlhf-mtp", "quickstart"]
        words += [] if self.out == DEFAULT_OUT else ["--out", str(self.out)]
        words += (["--teach"] if self.teaches else []) + (["--verbose"] if self.verbose else [])
        return shlex.join(words)


EQUIP = Part("copying the policy", 2.0)
PRETRAIN = (
    Part("starting the engine", 30.0),
    Part("responses", 10.0),
    Part("starting the head's trainer", 12.0),
    Part("head", 20.0),
    Part("writing the head's report", 4.0),
)
TRAIN = (
    Part("starting trainer and engine", 45.0),
    Part("RL", 60.0),
    Part("writing the report", 8.0),
)


def run_quickstart(out: Path, *, teach: bool = False, overwrite: bool = False, verbose: bool = False) -> int:
    """Run the stages, print the table, and return 0; 1 if a goal was missed.

    Args:
        out: where everything goes.
        teach: teach a new policy instead of taking the one that is shipped.
        overwrite: start over instead of continuing with what is there.
        verbose: show the output of Ray's workers.

    Raises:
        RunFolderError: the example is not there (the package was installed without its sources), or `out` cannot
            be written to or holds something else.
        StageFailed: a stage failed, or what comes after them; the message says how to continue.
        StageInterrupted: the user ended it; the message says how to continue.
    """
    if not JOB.is_file():
        raise RunFolderError(f"{EXAMPLE} is missing; the quickstart runs from a clone of the repository")
    quickstart = Quickstart(out, teach=teach, verbose=verbose)
    claim(out, resume=True)
    try:
        return _run(quickstart, overwrite=overwrite)
    except StageFailed as failure:
        raise StageFailed(f"{failure}\nto continue: {quickstart.command()}") from failure
    except StageInterrupted as end:
        raise StageInterrupted(
            f"{end}; finished stages are kept\nto continue: {quickstart.command()}"
        ) from end
    except OSError as problem:  # outside the stages: a full disk, a folder that lost its permissions
        raise StageFailed(f"{indented(reason(problem))}\nto continue: {quickstart.command()}") from problem


def _run(quickstart: Quickstart, *, overwrite: bool) -> int:
    out = quickstart.out
    marks = _marks(out, quickstart, overwrite=overwrite)
    stages = quickstart.stages()
    whole = Whole([stage.stage_parts for stage in stages], Console(stderr=True))
    with peak_memory() as peak, whole.shown():
        seconds = run_stages(stages, marks, whole, out / LOG)
    peak_gib = max(peak.bytes / 2**30, _peak_of_earlier_stages(out / SUMMARY))
    summary = summarize(read_run(quickstart.trained))
    reached = goals(summary)
    record = {
        "seconds": seconds,
        "peak_memory_gib": peak_gib,
        "goals": {goal.name: goal.met for goal in reached},
        "rl": summary,
    }
    write_atomically(out / SUMMARY, json.dumps(record, indent=2) + "\n")
    Console().print(render(reached, summary, seconds, peak_gib))
    print(f"\nThe head's own report: {quickstart.pretrained / REPORT}")
    print(
        f"Open the report of the RL run (one file, it can be copied anywhere):\n{opener(quickstart.trained / REPORT)}"
    )
    return 0 if all(goal.met for goal in reached) else 1


def _marks(out: Path, quickstart: Quickstart, *, overwrite: bool) -> Marks:
    """The marks of earlier calls; without any, the stages' folders must not hold what is not ours to remove."""
    folder = out / ".stages"
    ours = [quickstart.equipped, quickstart.data, quickstart.pretrained, quickstart.trained, out / "policy"]
    if not folder.is_dir():
        for place in ours:
            if place.exists() and (not place.is_dir() or any(place.iterdir())):
                raise RunFolderError(
                    f"{place} exists, and no earlier quickstart wrote it; remove it, or choose another --out"
                )
    if overwrite:
        shutil.rmtree(folder, ignore_errors=True)
        (out / SUMMARY).unlink(missing_ok=True)
    return Marks(folder)


def empty(folder: Path) -> None:
    """Remove a stage's folder, or whatever has taken its place."""
    if folder.is_dir() and not folder.is_symlink():
        shutil.rmtree(folder)
    else:
        folder.unlink(missing_ok=True)


def opener(report: Path) -> str:
    """The command that opens a file in a browser on this machine."""
    known: Sequence[str] = ("xdg-open", "open") if sys.platform == "darwin" else ("xdg-open",)
    tool = next((name for name in known if shutil.which(name)), None)
    if tool is not None:
        return shlex.join([tool, str(report)])
    return shlex.join(["python3", "-m", "webbrowser", report.absolute().as_uri()])


def _peak_of_earlier_stages(record: Path) -> float:
    """GiB that an earlier call measured, whose stages this one may have skipped; 0 without one."""
    try:
        return float(json.loads(record.read_text(encoding="utf-8"))["peak_memory_gib"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0.0
