"""Run a benchmark job, compare its figures with the committed ones, and leave a table and JUnit XML.

    python -m ci.benchmark arithmetic --job examples/arithmetic/job.yaml --image REGISTRY/openrlhf-mtp:0.1.0-cpu \\
        --values helm/openrlhf-mtp/ci/cpu-smoke-values.yaml --out results      # on the current kubeconfig's cluster
    python -m ci.benchmark arithmetic --job JOB.yaml --local --out results     # on this machine

Exit code 0: no regression; 1: a figure is worse than its limit; 2: the run failed or did not end in time. Whatever
happens, also when CI cancels the job, the release and its claims are removed.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import yaml

from ci.cluster import BenchmarkError, Cluster
from ci.compare import BASELINES, compare, load_baseline, regressions
from ci.on_cluster import ClusterRun, has_shared_folder, has_submitter, summary_in
from ci.results import markdown, write
from helm.engine import CHART, ChartError, ReleaseError, merged

REGRESSION, FAILED = 1, 2
CANCELS = (signal.SIGINT, signal.SIGTERM)


def main(argv: Sequence[str] | None = None) -> int:
    """Run, compare, write."""
    made = parser()
    arguments = made.parse_args(argv)
    try:
        expected = load_baseline(arguments.name, arguments.baselines)
    except (ValueError, OSError) as problem:
        made.error(str(problem))
    for number in CANCELS:
        signal.signal(number, cancelled)
    started, summary, problem = time.monotonic(), {}, ""
    try:
        summary = run_here(arguments) if arguments.local else run_on_cluster(arguments)
    except (BenchmarkError, ChartError, ReleaseError) as failure:
        problem = told(failure)
    except KeyboardInterrupt as cancel:
        problem = told(cancel)
    except Exception as surprise:  # Python's own exit code for it is 1, which would be read as a regression
        traceback.print_exc()
        problem = f"{type(surprise).__name__}: {surprise}"
    seconds = time.monotonic() - started
    results = [] if problem else compare(summary, expected)
    shown = os.environ.get("GITHUB_STEP_SUMMARY")
    write(arguments.out, arguments.name, results, seconds, problem, Path(shown) if shown else None)
    print(markdown(arguments.name, results, problem))
    if problem:
        return FAILED
    return REGRESSION if regressions(results) else 0


def told(failure: BaseException) -> str:
    """An error after the one that it came on top of, as when a failed run cannot be removed either."""
    before = None if failure.__suppress_context__ else failure.__context__
    return f"{told(before)}\n{failure}".strip() if before else str(failure)


def run_here(arguments: argparse.Namespace) -> dict[str, Any]:
    """`openrlhf-mtp train` on this machine.

    Raises:
        BenchmarkError: it failed, or did not end in time.
    """
    run = arguments.out / "run"
    words = ["train", str(arguments.job), "--out", str(run), "--overwrite", *arguments.set]
    process: subprocess.Popen[bytes] | None = None
    try:
        with cancels_held_back():  # one that came in the midst of it would leave a run that nobody knows
            process = subprocess.Popen(
                [sys.executable, "-m", "openrlhf_mtp.cli.main", *words], start_new_session=True
            )
        code = process.wait(arguments.deadline_s)
    except subprocess.TimeoutExpired:
        raise BenchmarkError(f"no end within {arguments.deadline_s:g} s") from None
    finally:
        if process is not None and process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    if code != 0:
        raise BenchmarkError(f"openrlhf-mtp train ended with {code}")
    return summary_of(run)


def summary_of(run: Path) -> dict[str, Any]:
    """The summary in a run folder.

    Raises:
        BenchmarkError: there is none.
    """
    try:
        found: dict[str, Any] = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    except FileNotFoundError as problem:
        raise BenchmarkError(f"the run ended without a summary: {problem}") from problem
    return found


def run_on_cluster(arguments: argparse.Namespace) -> dict[str, Any]:
    """The chart on the cluster of the kubeconfig; figures and report in `OUT/run` where the storage is shared.

    Raises:
        BenchmarkError: the run failed, or did not end in time.
    """
    cluster = Cluster(arguments.kubeconfig, arguments.namespace)
    run = ClusterRun(chart_values(arguments), cluster, chart=arguments.chart, release=arguments.release)
    print(f"release {run.release}, run {run.run}", flush=True)
    if not has_submitter(run.rendered):
        if not has_shared_folder(run.rendered):
            raise BenchmarkError(
                "scheduling.gang: got kai, whose runs have no pod that prints their figures; give the benchmark "
                "storage.checkpoints to read them from"
            )
        print(
            "no pod prints this run's output (gang scheduling by KAI); its figures are read at the end",
            flush=True,
        )
    with run.installed(int(arguments.deadline_s)):
        output = run.follow(arguments.deadline_s, lambda text: print(text, end="", flush=True))
        if not has_shared_folder(run.rendered):
            return summary_in(output)
        (arguments.out / "run" / "summary.json").unlink(missing_ok=True)  # of a run before
        if left_out := run.fetch(arguments.out / "run"):
            print(left_out, flush=True)
    return summary_of(arguments.out / "run")


def chart_values(arguments: argparse.Namespace) -> dict[str, Any]:
    """The values files, then the job, the image and a deadline; a benchmark is not tried again."""
    values: dict[str, Any] = {}
    for path in arguments.values:
        values = merged(values, yaml.safe_load(path.read_text(encoding="utf-8")))
    job: dict[str, Any] = {
        "config": arguments.job.read_text(encoding="utf-8"),
        "retries": 0,
        "deadlineSeconds": int(arguments.deadline_s),
    }
    overrides = [*values.get("job", {}).get("overrides", []), *arguments.set]
    values = merged(values, {"job": {**job, "overrides": overrides}})
    if arguments.image:
        values = merged(values, {"image": image_of(arguments.image)})
    return values


def image_of(text: str) -> dict[str, str]:
    """The chart's `image` values of NAME:TAG or NAME@DIGEST.

    Raises:
        BenchmarkError: neither a tag nor a digest.
    """
    name, at, digest = text.partition("@")
    if at:
        return {"repository": name, "tag": "", "digest": digest}
    repository, _, tag = text.rpartition(":")
    if not repository or "/" in tag:  # the colon was a registry's port
        raise BenchmarkError(
            f"--image: got {text}, expected NAME:TAG or NAME@DIGEST, so that the run can be repeated"
        )
    return {"repository": repository, "tag": tag, "digest": ""}


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog="python -m ci.benchmark",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("name", help="the benchmark, a section of baselines.yaml")
    made.add_argument("--job", type=Path, required=True, help="job file")
    made.add_argument(
        "--set", action="append", default=[], metavar="key=value", help="replace a setting of the job"
    )
    made.add_argument(
        "--out", type=Path, required=True, help="where table.md, junit.xml, results.json and run/ go"
    )
    made.add_argument("--baselines", type=Path, default=BASELINES, help="the figures to compare with")
    made.add_argument("--deadline-s", type=float, default=7200.0, help="the whole run may take this long")
    made.add_argument("--local", action="store_true", help="run on this machine, without a cluster")
    made.add_argument(
        "--image", default="", metavar="NAME:TAG|NAME@DIGEST", help="the image; default the values files'"
    )
    made.add_argument("--values", type=Path, action="append", default=[], help="values files, later ones win")
    made.add_argument(
        "--release", default="", help="the release's name, for `python -m ci.remove`; default bench-RANDOM"
    )
    made.add_argument("--chart", type=Path, default=CHART, help="the chart's folder")
    cluster_options(made)
    return made


def cluster_options(made: argparse.ArgumentParser) -> None:
    """Which cluster, and where on it."""
    made.add_argument("--namespace", default="", help="where to run; default the kubeconfig's")
    made.add_argument(
        "--kubeconfig",
        type=Path,
        default=Path(os.environ.get("KUBECONFIG", Path.home() / ".kube" / "config")),
        help="which cluster",
    )


def cancelled(signum: int, frame: FrameType | None) -> None:
    """CI cancels with SIGINT and, seconds later, SIGTERM: the first begins the clean-up, the second must not end it."""
    for number in CANCELS:
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt("cancelled")


@contextmanager
def cancels_held_back() -> Iterator[None]:
    """A cancel that comes within is raised at the end."""
    came: list[tuple[int, FrameType | None]] = []
    handlers = {
        number: signal.signal(number, lambda signum, frame: came.append((signum, frame)))
        for number in CANCELS
    }
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        if came:
            cancelled(*came[0])


if __name__ == "__main__":
    sys.exit(main())
