"""The table of replacements is complete: held to the code, the docstring and the page."""

from __future__ import annotations

import ast
import importlib.util
from pathlib import Path

import pytest

from openrlhf_mtp import upstream
from openrlhf_mtp.upstream import processes
from openrlhf_mtp.upstream.patching import Patch
from openrlhf_mtp.upstream.registry import LISTS, replacements
from openrlhf_mtp.upstream.replacement import Binding, Replacement
from openrlhf_mtp.upstream.vllm import patches
from tests.unit.upstream.assignments import Assignment, assignments

ROOT = Path(__file__).parents[3]
PACKAGE = ROOT / "openrlhf_mtp"
FOLDER = PACKAGE / "upstream"
PACKAGES = {
    "torch": "torch",
    "openrlhf": "OpenRLHF",
    "deepspeed": "DeepSpeed",
    "ray": "Ray",
    "transformers": "transformers",
    "vllm": "vLLM",
}
FOUND = replacements()
ALL = [one for own in FOUND.values() for one in own]

MECHANISM = ("patching", "replacement")
"""Modules that carry out what others declare."""
COMPUTED = {
    "cpu_host": "fills stub modules of its own, and shows them in sys.modules during one import",
    "openrlhf.last_step": "marks OpenRLHF's strategy, and sets OpenRLHF's own lists while it plans",
    "uncompiled": "has one function for several patches, whose `touches` it is given",
}
"""Modules with an assignment whose name is computed, and the reason."""


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(FOLDER).with_suffix("").parts)


def in_upstream() -> dict[str, list[Assignment]]:
    return {
        module_name(path): found
        for path in sorted(FOLDER.rglob("*.py"))
        if (found := assignments(path)) and module_name(path) not in MECHANISM
    }


def test_nothing_of_another_package_is_replaced_outside_upstream():
    outside = [path for path in sorted(PACKAGE.rglob("*.py")) if not path.is_relative_to(FOLDER)]
    found = {str(path.relative_to(ROOT)): lines for path in outside if (lines := assignments(path))}
    assert found == {}


def test_every_assignment_in_upstream_is_named_by_a_replacement_of_its_module():
    unnamed = [
        (module, one.line, one.target)
        for module, found in in_upstream().items()
        for one in found
        if one.name is not None and one.name not in touched(FOUND.get(module, ()))
    ]
    assert unnamed == []


def touched(own: tuple[Replacement, ...]) -> set[str]:
    """Last components of what a module's replacements touch."""
    return {path.rpartition(".")[2] for one in own for path in one.touches}


def test_computed_names_are_the_known_ones():
    assert {m for m, found in in_upstream().items() if any(one.name is None for one in found)} == set(
        COMPUTED
    )


@pytest.mark.parametrize("module", [m for m in FOUND if m not in COMPUTED])
def test_every_patch_assigns_what_it_says_it_touches(module):
    patched = touched(tuple(one for one in FOUND[module] if isinstance(one, Patch)))
    assert patched <= {one.name for one in assignments(FOLDER / f"{module.replace('.', '/')}.py")}


def test_every_binding_is_bound_with_all_that_it_touches():
    source = (FOLDER / "openrlhf" / "bindings.py").read_text(encoding="utf-8")
    bound: dict[str, set[str | None]] = {}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "bind":
            names = bound.setdefault(ast.unparse(node.func.value), set())
            names |= {keyword.arg for keyword in node.keywords}
    module = importlib.import_module("openrlhf_mtp.upstream.openrlhf.bindings")
    declared = {name: set(one.touches) for name, one in vars(module).items() if isinstance(one, Binding)}
    assert bound == declared


def test_every_patch_is_installed_in_some_process():
    assert {one for one in ALL if isinstance(one, Patch)} == {*processes.PATCHES, *patches.PATCHES}
    assert LISTS == ("processes", "vllm.patches")


def test_every_patch_of_v1s_runner_has_a_counterpart_in_v2s_or_a_reason_why_not():
    assert [*patches.IN_V2] == [one.name for one in patches.V1_PATCHES]
    of_v2 = {one.name for one in patches.V2_PATCHES}
    for answer in patches.IN_V2.values():
        assert answer in of_v2 or answer.startswith("none: ")


@pytest.mark.parametrize("one", ALL, ids=lambda one: one.name)
def test_every_replacement_says_where_why_and_on_which_versions(one):
    assert one.target.partition(".")[0] in PACKAGES
    assert one.touches
    assert len(one.reason.split()) >= 5
    assert any(character.isdigit() for character in one.versions)


def test_names_tell_replacements_apart():
    assert len({one.name for one in ALL}) == len(ALL)


def test_the_packages_docstring_names_every_replacement():
    rows = [
        f"| `{module}` | {PACKAGES[one.target.partition('.')[0]]} | {one.name} |"
        for module, own in FOUND.items()
        for one in own
    ]
    written = [line for line in (upstream.__doc__ or "").splitlines() if line.startswith("| `")]
    assert written == rows


def test_the_page_of_replacements_is_in_step_with_the_code():
    path = ROOT / "scripts" / "replacements_page.py"
    spec = importlib.util.spec_from_file_location("replacements_page", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    written = (ROOT / "docs" / "replacements.md").read_text(encoding="utf-8")
    command = "run: .venv/bin/python scripts/replacements_page.py > docs/replacements.md"
    assert written == f"{module.page()}\n", command
