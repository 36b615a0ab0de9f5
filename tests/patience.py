"""How patient tests are: limits are written for the machine below, and scaled to the one that runs them.

A limit is there for a hang, so as written it is several times what its test takes; `seconds` multiplies it by how much
slower this machine is, now. What a test lets the product wait (`sync.timeout_s`) goes through it too.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time

VARIABLE = "PATIENCE"
"""Environment variable with the factor: set by the first process of a run for all others, or by hand."""

REFERENCE_S = 0.35
"""What `measured_s` gives on two quiet cores of the server processor that the limits were written on."""

MOST = 20.0
"""No machine is taken for slower than this: a hang must end within a day."""

_WORK = """
import numpy
total = sum(n & 7 for n in range(400_000))
texts = {n: str(n) for n in range(60_000)}
product = numpy.ones((256, 256), dtype=numpy.float32)
for _ in range(40):
    product = product @ product / 256
"""


def measured_s() -> float:
    """Seconds for one fresh Python on each core: its start, an import, bytecode, memory and a few products."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    cores = min(8, len(os.sched_getaffinity(0)))
    begin = time.perf_counter()
    children = [subprocess.Popen([sys.executable, "-c", _WORK], env=environment) for _ in range(cores)]
    codes = [child.wait() for child in children]
    if any(codes):
        raise RuntimeError(f"the calibration's processes ended with {codes}")
    return time.perf_counter() - begin


def slow_by() -> float:
    """How many times slower than the reference this machine is, at least 1; measured once a run."""
    if VARIABLE not in os.environ:
        os.environ[VARIABLE] = f"{min(MOST, max(1.0, measured_s() / REFERENCE_S)):.2f}"
    return float(os.environ[VARIABLE])


def seconds(limit: float) -> float:
    """A limit in seconds on the reference machine, as this one needs it."""
    return limit * slow_by()
