"""Settings that are paths: relative to the current directory, and made absolute on loading, `~` expanded.

Ray workers and vLLM's processes may run in other folders, so a relative path would mean different files.
A name that may also be one of the Hugging Face Hub (`Qwen/Qwen3-8B`) is a path only if it exists here.
"""

import os
from pathlib import Path

from openrlhf_mtp.config.errors import JobError
from openrlhf_mtp.config.reading.flag_spec import FlagValue
from openrlhf_mtp.config.reading.values import shown

OUTPUTS = ("ckpt.path", "ckpt.output_dir", "logger.tensorboard_dir")
FOLDERS = ("mtp.head",)
MODELS = ("actor.model_name_or_path", "critic.model_name_or_path", "reward.model_name_or_path")
DATASETS = ("data.prompt_dataset", "eval.dataset")
SCRIPTS = ("reward.remote_url", "train.agent_func_path")
PATHS = frozenset(OUTPUTS + FOLDERS + MODELS + DATASETS + SCRIPTS)
MOST_BYTES, MOST_BYTES_OF_A_NAME = 4000, 255
"""What Linux's file systems hold, with room for the files inside a folder."""
DATA_SUFFIXES = frozenset({".json", ".jsonl", ".csv", ".parquet", ".arrow", ".py"})


def absolute_path(name: str, value: FlagValue) -> FlagValue:
    """`value` with its path made absolute if the setting `name` is a path, else unchanged.

    Raises:
        JobError: the home folder of a user who does not exist, or a path that no file system holds.
    """
    if not isinstance(value, str) or not value:
        return value
    if name in OUTPUTS + FOLDERS:
        return _absolute(name, value)
    if name in MODELS + DATASETS + SCRIPTS:
        return ",".join(_absolute_if_local(name, part.strip()) for part in value.split(","))
    return value


def too_long(path: str | Path) -> bool:
    """Whether no file system holds such a path, so that even to ask whether it exists is an error."""
    names = os.fsencode(path).split(b"/")
    return len(b"/".join(names)) > MOST_BYTES or max(map(len, names)) > MOST_BYTES_OF_A_NAME


def is_local(name: str) -> bool:
    """Whether a model, data set or script name means a file or folder of this machine."""
    path = Path(name.partition("@")[0])
    # a Hub name has one slash at most
    explicit = path.is_absolute() or name.startswith(("./", "../", "~")) or len(path.parts) > 2
    return "://" not in name and (explicit or path.suffix in DATA_SUFFIXES or os.path.exists(path))


def _absolute_if_local(setting: str, name: str) -> str:
    """A URL, and a name of the Hub, stay as they are; the Hub's cache makes a longer name of each of its own."""
    if "://" in name or (not too_long(f"models--{name}") and not is_local(name)):
        return name
    return _absolute(setting, name)


def _absolute(setting: str, path: str) -> str:
    home = os.path.expanduser(path)
    if home.startswith("~"):
        raise JobError(
            f"{setting}: got {shown(path)}, expected a folder or ~ for your own home; there is no user of that "
            f"name (a folder called so is ./{path})"
        )
    absolute = Path(home).absolute()
    if too_long(absolute):
        raise JobError(
            f"{setting}: got {shown(path)}, expected a path of at most {MOST_BYTES} bytes, each name in it of at most "
            f"{MOST_BYTES_OF_A_NAME}"
        )
    return str(absolute)
