"""`py.typed` tells type checkers to trust the package: all of it is checked, strictly."""

import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
RELAXED = {"disallow_subclassing_any", "warn_return_any"}
"""Rules that a room may drop which calls packages without types."""


def settings() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]


def test_the_whole_package_is_under_mypys_strict_rules():
    mypy = settings()["mypy"]
    assert mypy["files"] == ["openrlhf_mtp"]
    assert mypy["strict"] is True
    kernels = "openrlhf_mtp.losses.kernels.rows_triton"  # read by Triton's compiler
    ours = [one for one in mypy["overrides"] if all(m.startswith("openrlhf_mtp") for m in one["module"])]
    for override in ours:
        off = {rule for rule, value in override.items() if value is False}
        assert off <= RELAXED or override["module"] == [kernels]
        assert not override.get("ignore_errors", False)


def test_the_marker_is_there_and_packed():
    assert (ROOT / "openrlhf_mtp" / "py.typed").is_file()
    assert "py.typed" in settings()["setuptools"]["package-data"]["openrlhf_mtp"]
