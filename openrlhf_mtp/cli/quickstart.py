"""`openrlhf-mtp quickstart`: the whole way on one machine without a GPU, in minutes.

    teach      a tiny transformer learns to add, fairly but not well
    equip      it gets an MTP head
    pretrain   the head learns to draft the policy's own responses
    train      GRPO with speculative rollouts; the head stays aligned
    report     figures, one HTML file, and the table of what came out

Everything goes into one folder. Run again, it goes on where it stopped.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from rich.console import Console

from openrlhf_mtp.analysis.summary import summarize
from openrlhf_mtp.cli.jobs import checked_job
from openrlhf_mtp.cli.processes import peak_memory
from openrlhf_mtp.cli.quickstart_table import goals, render
from openrlhf_mtp.cli.stages import Stage, run_stages
from openrlhf_mtp.config.job import Job, load_job
from openrlhf_mtp.run_folder import REPORT, RunFolderError, claim, read_run
from openrlhf_mtp.upstream.openrlhf_flags import flag_specs

EXAMPLE = Path(__file__).parents[2] / "examples" / "arithmetic"
JOB = EXAMPLE / "job.yaml"
SUMMARY = "quickstart.json"
LESSON_ENVIRONMENT = {
    "OMP_NUM_THREADS": "2",
    "OMP_WAIT_POLICY": "PASSIVE",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "DS_ACCELERATOR": "cpu",
}
"""For the lesson, unless the user set them. Threads that wait actively make a tiny model four times slower as soon as
the machine has anything else to do; the rest keeps other packages' notices out of the output."""


class Quickstart:
    """The stages and where each puts its results, below `out`."""

    def __init__(self, out: Path, *, verbose: bool) -> None:
        self.out = out
        self.verbose = verbose
        self.policy, self.data, self.equipped = out / "policy", out / "data", out / "equipped"
        self.pretrained, self.trained = out / "pretrain", out / "rl"

    def stages(self) -> list[Stage]:
        """In order, each with the files that decide its result."""
        lessons = [EXAMPLE / name for name in ("problems.py", "byte_tokenizer.py", "reward.py", "teach.py")]
        return [
            Stage("teach", "a tiny transformer learns to add, from scratch", lessons, self.teach),
            Stage("equip", "give it an MTP head", [JOB], self.equip),
            Stage(
                "pretrain",
                "train the head on the policy's own responses",
                [EXAMPLE / "make_data.py"],
                self.pretrain,
            ),
            Stage("train", "GRPO with speculative rollouts", [], self.train),
        ]

    def teach(self) -> None:
        """The example's scripts, as a user would run them."""
        shutil.rmtree(self.policy, ignore_errors=True)
        for script, folder in (("make_data.py", self.data), ("teach.py", self.policy)):
            command = [
                sys.executable,
                "-W",
                "ignore::FutureWarning",
                str(EXAMPLE / script),
                "--out",
                str(folder),
            ]
            subprocess.run(command, check=True, env={**LESSON_ENVIRONMENT, **os.environ})

    def equip(self) -> None:
        """A fresh head beside a copy of the policy."""
        from openrlhf_mtp.heads.equip import equip

        shutil.rmtree(self.equipped, ignore_errors=True)
        mtp = load_job(JOB, [], flag_specs()).mtp
        assert mtp is not None, "the example's job has an mtp section"
        equip(self.policy, self.equipped, depths=mtp.depths, num_layers=mtp.num_layers)

    def pretrain(self) -> None:
        """The pre-RL stage of the example's job."""
        from openrlhf_mtp.cli.pretrain import run_pretrain

        run_pretrain(self.job(self.pretrained), self.pretrained, overwrite=True, verbose=self.verbose)

    def train(self) -> None:
        """The RL of the example's job, with the head of the stage before."""
        from openrlhf_mtp.cli.train import run_train

        head = f"mtp.head={self.pretrained / 'head'}"
        run_train(self.job(self.trained, head), self.trained, overwrite=True, verbose=self.verbose)

    def job(self, run_folder: Path, *overrides: str) -> Job:
        """The example's job with this quickstart's folders."""
        here = (
            f"actor.model_name_or_path={self.equipped}",
            f"data.prompt_dataset={self.data / 'train.jsonl'}",
            f"eval.dataset={self.data / 'eval.jsonl'}",
            f"reward.remote_url={EXAMPLE / 'reward.py'}",
        )
        return checked_job(JOB, [*here, *overrides], out=run_folder, resume=False, overwrite=True)


def run_quickstart(out: Path, *, overwrite: bool = False, verbose: bool = False) -> int:
    """Run the stages, print the table, and return 0; 1 if a goal was missed.

    Args:
        out: where everything goes.
        overwrite: start anew instead of going on with what is there.
        verbose: show the output of Ray's workers.

    Raises:
        RunFolderError: the example is not there (the package was installed without its sources), or `out` cannot
            be written to.
    """
    if not JOB.is_file():
        raise RunFolderError(f"{EXAMPLE} is missing; the quickstart runs from a clone of the repository")
    console = Console(stderr=True)
    marks = out / ".stages"
    claim(out, resume=True)
    if overwrite:
        shutil.rmtree(marks, ignore_errors=True)
        (out / SUMMARY).unlink(missing_ok=True)
    quickstart = Quickstart(out, verbose=verbose)
    with peak_memory() as peak:
        seconds = run_stages(quickstart.stages(), marks, console)
    peak_gib = max(peak.bytes / 2**30, _peak_of_earlier_stages(out / SUMMARY))
    summary = summarize(read_run(quickstart.trained))
    reached = goals(summary)
    record = {
        "seconds": seconds,
        "peak_memory_gib": peak_gib,
        "goals": {goal.name: goal.met for goal in reached},
        "rl": summary,
    }
    (out / SUMMARY).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    Console().print(render(reached, summary, seconds, peak_gib))
    print(f"report: {quickstart.trained / REPORT}\nhead's report: {quickstart.pretrained / REPORT}")
    return 0 if all(goal.met for goal in reached) else 1


def _peak_of_earlier_stages(record: Path) -> float:
    """GiB that an earlier call measured, whose stages this one may have skipped; 0 without one."""
    return (
        float(json.loads(record.read_text(encoding="utf-8"))["peak_memory_gib"]) if record.exists() else 0.0
    )
