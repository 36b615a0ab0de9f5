"""`check` finds a model in the Hub cache where, and in the revision that, `huggingface_hub` finds it."""

from __future__ import annotations

import importlib
import json
import os
from pathlib import Path

from openrlhf_mtp.config.model_files import read_model_config
from tests.processes import in_fresh_process

NAMES = ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME", "HOME")
CACHES = {
    "HF_HUB_CACHE": "",
    "HUGGINGFACE_HUB_CACHE": "",
    "HF_HOME": "hub",
    "XDG_CACHE_HOME": "huggingface/hub",
    "HOME": ".cache/huggingface/hub",
}
"""Variable -> the cache below its folder. An earlier one wins."""


def _fill(cache: Path, hidden_size: int) -> None:
    """A cached model: what `main` names, and a newer snapshot that was asked for by its commit."""
    model = cache / "models--org--small"
    (model / "refs").mkdir(parents=True)
    (model / "refs" / "main").write_text("aaaa")
    for revision, size in (("aaaa", hidden_size), ("bbbb", -1)):
        (model / "snapshots" / revision).mkdir(parents=True)
        (model / "snapshots" / revision / "config.json").write_text(json.dumps({"hidden_size": size}))


def _answers(root: str) -> list[tuple[str, int, int]]:
    """Variable, the size that `huggingface_hub` finds and the one that `check` finds; all later variables are set."""
    import huggingface_hub
    from huggingface_hub import constants

    for name in NAMES:  # none of this host's own
        os.environ.pop(name, None)
    found = []
    for number in reversed(range(len(NAMES))):
        name = NAMES[number]
        os.environ[name] = f"{root}/{name}"
        _fill(Path(root, name, CACHES[name]), number)
        importlib.reload(constants)
        path = huggingface_hub.try_to_load_from_cache("org/small", "config.json")
        assert isinstance(path, str), name
        ours = read_model_config("org/small")
        assert ours is not None, name
        found.append((name, json.loads(Path(path).read_text())["hidden_size"], ours["hidden_size"]))
    return found


def test_check_reads_the_cached_config_that_a_load_by_name_takes(tmp_path: Path) -> None:
    found = in_fresh_process(_answers, str(tmp_path), warm=False)
    assert found == [(name, number, number) for number, name in reversed(list(enumerate(NAMES)))]


def _absent(root: str) -> list[object]:
    from huggingface_hub import constants

    os.environ["HF_HUB_CACHE"] = constants.HF_HUB_CACHE = root
    (Path(root) / "models--org--begun" / "refs").mkdir(parents=True)
    (Path(root) / "models--org--begun" / "refs" / "main").write_text("cccc")
    return [read_model_config(name) for name in ("org/small", "org/begun", "x" * 250, "a/b/c/../d")]


def test_a_model_that_is_not_cached_whole_has_no_config(tmp_path: Path) -> None:
    assert in_fresh_process(_absent, str(tmp_path), warm=False) == [None] * 4
