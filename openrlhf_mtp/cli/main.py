"""`openrlhf-mtp`: the command line. Each command is thin; engines are imported only inside the one that runs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from openrlhf_mtp.cli.bench_commands import bench
from openrlhf_mtp.cli.completion import setting_names
from openrlhf_mtp.cli.outcome import run_to_exit_code
from openrlhf_mtp.cli.usage import App
from openrlhf_mtp.cli.version import print_version
from openrlhf_mtp.config.errors import JobError

app = App(
    name="openrlhf-mtp",
    help="Add a multi-token-prediction (MTP) head to a model, train it, and draft with it in RL.",
)
app.add_typer(bench, name="bench", short_help="Measure the speed of rollouts, the loss or a step.")

JobFile = Annotated[Path, typer.Argument(metavar="JOB.yaml", help="the job file")]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="key=value", help="settings that replace those of the job file", autocompletion=setting_names
    ),
]
Out = Annotated[Path | None, typer.Option(metavar="DIR", help="run folder; the default is runs/COMMAND-JOB")]
Resume = Annotated[bool, typer.Option("--resume", help="continue the run in --out from its last checkpoint")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="replace the run in --out")]
Verbose = Annotated[bool, typer.Option("--verbose", help="show the output of Ray's workers")]


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            "-V",
            help="print the versions of this package and its main dependencies",
            is_eager=True,
            callback=print_version,
        ),
    ] = False,
) -> None:
    """Take the options that come before a command."""


@app.command(short_help="Run everything on a tiny model, without a GPU.")
def quickstart(
    out: Annotated[Path, typer.Option(metavar="DIR", help="folder for all results")] = Path(
        "runs/quickstart"
    ),
    teach: Annotated[
        bool,
        typer.Option("--teach", help="train the tiny model from scratch instead of using the one that ships"),
    ] = False,
    overwrite: Overwrite = False,
    verbose: Verbose = False,
) -> None:
    """Add a head to a tiny model, train the head, run RL with drafts, and write a report. No GPU is needed.

    \b
    Example:
      openrlhf-mtp quickstart --out runs/quickstart
    """
    from openrlhf_mtp.cli.quickstart.command import run_quickstart

    raise typer.Exit(run_quickstart(out, teach=teach, overwrite=overwrite, verbose=verbose))


@app.command(short_help="Add an MTP head to a model.")
def equip(
    model: Annotated[str, typer.Argument(help="folder or Hub name of a causal language model")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="folder for the model and its head")],
    depths: Annotated[
        int,
        typer.Option(metavar="N", help="tokens to draft for each forward pass of the policy", min=1, max=16),
    ] = 3,
    num_blocks: Annotated[
        int, typer.Option(metavar="N", help="number of blocks that the depths cycle through", min=1, max=16)
    ] = 1,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="create a new head even if the model has one")
    ] = False,
) -> None:
    """Add an MTP head to a model. If the model has a head of its own, that one is used.

    transformers still loads the folder as the plain model.

    \b
    Example:
      openrlhf-mtp equip Qwen/Qwen2.5-0.5B-Instruct \\
        --out models/qwen2.5-0.5b --depths 3
    """
    from openrlhf_mtp.cli.hub import model_folder
    from openrlhf_mtp.heads.formats.equip import equip as run_equip
    from openrlhf_mtp.heads.formats.head_folder import read_head_config

    try:
        head = run_equip(model_folder(model), out, depths=depths, num_blocks=num_blocks, fresh=fresh)
    except (OSError, ValueError) as problem:
        raise JobError(str(problem)) from problem
    layout = read_head_config(head).layout
    origin = "new" if layout is None else f"the checkpoint's own, layout {layout}"
    print(f"model {out}\nhead  {head} ({origin})")


@app.command(short_help="Export a policy and its head for other programs.")
def export(
    model: Annotated[Path, typer.Argument(help="folder of the policy or of its LoRA adapter")],
    format: Annotated[str, typer.Option(metavar="FORMAT", help="native, draft-folder or merged")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="a new or empty folder")],
    head: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="folder of the head; the default is mtp inside the folder of the policy"
        ),
    ] = None,
    published: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="native: the checkpoint with a vision tower that equip read, if it is elsewhere now",
        ),
    ] = None,
) -> None:
    """Export a policy and its head for other programs.

    native writes one checkpoint under the names of the model family, draft-folder writes the head alone, and merged
    writes both in one folder. The command lists every tensor and fails if one is missing.

    \b
    Example:
      openrlhf-mtp export runs/first/final \\
        --format native --out models/mimo-rl
    """
    from openrlhf_mtp.cli.export import run_export

    raise typer.Exit(run_export(model, head, out, format, published))


@app.command(short_help="Train the head before RL, with the policy frozen.")
def pretrain(
    job: JobFile,
    overrides: Overrides = None,
    out: Out = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
    verbose: Verbose = False,
) -> None:
    """Train the head before RL, with the policy frozen, on responses that the policy generates.

    \b
    Example:
      openrlhf-mtp pretrain JOB.yaml --out runs/head \\
        mtp.pretrain.max_steps=500
    """
    from openrlhf_mtp.cli.jobs import checked_job, default_out

    folder = out or default_out("pretrain", job)
    checked = checked_job(
        job, overrides or [], out=folder, resume=resume, overwrite=overwrite, trains_policy=False
    )
    from openrlhf_mtp.cli.pretrain import run_pretrain

    raise typer.Exit(run_pretrain(checked, folder, resume=resume, overwrite=overwrite, verbose=verbose))


@app.command(short_help="Run RL with speculative rollouts.")
def train(
    job: JobFile,
    overrides: Overrides = None,
    out: Out = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
    verbose: Verbose = False,
) -> None:
    """Run OpenRLHF's RL. The rollout engines draft with the head, and the trainer trains it.

    \b
    Example:
      openrlhf-mtp train JOB.yaml --out runs/first \\
        actor.adam.lr=1e-6 mtp.depths=3
    """
    from openrlhf_mtp.cli.jobs import checked_job, default_out

    folder = out or default_out("train", job)
    checked = checked_job(job, overrides or [], out=folder, resume=resume, overwrite=overwrite)
    from openrlhf_mtp.cli.train import run_train

    raise typer.Exit(run_train(checked, folder, resume=resume, overwrite=overwrite, verbose=verbose))


@app.command(short_help="Print the plan of a job and every problem with it.")
def check(
    job: JobFile,
    overrides: Overrides = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="also check that a run may use this folder")
    ] = None,
    gpus: Annotated[
        int | None, typer.Option(metavar="N", help="check for a cluster with this many CUDA GPUs", min=0)
    ] = None,
    gpu_memory: Annotated[
        float | None,
        typer.Option(metavar="GIB", help="memory of each GPU, if this machine has no driver to ask", min=1),
    ] = None,
    no_files: Annotated[
        bool, typer.Option("--no-files", help="do not look for models and data on this machine")
    ] = False,
) -> None:
    """Print the plan of a job and every problem with it. Nothing is started.

    \b
    Example:
      openrlhf-mtp check JOB.yaml mtp.depths=5
      openrlhf-mtp check JOB.yaml --gpus 8 --no-files
    """
    from openrlhf_mtp.cli.check import run_check
    from openrlhf_mtp.config.machine.host import Host

    host = None if gpus is None else Host(gpus)
    raise typer.Exit(
        run_check(job, overrides or [], host=host, gpu_memory=gpu_memory, look_at_files=not no_files, out=out)
    )


@app.command(short_help="Turn an OpenRLHF launch script into a job file.")
def convert(
    source: Annotated[
        list[str],
        typer.Argument(
            metavar="SCRIPT|COMMAND",
            help="a shell script, - for standard input, or a command line after --",
        ),
    ],
    out: Annotated[
        Path | None, typer.Option(metavar="JOB.yaml", help="the job file; the default is standard output")
    ] = None,
    nth: Annotated[
        int | None, typer.Option(metavar="N", help="convert the Nth train_ppo_ray command of the script")
    ] = None,
    no_mtp: Annotated[
        bool, typer.Option("--no-mtp", help="write no mtp section, for plain OpenRLHF")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="replace the file in --out")] = False,
) -> None:
    """Turn an OpenRLHF launch script into a job file. The script is not run.

    Flags of OpenRLHF 0.6 and later get their current names. The job file and the terminal list what could not be
    converted. Exit code 2: the file is written, but you must decide something, or check would refuse it. See
    docs/from_openrlhf.md.

    \b
    Example:
      openrlhf-mtp convert train.sh --out job.yaml
      cat train.sh | openrlhf-mtp convert - --out job.yaml
    """
    from openrlhf_mtp.cli.convert import run_convert

    raise typer.Exit(run_convert(source, out, nth=nth, overwrite=overwrite, with_head=not no_mtp))


@app.command(short_help="Write figures and report.html from run folders.")
def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN", help="run folders; two or more are compared")],
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="folder for report.html; the default is the first run")
    ] = None,
    group: Annotated[
        str,
        typer.Option(
            metavar="HOW",
            help="one curve for runs that differ in the seed (seed), for a folder (folder), or for each run (none)",
        ),
    ] = "seed",
) -> None:
    """Write figures and one self-contained report.html from run folders.

    \b
    Example:
      openrlhf-mtp report runs/first runs/second --out both
      openrlhf-mtp report runs/*-seed? --out all
    """
    from openrlhf_mtp.analysis.groups import GroupBy
    from openrlhf_mtp.analysis.report import write_report

    if group not in tuple(GroupBy):
        raise JobError(f"--group: got {group!r}, expected one of {', '.join(GroupBy)}")
    print(write_report(runs, out or runs[0], GroupBy(group)))


@app.command(short_help="Check the installation and print versions and GPUs.")
def doctor() -> None:
    """Import everything that a run needs, and print versions, GPUs and problems of the installation.

    \b
    Example:
      openrlhf-mtp doctor
    """
    from openrlhf_mtp.cli.doctor import main as run_doctor

    raise typer.Exit(run_doctor())


def main() -> None:
    """The console script: a known problem is one block of text, never a traceback."""
    sys.exit(run_to_exit_code(app))


if __name__ == "__main__":
    main()
