"""What only a GPU shows, in order of value: each part a command with a time limit and a line of result.

The first parts need torch, Triton and transformers, and pytest and rich to run and to show them; the head's training
step needs pydantic too. A part whose packages are missing is skipped and says so. The result is one JSON file and one
table, which docs/measured.md can take as they are.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

BUDGET_S = 540
RESULT, TABLE, LOGS = "gpu_check.json", "gpu_check.md", "logs"
SMALL = ("torch", "triton", "transformers")
TABLES = ("rich",)
TESTS = ("pytest", "hypothesis", "pytest_timeout", "xdist")
ENGINE = ("vllm", "ray", "openrlhf")
PYTHON = (sys.executable, "-W", "ignore::FutureWarning")
PROGRAM = (*PYTHON, "-m", "openrlhf_mtp.cli.main")

Reading = Callable[[Path, str], str]
"""The part's folder and what it printed -> its line of result."""


@dataclass(frozen=True)
class Part:
    """One thing to run.

    Attributes:
        name: in the table.
        limit_s: after so many seconds it is ended.
        needs: modules; without them it is skipped.
        words: the command; `{out}` is its folder.
        reading: of its result.
        missing: why it cannot run although its modules are there; empty if it can.
        decides: the parts after it are skipped unless it passes.
    """

    name: str
    limit_s: float
    needs: tuple[str, ...]
    words: tuple[str, ...]
    reading: Reading
    missing: str = ""
    decides: bool = False


@dataclass(frozen=True)
class Outcome:
    """What came of a part: `passed`, `failed`, `out of time` or `skipped`, and a line."""

    name: str
    state: str
    seconds: float
    line: str
    command: str


class NothingRanError(Exception):
    """A part ended well and has shown nothing."""


def last_line(_: Path, printed: str) -> str:
    """The last line that a part printed."""
    lines = [line.strip() for line in printed.splitlines() if line.strip()]
    return lines[-1] if lines else ""


def tests_line(_: Path, printed: str) -> str:
    """The summary of a run of pytest, and the reasons of what was skipped.

    Raises:
        NothingRanError: no test passed.
    """
    lines = [line.strip() for line in printed.splitlines() if line.strip()]
    reasons = {line.split(": ", 1)[-1] for line in lines if line.startswith("SKIPPED")}
    line = "; ".join([lines[-1] if lines else "", *sorted(reasons)])
    if " passed" not in line:
        raise NothingRanError(line)
    return line


def loss_line(out: Path, _: str) -> str:
    """The row kernels' share of a copy's bandwidth, and the loss beside the others."""
    record = json.loads((out / "bench_loss.json").read_text(encoding="utf-8"))
    shares = ", ".join(f"{one['share']:.0%} at {one['vocab']:,}" for one in record["kernels"])
    forms = [
        f"{name} {_middle(form['seconds']) * 1e3:.0f} ms, {form['extra_bytes'] / 2**30:.2f} GiB"
        for name, form in record["forms"].items()
        if form.get("seconds")
    ]
    return f"kernels reach {shares or 'nothing'} of a copy; " + "; ".join(forms)


def head_line(out: Path, _: str) -> str:
    """Each form's time and memory, by length, and why a form did not run.

    Raises:
        NothingRanError: none did.
    """
    forms = json.loads((out / "bench_head.json").read_text(encoding="utf-8"))["forms"]
    ran = [
        f"{one['form']} at {one['tokens']:,}: {_middle(one['seconds']):.3f} s, {one['extra_bytes'] / 2**30:.1f} GiB"
        for one in forms
        if one["seconds"]
    ]
    problems = [
        f"{one['form']} at {one['tokens']:,}: {one['problem']}" for one in forms if one.get("problem")
    ]
    line = "; ".join([*ran, *problems])
    if not ran:
        raise NothingRanError(line)
    return line


def sync_line(out: Path, _: str) -> str:
    """Seconds of a round by form."""
    record = json.loads((out / "bench_sync.json").read_text(encoding="utf-8"))
    return ", ".join(f"{name} {_middle(form['later']):.2f} s" for name, form in record["forms"].items())


def rollout_line(out: Path, _: str) -> str:
    """Decoding with drafts over decoding without, by batch."""
    record = json.loads((out / "bench_rollout.json").read_text(encoding="utf-8"))
    return ", ".join(f"{row['ratio']:.2f}x at batch {row['batch']}" for row in record["rows"])


def _middle(numbers: Sequence[float]) -> float:
    return sorted(numbers)[len(numbers) // 2]


MACHINE = (
    "import torch, triton, transformers as t; "
    "assert torch.cuda.is_available(), 'torch finds no CUDA GPU; nvidia-smi should list one'; "
    "p = torch.cuda.get_device_properties(0); "
    "print(p.name, f'{p.total_memory / 2**30:.0f} GiB, capability {p.major}.{p.minor}, {torch.cuda.device_count()} "
    "GPUs, torch', torch.__version__, 'CUDA', torch.version.cuda, 'triton', triton.__version__, 'transformers', "
    "t.__version__)"
)


# Not through the command line, whose package needs pydantic. Without a GPU they run in their tiny form.
LOSS = """
import sys; from pathlib import Path
from openrlhf_mtp.bench import loss, loss_forms, report
device = report.default_device()
workload = loss_forms.Workload(tokens=8192, dtype="bfloat16", device=device, repeats=3)
loss.bench_loss(Path(sys.argv[1]), workload, smoke=device == "cpu")
"""
HEAD = """
import sys; from pathlib import Path
from openrlhf_mtp.bench import head, head_forms, report
device = report.default_device()
shape = head_forms.Shape(hidden=4096, vocab=151_936, dtype="bfloat16", device=device)
head.bench_head(Path(sys.argv[1]), shape, (8192, 32_768), 3, smoke=device == "cpu")
"""


def parts(policy: Path | None) -> list[Part]:
    """All parts, the most valuable first.

    Those with an engine run it as a job does; the other ways are in tests/gpu.
    """
    tests = (sys.executable, "-m", "pytest", "-q", "-n0", "-rs")
    bench = (*PROGRAM, "bench")
    engines = "tests/gpu/test_engines.py"
    no_policy = "" if policy else "give --policy, a folder with a head in it, to measure decoding"
    return [
        Part("machine", 60, SMALL[:3], (sys.executable, "-c", MACHINE), last_line, decides=True),
        Part("GPU tests", 150, (*SMALL, *TESTS), (*tests, "tests/gpu", f"--ignore={engines}"), tests_line),
        Part("loss", 90, (*SMALL, *TABLES), (*PYTHON, "-c", LOSS, "{out}"), loss_line),
        Part("head, 8B shape", 150, (*SMALL, *TABLES), (*PYTHON, "-c", HEAD, "{out}"), head_line),
        Part(
            "draft parity",
            150,
            (*SMALL, *TESTS, *ENGINE),
            (*tests, engines, "-k", "drafts_what and not V1 and job"),
            tests_line,
        ),
        Part(
            "losslessness",
            180,
            (*SMALL, *TESTS, *ENGINE),
            (*tests, engines, "-k", "drafted_samples_follow and not V1 and job"),
            tests_line,
        ),
        Part(
            "weight rounds",
            120,
            (*SMALL, *ENGINE),
            (*bench, "sync", "--repeats", "3", "--out", "{out}"),
            sync_line,
        ),
        Part(
            "decoding",
            180,
            (*SMALL, *ENGINE),
            (*bench, "rollout", str(policy), "--out", "{out}"),
            rollout_line,
            no_policy,
        ),
        Part(
            "losslessness, blocks",
            180,
            (*SMALL, *TESTS, *ENGINE),
            (*tests, engines, "-k", "verified_as_blocks"),
            tests_line,
        ),
    ]


def run(part: Part, out: Path, left_s: float, why: str = "") -> Outcome:
    """Run a part within its limit and what is left of the whole, unless there is a reason `why` not to.

    Whatever it does, there is an outcome.
    """
    command = " ".join(part.words)
    lacking = [name for name in part.needs if find_spec(name) is None]
    why = why or (f"{', '.join(lacking)} not installed" if lacking else part.missing)
    if why or left_s < 5:
        return Outcome(part.name, "skipped", 0.0, why or "no time left", command)
    folder, began = out / LOGS / part.name.replace(", ", "_").replace(" ", "_"), time.monotonic()
    folder.mkdir(parents=True, exist_ok=True)
    words = [word.replace("{out}", str(folder)) for word in part.words]
    with (folder / "output.log").open("w", encoding="utf-8") as log:
        process = subprocess.Popen(words, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            code = process.wait(min(part.limit_s, left_s))
        except subprocess.TimeoutExpired:
            code = None
        finally:
            end_group(process)
    printed = (folder / "output.log").read_text(encoding="utf-8", errors="replace")
    state = "out of time" if code is None else "failed" if code else "passed"
    line = last_line(folder, printed)
    if state == "passed":
        try:
            line = part.reading(folder, printed)
        except NothingRanError as problem:
            state, line = "skipped", str(problem)
        except Exception as problem:  # a result that is not what we expect costs this part alone
            state, line = "failed", f"its result cannot be read: {problem!r}"
    return Outcome(part.name, state, round(time.monotonic() - began, 1), line, command)


def end_group(process: subprocess.Popen[Any]) -> None:
    """End the part and all that it started: they hold the GPU's memory."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def table(outcomes: Sequence[Outcome]) -> str:
    """All outcomes in Markdown."""
    rows = [
        f"| {one.name} | {one.state} | {one.seconds:.0f} | {one.line.replace('|', '/')} |" for one in outcomes
    ]
    return "\n".join(["| part | outcome | seconds | result |", "|---|---|---|---|", *rows]) + "\n"


def check(chosen: Sequence[Part], out: Path, budget_s: float) -> int:
    """Run the parts in order; the result is written after each. Returns 1 if one failed or ran out of time."""
    out.mkdir(parents=True, exist_ok=True)
    began, outcomes, why = time.monotonic(), [], ""
    for part in chosen:
        print(f"{part.name} …", flush=True)
        outcomes.append(run(part, out, budget_s - (time.monotonic() - began), why))
        if part.decides and outcomes[-1].state != "passed":
            why = f"without {part.name}"
        print(
            f"{part.name}: {outcomes[-1].state}, {outcomes[-1].seconds:.0f} s: {outcomes[-1].line}",
            flush=True,
        )
        (out / RESULT).write_text(
            json.dumps([asdict(one) for one in outcomes], indent=1) + "\n", encoding="utf-8"
        )
        (out / TABLE).write_text(table(outcomes), encoding="utf-8")
    print(f"result: {out / RESULT}, {out / TABLE}; what each part printed: {out / LOGS}")
    return int(any(one.state in ("failed", "out of time") for one in outcomes))


def main() -> int:
    """Parse and check; returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--policy", type=Path, help="folder of a policy with a head, for decoding")
    parser.add_argument("--out", type=Path, default=Path("runs/gpu_check"), help="default runs/gpu_check")
    parser.add_argument("--seconds", type=float, default=BUDGET_S, help="for all parts, default 540")
    parser.add_argument("--only", nargs="+", metavar="PART", help="run these parts alone")
    args = parser.parse_args()
    every = parts(args.policy)
    names = [part.name for part in every]
    if unknown := set(args.only or []) - set(names):
        parser.error(f"--only: got {', '.join(sorted(unknown))}, expected some of: {'; '.join(names)}")
    chosen = [part for part in every if not args.only or part.name in args.only]
    return check(chosen, args.out, args.seconds)


if __name__ == "__main__":
    sys.exit(main())
