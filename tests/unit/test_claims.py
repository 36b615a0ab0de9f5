"""What docstrings say that the code does not do: it imports no such package, it runs no script."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "openrlhf_mtp"
STANDARD_LIBRARY_ONLY = ("cluster.caches", "cluster.pod_logs")
RUNS = {"subprocess", "multiprocessing", "pty", "runpy", "code", "importlib"}
"""Modules with which a script could be run."""


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    return grimp.build_graph("openrlhf_mtp", include_external_packages=True, cache_dir=None)


@pytest.mark.parametrize("name", STANDARD_LIBRARY_ONLY)
def test_what_a_pod_runs_before_the_package_needs_the_standard_library_only(graph, name):
    module = f"openrlhf_mtp.{name}"
    needed = graph.find_upstream_modules(module, as_package=(PACKAGE / name.replace(".", "/")).is_dir())
    external = {one.partition(".")[0] for one in needed} - {"openrlhf_mtp"}
    assert external <= sys.stdlib_module_names
    assert external, "the search found nothing"


def test_the_list_of_what_needs_the_standard_library_only_is_whole():
    claims = {
        ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")
        for path in PACKAGE.rglob("*.py")
        if "standard library only" in path.read_text(encoding="utf-8").lower()
    }
    assert claims == set(STANDARD_LIBRARY_ONLY)


@pytest.mark.parametrize(
    "path", sorted((PACKAGE / "config" / "convert").glob("*.py")), ids=lambda path: path.stem
)
def test_a_launch_script_is_read_and_never_run(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    imported = {
        name.partition(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in (getattr(node, "module", None) or "", *(alias.name for alias in node.names))
    }
    called = {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    assert not imported & RUNS
    assert not called & {"eval", "exec", "compile", "__import__", "os.system", "os.popen"}
    assert not any(name.startswith(("os.exec", "os.spawn", "os.posix_spawn", "os.fork")) for name in called)


@pytest.mark.parametrize("path", sorted((PACKAGE / "sync").glob("*.py")), ids=lambda path: path.stem)
def test_sync_leaves_the_default_process_group_alone(path):
    """Functions of torch.distributed act on it; a class makes a group of its own."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    called = {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    functions = {name for name in called if name.startswith("dist.") and name[len("dist.")].islower()}
    assert functions <= {"dist.get_rank", "dist.is_initialized"}, "which only read it"


def test_reading_counters_is_the_one_impure_function_of_the_rollout_statistics():
    tree = ast.parse((PACKAGE / "rollout" / "stats.py").read_text(encoding="utf-8"))
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    importing = {
        function.name
        for function in functions
        if any(isinstance(node, ast.Import | ast.ImportFrom) for node in ast.walk(function))
    }
    assert importing == {"read_counters"}
    at_the_top = {node.module for node in tree.body if isinstance(node, ast.ImportFrom)}
    ours = {"openrlhf_mtp.runlog", "openrlhf_mtp.rollout.ended_responses"}
    assert at_the_top <= {"__future__", "collections.abc", "dataclasses", "typing", *ours}
