"""What a benchmark leaves: a Markdown table for people, JUnit XML for CI, JSON for scripts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from xml.etree import ElementTree

from ci.compare import Result, regressions

MARKS = {"ok": "ok", "better": "better", "worse": "**worse**", "missing": "**missing**"}


def markdown(title: str, results: Sequence[Result], problem: str = "") -> str:
    """A table, worst first; `problem` when the run did not get so far."""
    if problem:
        return f"### {title}: failed\n\n```\n{problem.strip()}\n```\n"
    order = ["missing", "worse", "ok", "better"]
    lines = [
        f"| {one.expected.name} | {_number(one.got)} | {_number(one.expected.value)} | "
        f"{'≥' if one.expected.better == 'higher' else '≤'} {_number(one.expected.limit)} | {MARKS[one.verdict]} |"
        for one in sorted(results, key=lambda one: order.index(one.verdict))
    ]
    worse = len(regressions(results))
    heading = f"### {title}: {f'{worse} regression(s)' if worse else 'no regression'}"
    return "\n".join(
        [heading, "", "| figure | now | baseline | limit | |", "|---|---|---|---|---|", *lines, ""]
    )


def junit(title: str, results: Sequence[Result], seconds: float, problem: str = "") -> str:
    """One test case a figure; a run that failed is one case with an error."""
    suite = ElementTree.Element("testsuite", name=title, time=f"{seconds:.1f}")
    if problem:
        case = ElementTree.SubElement(suite, "testcase", classname=title, name="run")
        ElementTree.SubElement(case, "error", message=problem.strip().splitlines()[-1]).text = problem
    for one in results:
        case = ElementTree.SubElement(suite, "testcase", classname=title, name=one.expected.name)
        if one in regressions(results):
            message = f"{_number(one.got)}, the limit is {_number(one.expected.limit)}"
            ElementTree.SubElement(case, "failure", message=message)
    suite.set("tests", str(len(suite)))
    suite.set("failures", str(0 if problem else len(regressions(results))))
    suite.set("errors", str(int(bool(problem))))
    return ElementTree.tostring(suite, encoding="unicode", xml_declaration=True)


def write(
    out: Path,
    title: str,
    results: Sequence[Result],
    seconds: float,
    problem: str = "",
    step_summary: Path | None = None,
) -> None:
    """`table.md`, `junit.xml` and `results.json` in a folder; the table also where GitHub shows it."""
    out.mkdir(parents=True, exist_ok=True)
    table = markdown(title, results, problem)
    (out / "table.md").write_text(table, encoding="utf-8")
    (out / "junit.xml").write_text(junit(title, results, seconds, problem), encoding="utf-8")
    rows = [{**asdict(one.expected), "got": one.got, "verdict": one.verdict} for one in results]
    content = {"title": title, "seconds": seconds, "problem": problem, "results": rows}
    (out / "results.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    if step_summary is not None:
        with step_summary.open("a", encoding="utf-8") as file:
            file.write(table)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"
