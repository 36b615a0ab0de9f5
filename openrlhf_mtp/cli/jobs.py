"""From a job file on the command line to a job that was checked, ours and OpenRLHF's rules alike."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from openrlhf_mtp.cli.messages import say
from openrlhf_mtp.config.checks import check
from openrlhf_mtp.config.errors import JobError
from openrlhf_mtp.config.job import Job, load_job
from openrlhf_mtp.config.job_context import JobContext
from openrlhf_mtp.config.machine.host import detect_host
from openrlhf_mtp.config.problem import Problem, by_level, error, require_no_errors, warn
from openrlhf_mtp.config.reading.job_text import STANDARD_INPUT
from openrlhf_mtp.config.reading.values import shown
from openrlhf_mtp.upstream.openrlhf.flags import (
    OpenRLHFCrashedError,
    flag_specs,
    parse_only,
    parse_with_notes,
)
from openrlhf_mtp.upstream.openrlhf.remarks import HARMLESS, SAID_ELSEWHERE, in_todays_names, remark

CRASH = "OpenRLHF's validation"


def checked_job(
    path: Path,
    overrides: Sequence[str],
    *,
    out: Path,
    resume: bool,
    overwrite: bool,
    trains_policy: bool = True,
) -> Job:
    """Load a job and refuse it, with everything that is wrong, before anything is started.

    Warnings go to standard error. `trains_policy` is false for the stage before RL.

    Raises:
        JobErrors: every error found.
    """
    job = load_job(path, overrides, flag_specs())
    context = JobContext(
        job,
        detect_host(),
        out=out,
        may_reuse_out=resume or overwrite,
        resumes=resume,
        trains_policy=trains_policy,
    )
    problems = [located(problem, job) for problem in all_problems(context)]
    for problem in problems:
        if problem.level == "warning":
            say("warning", problem)
    require_no_errors(problems, f"{job.source} cannot run:")
    return job


def all_problems(context: JobContext) -> list[Problem]:
    """Ours and OpenRLHF's, errors first. If we have found an error, a crash of its validation says nothing more."""
    ours = check(context)
    found = any(problem.level == "error" for problem in ours)
    theirs = [one for one in upstream_problems(context.job) if not (found and one.setting == CRASH)]
    return by_level([*ours, *theirs, *_engine_problems(context.job)])


def _engine_problems(job: Job) -> Iterator[Problem]:
    """vLLM's own names and types of its arguments; it is imported for a job that gives some."""
    given = {} if job.mtp is None else job.mtp.rollout.engine_args
    if given:
        from openrlhf_mtp.rollout.engine_args import unfit

        yield from unfit(given)


def located(problem: Problem, job: Job) -> Problem:
    """A problem that says where the job gives its setting, if it does."""
    place = job.places.get(problem.setting)
    return problem if place is None else replace(problem, text=f"{problem.text} ({place})")


def upstream_problems(job: Job) -> Iterator[Problem]:
    """The errors of OpenRLHF's parser and validation, and every setting of the job that they would silently change."""
    argv = job.to_argv()
    try:
        asked = parse_only(argv)
        used, notes = parse_with_notes(argv)
    except OpenRLHFCrashedError as crash:
        yield Problem("error", CRASH, str(crash))
        return
    except JobError as refusal:
        yield Problem("error", "OpenRLHF", in_todays_names(str(refusal).removeprefix("OpenRLHF ")))
        return
    for note in notes:
        yield from _in_our_words(note, job)
    for name in job.flags:
        before, after = _at(asked, name), _at(used, name)
        given = job.flags[name] is not None and name not in SAID_ELSEWHERE
        if given and not _same(before, after):
            yield _changed(name, before, after)


def _in_our_words(note: str, job: Job) -> Iterator[Problem]:
    known = remark(note)
    if known is None:
        yield Problem("warning", "OpenRLHF", note)
    elif not known.of_change or job.flags.get(known.setting) is None:
        yield Problem("warning", known.setting, known.text)


def _changed(name: str, before: Any, after: Any) -> Problem:
    """A setting that OpenRLHF drops because it means nothing in this job, or one that it runs with otherwise."""
    if name in HARMLESS:
        return warn(name, f"this has no effect: OpenRLHF ignores it, because {HARMLESS[name]}; drop it")
    return error(
        name,
        before,
        f"{after if isinstance(after, str) else shown(after)}: OpenRLHF would silently run with that",
        "set it so, or leave it out",
    )


def default_out(command: str, path: Path) -> Path:
    """`runs/<command>-<job>`: the job file's name, its folder's when it is called job.yaml, `stdin` for a pipe."""
    if path == STANDARD_INPUT or path.is_relative_to("/dev"):
        return Path("runs") / f"{command}-stdin"
    name = path.absolute().parent.name if path.stem == "job" else path.stem
    return Path("runs") / f"{command}-{name}"


def _at(tree: SimpleNamespace, name: str) -> Any:
    """The value of a flag, None for one that OpenRLHF keeps under another name (`muon.no_nesterov` as `nesterov`)."""
    node: Any = tree
    for key in name.split("."):
        node = vars(node).get(key)
    return node


def _same(asked: Any, used: Any) -> bool:
    """Equal, or only brought to another form: a comma list split, an upper bound completed by its lower bound."""
    if isinstance(asked, str) and isinstance(used, list):
        return asked.split(",") == used
    if isinstance(asked, list) and isinstance(used, list):
        return used[-len(asked) :] == asked
    return bool(asked == used)
