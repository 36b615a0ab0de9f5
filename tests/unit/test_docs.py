"""The project's pages agree with the code: examples run, job files load, and every name and link is there."""

import ast
import doctest
import re
import subprocess
import tomllib
from pathlib import Path
from typing import get_args

import pytest

from openrlhf_mtp.cli.convert import run_convert
from openrlhf_mtp.config.checks import regime
from openrlhf_mtp.config.job import Job, load_job
from openrlhf_mtp.config.job_context import JobContext
from openrlhf_mtp.config.machine.host import Host
from openrlhf_mtp.config.objectives import Objective
from openrlhf_mtp.config.reading.old_names import IS_CORRECTION_SCHEMES, old_names
from openrlhf_mtp.config.settings.regime import Regime, Weighting
from openrlhf_mtp.config.settings.section import mtp_names
from openrlhf_mtp.runlog import metrics
from openrlhf_mtp.upstream.openrlhf.flags import flag_specs

ROOT = Path(__file__).parents[2]
FOLDERS = ("docs", "docker", "examples", "helm", "k8s", "tests")


def page_name(path: Path) -> str:
    """Name a page of docs/ by its file name, another page by its path."""
    name = path.relative_to(ROOT).as_posix()
    return name if path.stem == "README" else name.removeprefix("docs/")


PAGES = {
    page_name(path): path
    for path in [*sorted(ROOT.glob("*.md")), *(p for f in FOLDERS for p in sorted((ROOT / f).rglob("*.md")))]
}
METHODS = ("losses.md", "regimes.md", "occ.md", "advantage_aware.md")
"""The pages on training: they name metrics and show job files."""

FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)
QUOTED = re.compile(r"`([^`\n]+)`")
CODE = re.compile(r"(?:openrlhf_mtp|tests|examples|scripts|docs|helm)/[\w./-]*\w(?:::?\w+(?:\.\w+)?)?")
LINK = re.compile(r"\]\(([^)\s]+)\)")


def text(page: str) -> str:
    return PAGES[page].read_text(encoding="utf-8")


def blocks(page: str, language: str) -> list[str]:
    return [body for name, body in FENCED.findall(text(page)) if name == language]


def quoted(page: str) -> list[str]:
    """The text between backticks in the page's running text and tables."""
    return QUOTED.findall(FENCED.sub("", text(page)))


def jobs(page: str, folder: Path) -> list[Job]:
    """The page's YAML examples with an `mtp:` section, loaded as job files."""
    found = []
    for number, body in enumerate(blocks(page, "yaml")):
        if re.search(r"^mtp:", body, re.M):
            path = folder / f"{number}.yaml"
            path.write_text(body, encoding="utf-8")
            found.append(load_job(path, [], flag_specs()))
    return found


@pytest.mark.parametrize("page", METHODS)
def test_every_example_job_loads_and_its_regime_has_what_it_needs(page, tmp_path):
    loaded = jobs(page, tmp_path)
    assert loaded
    for job in loaded:
        situation = JobContext(job, Host(0), look_at_files=False)
        assert [str(c) for c in [*regime.joint(situation), *regime.unused(situation)]] == []


def test_every_regime_and_both_coefficients_have_an_example(tmp_path):
    loaded = [job.mtp for job in jobs("regimes.md", tmp_path)]
    assert {mtp.regime for mtp in loaded} == set(get_args(Regime))
    assert {mtp.coefficient.kind for mtp in loaded if mtp.is_joint} == {"fixed", "occ"}


@pytest.mark.parametrize(("page", "names"), [("losses.md", Objective), ("advantage_aware.md", Weighting)])
def test_the_table_has_a_row_for_every_choice(page, names):
    rows = re.findall(r"^\| `(\w+)` \|", text(page), re.M)
    assert set(get_args(names)) <= set(rows)


@pytest.mark.parametrize("page", [page for page in PAGES if ">>> " in text(page)])
def test_the_examples_of_a_page_print_what_it_says(page):
    source = "\n".join(body for body in blocks(page, "python") if ">>> " in body)
    test = doctest.DocTestParser().get_doctest(source, {}, page, str(PAGES[page]), 0)
    assert test.examples
    report: list[str] = []
    doctest.DocTestRunner().run(test, out=report.append)
    assert report == []


def defined(path: Path) -> set[str]:
    """Functions and classes of a file, and `Class.method` of those classes."""
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    top = ast.parse(path.read_text("utf-8")).body
    classes = [node for node in top if isinstance(node, ast.ClassDef)]
    methods = {f"{c.name}.{node.name}" for c in classes for node in c.body if isinstance(node, functions)}
    return methods | {node.name for node in top if isinstance(node, (*functions, ast.ClassDef))}


def without_placeholder(path: Path) -> Path:
    """The folder of a file that a reader is to make, `tests/unit/losses/test_NAME.py`; other paths as they are."""
    made = [number for number, part in enumerate(path.parts) if "NAME" in part]
    return Path(*path.parts[: made[0]]) if made else path


@pytest.mark.parametrize("page", PAGES)
def test_every_file_function_and_test_a_page_names_is_there(page):
    missing = []
    for reference in filter(CODE.fullmatch, quoted(page)):
        file, _, name = reference.partition(":")
        path, name = without_placeholder(ROOT / file), name.removeprefix(":")
        if not path.exists() or (name and name not in defined(path)):
            missing.append(reference)
    assert missing == []


def training_step_points() -> dict[str, set[str]]:
    """The `Class.method`s that each numbered line of `PolicyTrainer.training_step`'s docstring names."""
    file = ROOT / "openrlhf_mtp/training/policy_trainer.py"
    (step,) = (
        node
        for node in ast.walk(ast.parse(file.read_text("utf-8")))
        if isinstance(node, ast.FunctionDef) and node.name == "training_step"
    )
    lines = re.findall(r"^(\d)\. (.*)$", ast.get_docstring(step) or "", re.M)
    return {number: set(re.findall(r"`(\w+\.\w+)`", line)) for number, line in lines}


def test_the_overview_numbers_a_training_step_as_its_code_does():
    points = training_step_points()
    assert len(points) > 4
    for number, methods in points.items():
        rows = [row for row in text("overview.md").splitlines() if row.startswith(f"| 5.{number} |")]
        assert rows, number
        for method in methods:
            assert any(f":{method}`" in row for row in rows), (number, method)


def test_the_map_from_papers_to_code_names_every_objective_with_a_test():
    rows = [
        line
        for line in text("papers.md").splitlines()
        if "openrlhf_mtp/losses/" in line and "`tests/" in line
    ]
    for name in get_args(Objective):
        assert any(f"`openrlhf_mtp/losses/{name}.py:{name}`" in row for row in rows), name


@pytest.mark.parametrize("page", METHODS)
def test_every_metric_and_setting_a_page_names_is_declared(page):
    known = mtp_names()
    for name in quoted(page):
        if re.fullmatch(r"(mtp|occ|spec|policy|time)/[a-z_/]+", name):
            metrics.lookup(name.replace("depth_j", "depth_1"))
        setting = re.match(r"mtp(\.[a-z_]+)+", name)
        if setting:
            path = setting.group()
            assert any(each == path or each.startswith(f"{path}.") for each in known), path


def anchors(path: Path) -> set[str]:
    """The fragments that GitHub gives to a page's headings."""
    headings = re.findall(r"^#+ (.*)$", FENCED.sub("", path.read_text(encoding="utf-8")), re.M)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_somewhere(page):
    broken = []
    for link in LINK.findall(text(page)):
        if "://" in link:
            continue
        file, _, fragment = link.partition("#")
        path = PAGES[page].parent / file if file else PAGES[page]
        if not path.exists() or (fragment and fragment not in anchors(path)):
            broken.append(link)
    assert broken == []


def test_every_symptom_on_kubernetes_names_a_command_that_shows_its_cause():
    rows = text("kubernetes_faults.md").partition("## By symptom")[2].partition("\n## ")[0].splitlines()
    rows = [row for row in rows if row.startswith("| ") and not row.startswith("| symptom | look with ")]
    cells = [re.split(r"(?<!\\) \| ", row.strip("| ")) for row in rows]
    assert len(cells) > 40
    for symptom, look, *cause in cells:
        assert re.search(r"`(kubectl|helm|openrlhf-mtp) [^`]+`", look), symptom
        assert len(cause) == 1, symptom


def test_the_script_that_the_page_converts_becomes_the_job_file_it_shows(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.delenv("RUN", raising=False)
    (tmp_path / "train.sh").write_text(blocks("from_openrlhf.md", "bash")[0], encoding="utf-8")
    code = run_convert([str(tmp_path / "train.sh")], None, nth=None, overwrite=False, with_head=True)
    shown = capsys.readouterr()
    assert shown.out == blocks("from_openrlhf.md", "yaml")[0]
    assert shown.err.partition("check ")[0] == blocks("from_openrlhf.md", "text")[0]
    assert code == 0


def test_the_old_names_that_the_page_lists_are_those_of_the_table():
    rows = re.findall(r"^\| (`.*) \| (`.*) \|$", text("from_openrlhf.md"), re.M)
    assert len(rows) > 10
    for old, today in rows:
        for name in re.findall(r"`([a-z_0-9]+)`", old):
            if name in old_names():
                assert old_names()[name].now.rpartition(".")[2] in today or name == "load_checkpoint", name
            else:
                assert name in IS_CORRECTION_SCHEMES, name


@pytest.mark.parametrize("script", blocks("from_openrlhf.md", "bash"))
def test_the_scripts_of_the_page_are_bash(script):
    subprocess.run(["bash", "-n"], input=script.encode(), check=True)


def test_the_readme_shows_the_layers_of_the_import_contract():
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"][
        "contracts"
    ]
    layers = next(contract["layers"] for contract in contracts if contract["type"] == "layers")
    expected = {(len(layers) - row, room) for row, rooms in enumerate(layers) for room in rooms.split(" | ")}
    rows = re.findall(r"^\| (\d) \| ([^|]+) \|", text("README.md"), re.M)
    assert {(int(layer), room) for layer, cell in rows for room in QUOTED.findall(cell)} == expected


def test_the_headline_figures_of_the_readme_are_measured():
    headline = text("README.md").partition("## Measured")[2].partition("\n## ")[0]
    figures = re.findall(r"^\| .+ \| (.*\d.*) \|$", headline, re.M)
    assert len(figures) == 4
    assert [figure for figure in figures if f" {figure} |" not in text("measured.md")] == []


LONGEST_CELL = 120
"""Characters of a table's cell as a reader sees it: the target of a link does not count."""


@pytest.mark.parametrize("page", [page for page in PAGES if "/" not in page or page == "docs/README.md"])
def test_every_cell_of_a_table_is_short(page):
    rows = [line for line in FENCED.sub("", text(page)).splitlines() if line.startswith("|")]
    cells = [cell.strip() for row in rows for cell in re.split(r"(?<!\\)\|", row)]
    shown = [re.sub(r"\[([^\]]+)\]\([^)]+\)", r"\1", cell) for cell in cells]
    assert [cell for cell in shown if len(cell) > LONGEST_CELL] == []
