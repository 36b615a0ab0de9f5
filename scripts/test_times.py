"""Where a test run's time went: the slowest tests, and counts and seconds by tier, passed or failed alike.

    python scripts/test_times.py RESULT.xml...

Reads the JUnit files that pytest wrote. A fixture's seconds count for the first test that asked for it.
"""

from __future__ import annotations

import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

SLOWEST = 15


class Test(NamedTuple):
    """One test of a run; `outcome` is passed, failed or skipped."""

    tier: str
    name: str
    seconds: float
    outcome: str


def outcome(case: ElementTree.Element) -> str:
    """What came of a `testcase`; an error in a fixture is a failure."""
    found = {child.tag for child in case}
    return "failed" if found & {"failure", "error"} else "skipped" if "skipped" in found else "passed"


def tests(file: Path) -> Iterator[Test]:
    """The tests of one result file, named as `tests/<tier>/...`."""
    for case in ElementTree.parse(file).iter("testcase"):
        _, tier, *rest = [*case.get("classname", "").split("."), "", ""]
        place = "/".join(part for part in rest if part)
        yield Test(tier, f"{place}::{case.get('name', '')}", float(case.get("time", 0)), outcome(case))


def summary(found: list[Test]) -> str:
    """The two tables."""
    lines = [f"{SLOWEST} slowest:"]
    for test in sorted(found, key=lambda test: -test.seconds)[:SLOWEST]:
        mark = "" if test.outcome == "passed" else f"  ({test.outcome})"
        lines.append(f"{test.seconds:8.1f} s  {test.tier}/{test.name}{mark}")
    by_tier: dict[str, list[Test]] = defaultdict(list)
    for test in found:
        by_tier[test.tier].append(test)
    lines.append(f"{'tier':<10}{'passed':>8}{'failed':>8}{'skipped':>8}{'seconds':>10}")
    for tier, own in [*by_tier.items(), ("all", found)]:
        count = Counter(test.outcome for test in own)
        seconds = sum(test.seconds for test in own)
        lines.append(
            f"{tier:<10}{count['passed']:>8}{count['failed']:>8}{count['skipped']:>8}{seconds:>10.0f}"
        )
    return "\n".join(lines)


def main(files: list[str]) -> int:
    """Print the tables; a run that was cut before it wrote its results is named."""
    found = []
    for file in map(Path, files):
        if file.exists():
            found += list(tests(file))
        else:
            print(f"{file.name}: no results, the run was cut")
    print(summary(found))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
