"""The test tiers: the folder decides the marker, the time limit, and whether this host can run it.

| folder | marker | limit a test |
|---|---|---|
| unit | unit | 60 s (they take milliseconds; the limit is for a hang) |
| contract | contract | 120 s |
| engine | engine | 900 s |
| chart | chart | 120 s |
| cluster | cluster | 600 s, skipped without root or a control plane (tests/cluster/conftest.py) |
| gpu | gpu | 600 s, skipped without a CUDA GPU |

These limits, and those of `pytest.mark.timeout`, are multiplied by how much slower this machine is (tests/patience.py).
Tests marked `nightly` are skipped visibly unless `--nightly` is given, as `make test-all` does. What guards what is in
tests/README.md.
"""

import os
import shutil
import signal
import subprocess
from functools import cache
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.patience import seconds, slow_by

# Tensors here are tiny: threads would only spin, and slow the engines that run beside them.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A shell that starts a command in the background leaves it deaf to Ctrl-C, which some tests press.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

TESTS = Path(__file__).parent
ROOT = TESTS.parent
TIME_LIMIT_S = {"unit": 60, "contract": 120, "engine": 900, "chart": 120, "cluster": 600, "gpu": 600}

# One profile everywhere: the same examples in every run, so that a red test is red for everyone.
settings.register_profile(
    "project",
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("project")


@cache
def cuda_gpus() -> int:
    """CUDA GPUs of this host as its driver lists them, without importing torch."""
    if shutil.which("nvidia-smi") is None:
        return 0
    listing = subprocess.run(
        ["nvidia-smi", "-L"], capture_output=True, text=True, timeout=seconds(30), check=False
    )
    return sum(line.startswith("GPU ") for line in listing.stdout.splitlines())


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--nightly", action="store_true", help="run the tests marked nightly too")


def pytest_configure() -> None:
    slow_by()  # before anything else runs, and once for all workers


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    terminalreporter.line(
        f"limits were {slow_by():g} times those of the reference machine (tests/patience.py)"
    )


def tier_of(item: pytest.Item) -> str:
    """The folder that a test lies in.

    Raises:
        pytest.UsageError: it is none of the tiers.
    """
    tier = item.path.relative_to(TESTS).parts[0]
    if tier not in TIME_LIMIT_S:
        raise pytest.UsageError(
            f"{item.path}: a test lives in tests/{{{','.join(TIME_LIMIT_S)}}}/, whose name is its tier"
        )
    return tier


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        tier = tier_of(item)
        item.add_marker(tier)
        own = item.get_closest_marker("timeout")
        item.add_marker(
            pytest.mark.timeout(seconds(own.args[0] if own else TIME_LIMIT_S[tier])), append=False
        )
        if item.get_closest_marker("nightly") and not config.getoption("--nightly"):
            item.add_marker(pytest.mark.skip(reason="nightly: make test-all runs it, or pytest --nightly"))
        if tier == "gpu" and cuda_gpus() == 0:
            item.add_marker(pytest.mark.skip(reason="needs a CUDA GPU; nvidia-smi lists none on this host"))
    order = list(TIME_LIMIT_S)
    items.sort(key=lambda item: order.index(tier_of(item)))  # the quick ones first


@pytest.fixture(scope="session")
def project_root() -> Path:
    """The checkout's root folder."""
    return ROOT
