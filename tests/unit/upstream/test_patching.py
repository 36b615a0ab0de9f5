"""Patches by module name: applied at import in the right order, once, and never silently without effect."""

import importlib
import sys
from types import ModuleType

import pytest

from openrlhf_mtp.upstream import patching
from openrlhf_mtp.upstream.patching import Patch, install, installed
from openrlhf_mtp.upstream.replacement import ReplacementInactiveError

TARGET = "synthetic_upstream_module"


@pytest.fixture
def upstream(tmp_path, monkeypatch):
    """A module on the path that notes what it sees while it is imported, and a registry of patches of its own."""
    (tmp_path / f"{TARGET}.py").write_text(
        "import sys\nseen_at_import = 'helper_stub' in sys.modules\ndef answer():\n    return 41\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(patching, "_FINDER", patching._AfterImport())
    monkeypatch.delitem(sys.modules, TARGET, raising=False)
    importlib.invalidate_caches()
    before = list(sys.meta_path)
    yield lambda: importlib.import_module(TARGET)
    sys.meta_path[:] = before
    sys.modules.pop(TARGET, None)


def correct_answer(module: ModuleType) -> None:
    original = module.answer
    module.answer = lambda: original() + 1


def patch(name: str = "answer", **changes) -> Patch:
    fields = {
        "target": TARGET,
        "touches": ("answer",),
        "reason": "it answers 41",
        "versions": "synthetic 1.0",
        "apply": correct_answer,
        "probe": lambda module: module.answer() == 42,
    }
    return Patch(name=name, **{**fields, **changes})


def test_a_patch_waits_for_the_import_of_its_module(upstream):
    install([patch()])
    assert TARGET not in sys.modules
    assert upstream().answer() == 42


def test_a_module_that_is_already_there_is_patched_at_once(upstream):
    module = upstream()
    assert module.answer() == 41
    install([patch()])
    assert module.answer() == 42


@pytest.mark.parametrize("import_first", [True, False])
def test_installing_twice_applies_once(upstream, import_first):
    if import_first:
        upstream()
    install([patch()])
    install([patch()])
    assert upstream().answer() == 42, "applied twice it would be 43"
    assert [each.name for each in installed()] == ["answer"]


def test_a_patch_without_effect_stops_the_import_and_says_why_it_exists(upstream):
    install([patch(apply=lambda module: None)])
    with pytest.raises(
        ReplacementInactiveError, match=r"'answer' on synthetic_upstream_module.*synthetic 1\.0.*answers 41"
    ):
        upstream()
    assert TARGET not in sys.modules, "a half-patched module must not be used by a later import"


def test_a_patch_without_effect_on_a_loaded_module_fails_every_time(upstream):
    upstream()
    for _ in range(2):
        with pytest.raises(ReplacementInactiveError):
            install([patch(apply=lambda module: None)])


def test_patches_of_one_module_are_applied_in_order_of_registration(upstream):
    def double(module: ModuleType) -> None:
        original = module.answer
        module.answer = lambda: original() * 2

    install([patch()])
    install([patch("doubled", apply=double, probe=lambda module: module.answer() == 84)])
    assert upstream().answer() == 84
    assert [each.name for each in installed()] == ["answer", "doubled"]


def show_stub():
    sys.modules["helper_stub"] = ModuleType("helper_stub")
    return lambda: sys.modules.pop("helper_stub")


def test_what_is_shown_before_an_import_is_visible_only_while_it_runs(upstream):
    install([patch(before=show_stub)])
    assert upstream().seen_at_import
    assert "helper_stub" not in sys.modules


def test_it_is_hidden_again_when_the_import_fails(upstream, tmp_path):
    (tmp_path / f"{TARGET}.py").write_text("raise ImportError('broken on this host')\n")
    install([patch(before=show_stub)])
    with pytest.raises(ImportError, match="broken on this host"):
        upstream()
    assert "helper_stub" not in sys.modules


def test_a_missing_module_is_reported_as_python_does(upstream):
    install([patch(target="synthetic_module_that_is_not_there")])
    with pytest.raises(ModuleNotFoundError, match="synthetic_module_that_is_not_there"):
        importlib.import_module("synthetic_module_that_is_not_there")


def test_other_modules_are_not_touched(upstream, tmp_path):
    (tmp_path / "synthetic_neighbor.py").write_text("def answer():\n    return 41\n")
    install([patch()])
    try:
        assert importlib.import_module("synthetic_neighbor").answer() == 41
    finally:
        sys.modules.pop("synthetic_neighbor", None)
