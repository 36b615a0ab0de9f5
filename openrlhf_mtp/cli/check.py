"""`openrlhf-mtp check`: the plan on standard output; what is wrong with the job where all errors go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from openrlhf_mtp.cli.jobs import all_problems, located
from openrlhf_mtp.cli.machine import this_machine
from openrlhf_mtp.cli.messages import say, terminal_width
from openrlhf_mtp.config.errors import USER_ERROR
from openrlhf_mtp.config.job import load_job
from openrlhf_mtp.config.job_context import JobContext
from openrlhf_mtp.config.machine.host import Host
from openrlhf_mtp.config.plan import make_plan, render
from openrlhf_mtp.upstream.openrlhf.flags import flag_specs


def run_check(
    path: Path,
    overrides: Sequence[str],
    *,
    host: Host | None,
    gpu_memory: float | None,
    look_at_files: bool,
    out: Path | None,
) -> int:
    """Print the plan and every problem; the exit code.

    Args:
        path: the job file.
        overrides: settings that replace its own.
        host: what the job is meant for; None is this machine, looked at and measured as a run would.
        gpu_memory: GiB of each GPU, when the driver here cannot say.
        look_at_files: look for models and data here.
        out: a run folder that a run should be able to use.

    Raises:
        JobError: the job file cannot be read.
    """
    job = load_job(path, overrides, flag_specs())
    gpus = None if host is None else host.cuda_gpus
    host = host or this_machine(job)
    if gpu_memory is not None:
        host = replace(host, gpu_memory_gib=gpu_memory)
    context = JobContext(job, host, cluster_gpus=gpus or None, look_at_files=look_at_files, out=out)
    plan = make_plan(context, all_problems(context))
    print(render(plan, terminal_width()), flush=True)
    for problem in plan.problems:
        say(problem.level, located(problem, job))
    return USER_ERROR if plan.errors else 0
