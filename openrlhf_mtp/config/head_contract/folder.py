"""The head's folder: its place beside the policy, and the files in it."""

from collections.abc import Iterator
from pathlib import Path

from openrlhf_mtp.config.problem import Problem, refuse
from openrlhf_mtp.config.reading.paths import is_local

HEAD_FOLDER = "mtp"
"""Name of the head's folder inside its policy's."""

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"


def head_folder(given: str | Path | None, policy: str | Path) -> Path:
    """The folder of a policy's head: the given one (`mtp.head`), or `mtp` inside the policy's."""
    return Path(policy) / HEAD_FOLDER if given is None else Path(given)


def head_files(folder: Path) -> Iterator[Problem]:
    """The head's two files exist."""
    missing = [name for name in (CONFIG_FILE, WEIGHTS_FILE) if not (folder / name).is_file()]
    if missing:
        is_are = "is" if len(missing) == 1 else "are"
        yield refuse(
            "mtp.head",
            f"{folder} is not a head's folder: {' and '.join(missing)} {is_are} missing; make a head with "
            "openrlhf-mtp equip, or set mtp.head to the folder of one",
        )


def policy_files(policy: str) -> Iterator[Problem]:
    """A policy that is named by its folder is there. A Hub model is not judged."""
    if is_local(policy) and not (Path(policy) / CONFIG_FILE).is_file():
        yield refuse(
            "actor.model_name_or_path",
            f"{policy} is not a model folder: it has no {CONFIG_FILE}; run openrlhf-mtp equip MODEL --out there first, "
            "or check the path",
        )
