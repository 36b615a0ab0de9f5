"""`openrlhf-mtp train`: one RL run. Here training and rollout meet."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from openrlhf_mtp.cli.failures import user_facing_errors
from openrlhf_mtp.cli.machine import Choice, settle, this_machine
from openrlhf_mtp.cli.processes import peak_memory, sampling_interval_s
from openrlhf_mtp.cli.progress.run_line import follow_run
from openrlhf_mtp.cli.ray_session import ray_session
from openrlhf_mtp.config.checkpoints import all_of, resume_from, resume_point
from openrlhf_mtp.config.head_contract import Sampling
from openrlhf_mtp.config.job import Job
from openrlhf_mtp.config.job_context import JobContext
from openrlhf_mtp.config.machine.precision import with_rollout_dtype
from openrlhf_mtp.config.plan import expected_rollouts
from openrlhf_mtp.config.roles import roles, total_gpus
from openrlhf_mtp.config.run_files import CHECKPOINTS, DRIVER_LOG, FINAL, TEMPERATURES
from openrlhf_mtp.config.settings.mtp import MTPSettings, RolloutSettings
from openrlhf_mtp.runlog import metrics
from openrlhf_mtp.runlog.checkpoint_request import request_on_sigterm
from openrlhf_mtp.runlog.run import read_run
from openrlhf_mtp.runlog.run_folder import claim, write_command, write_config, write_summary

WITHOUT_HEAD = MTPSettings(rollout=RolloutSettings(speculate=False))
"""How engines run in a job without an mtp section: plain decoding."""

PLACEMENT_TIMEOUT_S = 200.0
"""A group of GPUs that is not there within this time is an error, not something to wait for."""


def prepare_run_folder(job: Job, out: Path, *, resume: bool, overwrite: bool) -> Job:
    """Claim the run folder, write what will run, and point OpenRLHF's outputs into it unless the job says otherwise."""
    claim(out, resume=resume, overwrite=overwrite)
    defaults = {
        "ckpt.path": out / CHECKPOINTS,
        "ckpt.output_dir": out / FINAL,
    }
    missing = {name: str(path.absolute()) for name, path in defaults.items() if job.flags.get(name) is None}
    job = job.with_flags(**{name.replace(".", "__"): value for name, value in missing.items()})
    if resume and _has_checkpoint(Path(str(job.flags["ckpt.path"]))):
        job = job.with_flags(ckpt__load_enable=True)
    write_config(out, job.dump_yaml())
    write_command(out, sys.argv)
    return job


def _has_checkpoint(folder: Path) -> bool:
    """Whether there is something to resume from; points OpenRLHF to the newest whole checkpoint (`check` has said
    which it is).

    A run that ended before its first checkpoint has none, and starts at its beginning.
    """
    if not all_of(folder):
        return not folder.exists()  # not on this machine perhaps: the trainer looks for itself
    point = resume_point(folder)
    if point.checkpoint is not None:
        resume_from(point.checkpoint)
    return True


def openrlhf_arguments(job: Job, out: Path, choice: Choice) -> SimpleNamespace:
    """The job as OpenRLHF's parsed and validated arguments, with what was chosen and our settings beside them."""
    from openrlhf_mtp.rollout.monitor import EngineMonitor, count_generated
    from openrlhf_mtp.training.controller.context import RunContext
    from openrlhf_mtp.upstream.openrlhf.flags import parse

    args = parse(job.to_argv())
    args.ds.param_dtype = choice.precision.name
    args.mtp = None if job.mtp is None else with_rollout_dtype(job.mtp, choice.precision.name)
    args.run = RunContext(
        run_folder=str(out.absolute()),
        engine_threads=choice.engine_threads,
        monitor_factory=partial(EngineMonitor, settings=(job.mtp or WITHOUT_HEAD).guard),
        count_generated=count_generated,
        own_sync=job.mtp is not None or args.ds.lora.rank > 0,
    )
    return args


def run_train(
    job: Job, out: Path, *, resume: bool = False, overwrite: bool = False, verbose: bool = False
) -> int:
    """Train; returns 0. Raises the first error of any process, after every process has ended.

    Args:
        job: what to train.
        out: the run folder.
        resume: continue from the last checkpoint of an earlier run in `out`.
        overwrite: remove an earlier run in `out`.
        verbose: show the workers' own output.
    """
    job = prepare_run_folder(job, out, resume=resume, overwrite=overwrite)
    context = JobContext(job, this_machine(job))
    choice = settle(context, out, resume=resume)
    keep_temperatures(context.head_folder, out)
    args = openrlhf_arguments(job, out, choice)
    gpus = total_gpus(context)
    memory = peak_memory(sampling_interval_s(has_cuda=context.host.has_cuda))
    with (
        memory as peak,
        ray_session(gpus=gpus, verbose=verbose, threads=choice.trainer_threads),
        user_facing_errors(out),
    ):
        from openrlhf_mtp.cluster.placement import require_gpus

        require_gpus(gpus, what=", ".join(role.share for role in roles(context) if not role.shares))
        with (
            follow_run(out, title="RL", total=expected_rollouts(context)),
            openrlhf_output(out, verbose=verbose),
            request_on_sigterm(out),  # after ray.init, which sets a handler of its own
        ):
            bound_train(args)(args)
    from openrlhf_mtp.analysis.report import write_report
    from openrlhf_mtp.analysis.summary import summarize

    summary = summarize(read_run(out)) | {metrics.PERF_PEAK_MEMORY_GIB: peak.bytes / 2**30}
    write_summary(out, summary)
    write_report([out], out)
    return 0


def keep_temperatures(head: Path | None, out: Path) -> None:
    """Copy the head's temperature sweep, if it has one, so that the report needs nothing outside the run folder."""
    if head is not None and (head / TEMPERATURES).is_file():
        shutil.copyfile(head / TEMPERATURES, out / TEMPERATURES)


@contextmanager
def openrlhf_output(out: Path, *, verbose: bool) -> Iterator[None]:
    """Redirect OpenRLHF's prints in this process (arguments, data sets, models) to `driver.log`."""
    if verbose:
        yield
        return
    with (out / DRIVER_LOG).open("a", encoding="utf-8") as log, redirect_stdout(log):
        yield


def bound_train(args: Any) -> Any:
    """OpenRLHF's `train(args)` with our classes in place of its own."""
    import ray

    from openrlhf_mtp.cluster.placement import Placements, placed_actor_group
    from openrlhf_mtp.rollout.engine import engine_factory
    from openrlhf_mtp.training.controller.loop import AsyncController, SyncController
    from openrlhf_mtp.training.ray_actor import PolicyActor
    from openrlhf_mtp.upstream.openrlhf.bindings import bind_entry_point

    placements = Placements.from_environment(PLACEMENT_TIMEOUT_S)
    for_training = placements.for_role("trainer")
    return bind_entry_point(
        policy_actor=ray.remote(num_gpus=1)(PolicyActor),
        trainer=ray.remote(SyncController),
        async_trainer=ray.remote(AsyncController),
        create_engines=engine_factory(
            with_rollout_dtype(args.mtp or WITHOUT_HEAD, args.ds.param_dtype),
            sampling=Sampling(args.rollout.temperature, args.rollout.top_p, args.data.max_len),
            threads=args.run.engine_threads,
            placement_group=placements.for_role("rollout"),
            own_sync=args.run.own_sync,
        ),
        placement_group=for_training,
        actor_group=placed_actor_group(for_training),
    )
