"""`openrlhf-mtp`: the command line. Each command is thin; engines are imported only inside the one that runs."""

from __future__ import annotations

import shutil
import sys
import warnings
from pathlib import Path
from typing import Annotated

import typer

from openrlhf_mtp.cli.bench_commands import bench
from openrlhf_mtp.config.errors import JobError

USER_ERROR = 2
"""Exit code when a job, a folder or a cluster is not as it must be; nothing was started."""
RUN_FAILED = 1
"""Exit code when a run was started and ended with an error, and of an error in this program."""

app = typer.Typer(
    name="openrlhf-mtp",
    help="Multi-token-prediction heads for OpenRLHF: equip a model, train its head, draft with it during RL.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.add_typer(bench, name="bench")

JobFile = Annotated[Path, typer.Argument(metavar="JOB.yaml", help="the job file")]
Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="key=value", help="settings that replace the job file's")
]
Out = Annotated[Path | None, typer.Option(help="run folder; default runs/COMMAND-JOB")]
Resume = Annotated[
    bool, typer.Option("--resume", help="go on with the run in --out from its last checkpoint")
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="replace the run in --out")]
Verbose = Annotated[bool, typer.Option("--verbose", help="show the output of Ray's workers")]


@app.command()
def quickstart(
    out: Annotated[Path, typer.Option(help="where everything goes")] = Path("runs/quickstart"),
    overwrite: Overwrite = False,
    verbose: Verbose = False,
) -> None:
    """Teach a tiny model, give it a head, train the head, run RL with drafts, write the report. No GPU needed.

    \b
    Example:
      openrlhf-mtp quickstart --out runs/quickstart
    """
    from openrlhf_mtp.cli.quickstart import run_quickstart

    raise typer.Exit(run_quickstart(out, overwrite=overwrite, verbose=verbose))


@app.command()
def equip(
    model: Annotated[str, typer.Argument(help="folder or Hub name of a causal language model")],
    out: Annotated[Path, typer.Option(help="folder for the model with its head")],
    depths: Annotated[int, typer.Option(help="tokens to draft per target forward")] = 3,
    num_layers: Annotated[int, typer.Option(help="blocks the depths cycle through")] = 1,
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
    from openrlhf_mtp.heads.checkpoint import read_head_config
    from openrlhf_mtp.heads.equip import equip as run_equip

    try:
        head = run_equip(model_folder(model), out, depths=depths, num_layers=num_layers, fresh=fresh)
    except (OSError, ValueError) as problem:
        raise JobError(str(problem)) from problem
    layout = read_head_config(head).layout
    origin = "new" if layout is None else f"the checkpoint's own, layout {layout}"
    print(f"model {out}\nhead  {head} ({origin})")


@app.command()
def export(
    model: Annotated[Path, typer.Argument(help="folder of the policy, or of its LoRA adapter")],
    format: Annotated[str, typer.Option(help="native, draft-folder or merged")],
    out: Annotated[Path, typer.Option(help="an empty or new folder")],
    head: Annotated[
        Path | None, typer.Option(help="the head's folder; default mtp inside the policy's")
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


@app.command()
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


@app.command()
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


@app.command()
def check(
    job: JobFile,
    overrides: Overrides = None,
    out: Annotated[Path | None, typer.Option(help="also check that a run may go into this folder")] = None,
    gpus: Annotated[
        int | None, typer.Option(help="check for a cluster with this many CUDA GPUs", min=0)
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
    from openrlhf_mtp.cli.jobs import upstream_conflicts
    from openrlhf_mtp.config.checks import Situation
    from openrlhf_mtp.config.host import Host, detect_host
    from openrlhf_mtp.config.job import load_job
    from openrlhf_mtp.config.plan import make_plan, render
    from openrlhf_mtp.upstream.openrlhf_flags import flag_specs

    loaded = load_job(job, overrides or [], flag_specs())
    host = detect_host() if gpus is None else Host(gpus)
    situation = Situation(loaded, host, cluster_gpus=gpus or None, look_at_files=not no_files, out=out)
    plan = make_plan(situation, upstream_conflicts(loaded))
    print(render(plan, min(100, shutil.get_terminal_size((80, 24)).columns)))
    raise typer.Exit(USER_ERROR if plan.errors else 0)


@app.command()
def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN", help="run folders; several are compared")],
    out: Annotated[Path | None, typer.Option(help="where report.html goes; default the first run")] = None,
    group: Annotated[
        str,
        typer.Option(help="runs drawn as one curve with a band: seed (alike but for the seed), folder, none"),
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


def main() -> None:
    """The console script: a known problem is one block of text, never a traceback."""
    # OpenRLHF requires the pynvml package, at whose sight torch prints this
    warnings.filterwarnings("ignore", message="The pynvml package is deprecated", category=FutureWarning)
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as problem:
        code = _exit_code(problem)
        if code is None:
            raise
        print(f"error: {problem}", file=sys.stderr)
        sys.exit(code)


def _exit_code(problem: Exception) -> int | None:
    """The exit code of a known problem, None for one that needs its traceback.

    The modules are imported only now, because some of them are slow to import.
    """
    from openrlhf_mtp.cli.failures import RunFailed
    from openrlhf_mtp.cluster.placement import ClusterTooSmallError
    from openrlhf_mtp.run_folder import RunFolderError
    from openrlhf_mtp.upstream.openrlhf_flags import UpstreamChangedError

    if isinstance(problem, RunFailed):
        return RUN_FAILED
    known = (JobError, ClusterTooSmallError, RunFolderError, UpstreamChangedError)
    return USER_ERROR if isinstance(problem, known) else None


if __name__ == "__main__":
    main()
