"""`openrlhf-mtp convert`: an OpenRLHF launch script or command as a job file, and what is left to decide."""

from __future__ import annotations

import os
import shlex
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from openrlhf_mtp.cli.jobs import upstream_problems
from openrlhf_mtp.cli.messages import say, terminal_width, wrapped
from openrlhf_mtp.config.checks import check
from openrlhf_mtp.config.convert.conversion import Conversion, convert
from openrlhf_mtp.config.errors import USER_ERROR, JobError, JobErrors
from openrlhf_mtp.config.job import load_job
from openrlhf_mtp.config.job_context import JobContext
from openrlhf_mtp.config.machine.host import Host
from openrlhf_mtp.config.problem import Problem, by_level
from openrlhf_mtp.config.roles import total_gpus
from openrlhf_mtp.upstream.openrlhf.flags import flag_specs

STANDARD_INPUT = "-"


def run_convert(
    source: Sequence[str], out: Path | None, *, nth: int | None, overwrite: bool, with_head: bool
) -> int:
    """Write the job file, to standard output without `out`, and say on standard error what a user has to know.

    Returns:
        The exit code: 0 when everything found a place and `check` has no error.

    Raises:
        JobError: nothing to convert, or `out` exists.
    """
    if out is not None and out.exists() and not overwrite:
        raise JobError(f"--out: got {out}, which exists; give another file, or --overwrite to replace it")
    name, text = _source(source)
    try:
        conversion = convert(text, flag_specs(), nth=nth)
    except JobError as problem:
        raise JobError(f"{name}: {problem}") from problem
    _write(out, conversion.text(name, job=str(out or "job.yaml"), with_head=with_head))
    _tell(conversion, name)
    checked = _check(conversion, out, with_head=with_head)
    return 0 if checked and not conversion.unplaced else USER_ERROR


def problems_of(conversion: Conversion, *, with_head: bool) -> Iterator[Problem]:
    """The problems that `check --no-files` finds in the job on a cluster with as many GPUs as it needs."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "job.yaml"
        path.write_text(conversion.text_to_check(os.environ, with_head=with_head), encoding="utf-8")
        try:
            job = load_job(path, [], flag_specs())
        except JobErrors as refusal:
            yield from (Problem("error", "job file", problem) for problem in refusal.problems)
            return
        gpus = total_gpus(JobContext(job, Host(cuda_gpus=0), look_at_files=False))
        yield from check(JobContext(job, Host(cuda_gpus=max(1, gpus)), look_at_files=False))
        yield from upstream_problems(job)


def _source(words: Sequence[str]) -> tuple[str, str]:
    """Name and text of what is to be converted: standard input, a file, or a command line."""
    if len(words) > 1:
        return "the command line", shlex.join(words)
    word = words[0]
    if word == STANDARD_INPUT:
        return "standard input", _decoded("standard input", sys.stdin.buffer.read())
    if "\n" in word or (" " in word and "train_ppo_ray" in word):
        return "the command line", word
    try:
        content = Path(word).expanduser().read_bytes()
    except (OSError, ValueError, RuntimeError) as problem:  # a path with NUL, a home that nobody has
        reason = problem.strerror.lower() if isinstance(problem, OSError) and problem.strerror else problem
        raise JobError(
            f"got {word[:200]}, which cannot be read: {reason} (looked from {Path.cwd()}); "
            "give a script, - for standard input, or a command line"
        ) from problem
    return Path(word).name, _decoded(word, content)


def _decoded(name: str, content: bytes) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as problem:
        raise JobError(
            f"{name}: got bytes that are not UTF-8 (at {problem.start}), expected a shell script; save it as UTF-8"
        ) from problem


def _write(out: Path | None, text: str) -> None:
    if out is None:
        print(text, end="", flush=True)
        return
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(text, encoding="utf-8")
    print(out, flush=True)


def _tell(done: Conversion, name: str) -> None:
    """Counts, what found no place, and what to know."""
    settings = "1 setting" if len(done.settings) == 1 else f"{len(done.settings)} settings"
    count = f"{settings} of {name}, line {done.line}; {done.renamed} with another name"
    left = [f"line {each.line}: {each.what}: {each.why}" for each in done.unplaced]
    _say(count)
    _list("not converted; decide about each (the job file lists them at its top):", left)
    missing = [f"{name}, which {why}" for name, why in done.variables.items() if name not in os.environ]
    _list("set these in the environment before the run, because the job file reads them:", missing)
    _list("notes:", done.remarks)


def _check(done: Conversion, out: Path | None, *, with_head: bool) -> bool:
    """Say what check says; whether it finds no error."""
    waiting = done.waiting(os.environ)
    if waiting:
        _say(
            f"not checked, because {', '.join(waiting)} must be set in the environment first; then run "
            f"openrlhf-mtp check {out or 'job.yaml'}"
        )
        return False
    problems = by_level(problems_of(done, with_head=with_head))
    _say("check says:" if problems else "check found no problem")
    for problem in problems:
        say(problem.level, problem)
    return all(problem.level != "error" for problem in problems)


def _list(title: str, items: Sequence[str]) -> None:
    if items:
        _say("\n".join([title, *(f"  - {_printable(item)}" for item in items)]))


def _say(text: str) -> None:
    print(wrapped(text, terminal_width()), file=sys.stderr, flush=True)


def _printable(text: str) -> str:
    return "".join(sign if sign.isprintable() else " " for sign in text)
