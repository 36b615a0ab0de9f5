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
    help="Multi-token-prediction heads for OpenRLHF: equip a model, train its head, draft with it during RL.",
)
app.add_typer(bench, name="bench", short_help="Measure speed: rollouts, the loss, a training step.")

JobFile = Annotated[Path, typer.Argument(metavar="JOB.yaml", help="the job file")]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="key=value", help="settings that replace the job file's", autocompletion=setting_names
    ),
]
Out = Annotated[Path | None, typer.Option(metavar="DIR", help="run folder; default runs/COMMAND-JOB")]
Resume = Annotated[
    bool, typer.Option("--resume", help="go on with the run in --out from its last checkpoint")
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="replace the run in --out")]
Verbose = Annotated[bool, typer.Option("--verbose", help="show the output of Ray's workers")]


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            "-V",
            help="print the versions that count, and exit",
            is_eager=True,
            callback=print_version,
        ),
    ] = False,
) -> None:
    """What comes before a command."""


@app.command(short_help="The whole way on a tiny model, on a CPU, with a report.")
def quickstart(
    out: Annotated[Path, typer.Option(metavar="DIR", help="where everything goes")] = Path("runs/quickstart"),
    teach: Annotated[
        bool, typer.Option("--teach", help="teach the tiny model anew; it comes taught otherwise")
    ] = False,
    overwrite: Overwrite = False,
    verbose: Verbose = False,
) -> None:
    """Give a tiny model a head, train the head, run RL with drafts, write the report. No GPU needed.

    \b
    Example:
      openrlhf-mtp quickstart --out runs/quickstart
    """
    from openrlhf_mtp.cli.quickstart.command import run_quickstart

    raise typer.Exit(run_quickstart(out, teach=teach, overwrite=overwrite, verbose=verbose))


@app.command(short_help="Put an MTP head beside a model.")
def equip(
    model: Annotated[str, typer.Argument(help="folder or Hub name of a causal language model")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="folder for the model with its head")],
    depths: Annotated[
        int, typer.Option(metavar="N", help="tokens to draft per target forward", min=1, max=16)
    ] = 3,
    num_blocks: Annotated[
        int, typer.Option(metavar="N", help="blocks the depths cycle through", min=1, max=16)
    ] = 1,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="a new head even if the model brings its own")
    ] = False,
) -> None:
    """Put an MTP head beside a model: its own if it brings one along, else a new one.

    The folder still loads as the plain model with transformers.

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


@app.command(short_help="Write a policy and its head for others.")
def export(
    model: Annotated[Path, typer.Argument(help="folder of the policy, or of its LoRA adapter")],
    format: Annotated[str, typer.Option(metavar="FORMAT", help="native, draft-folder or merged")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="an empty or new folder")],
    head: Annotated[
        Path | None, typer.Option(metavar="DIR", help="the head's folder; default mtp inside the policy's")
    ] = None,
) -> None:
    """Write a policy and its head for others: under the family's own names (native), the head alone (draft-folder), or
    both in one folder (merged). Lists every tensor; fails if one was left out.

    \b
    Example:
      openrlhf-mtp export runs/first/final \\
        --format native --out models/mimo-rl
    """
    from openrlhf_mtp.cli.export import run_export

    raise typer.Exit(run_export(model, head, out, format))


@app.command(short_help="Train the head before RL, the policy frozen.")
def pretrain(
    job: JobFile,
    overrides: Overrides = None,
    out: Out = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
    verbose: Verbose = False,
) -> None:
    """Before RL: generate the policy's own responses and train the head on them, the policy frozen.

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


@app.command(short_help="RL with speculative rollouts.")
def train(
    job: JobFile,
    overrides: Overrides = None,
    out: Out = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
    verbose: Verbose = False,
) -> None:
    """RL with speculative rollouts: OpenRLHF's own loop, with the head in the trainer and in the engines.

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


@app.command(short_help="Print what a job would do and every conflict in it.")
def check(
    job: JobFile,
    overrides: Overrides = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="also check that a run may go into this folder")
    ] = None,
    gpus: Annotated[
        int | None, typer.Option(metavar="N", help="check for a cluster with this many CUDA GPUs", min=0)
    ] = None,
    gpu_memory: Annotated[
        float | None,
        typer.Option(metavar="GIB", help="memory of each GPU, when the driver here cannot say", min=1),
    ] = None,
    no_files: Annotated[
        bool, typer.Option("--no-files", help="do not look for models and data here")
    ] = False,
) -> None:
    """Print what a job would do and every conflict in it. Starts nothing.

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
            help="a shell script, - for standard input, or a command line (after --)",
        ),
    ],
    out: Annotated[
        Path | None, typer.Option(metavar="JOB.yaml", help="the job file; default standard output")
    ] = None,
    nth: Annotated[
        int | None, typer.Option(metavar="N", help="which train_ppo_ray command, if there are several")
    ] = None,
    no_mtp: Annotated[bool, typer.Option("--no-mtp", help="plain OpenRLHF: no mtp section")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="replace the file in --out")] = False,
) -> None:
    """Turn an OpenRLHF launch script into a job file. Nothing of the script is run.

    Flags of OpenRLHF from 0.6 on get today's names; what has no place is listed in the file and on the terminal.
    Exit code 2: written, but something is left to decide, or check would refuse it. More: docs/from_openrlhf.md.

    \b
    Example:
      openrlhf-mtp convert train.sh --out job.yaml
      cat train.sh | openrlhf-mtp convert - --out job.yaml
    """
    from openrlhf_mtp.cli.convert import run_convert

    raise typer.Exit(run_convert(source, out, nth=nth, overwrite=overwrite, with_head=not no_mtp))


@app.command(short_help="Write figures and report.html from run folders.")
def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN", help="run folders; several are compared")],
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="where report.html goes; default the first run")
    ] = None,
    group: Annotated[
        str,
        typer.Option(
            metavar="HOW",
            help="runs drawn as one curve with a band: seed (alike but for the seed), folder, none",
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


@app.command(short_help="Import everything a run needs and print the versions.")
def doctor() -> None:
    """Import everything a run needs, print the versions and the GPUs. Says what is wrong with an installation.

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
