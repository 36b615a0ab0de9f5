"""Which settings are paths. They are relative to the current directory and made absolute on loading.

Ray workers and vLLM's processes may run in other folders, so a relative path would mean different files.
A name that may also be one of the Hugging Face Hub (`Qwen/Qwen3-8B`) is a path only if it exists here.
"""

from pathlib import Path

from openrlhf_mtp.config.flags import FlagValue

OUTPUTS = ("ckpt.path", "ckpt.output_dir", "logger.tensorboard_dir")
FOLDERS = ("mtp.head",)
MODELS = ("actor.model_name_or_path", "critic.model_name_or_path", "reward.model_name_or_path")
DATASETS = ("data.prompt_dataset", "eval.dataset")
SCRIPTS = ("reward.remote_url", "train.agent_func_path")
DATA_SUFFIXES = frozenset({".json", ".jsonl", ".csv", ".parquet", ".arrow", ".py"})


def absolute_path(name: str, value: FlagValue) -> FlagValue:
    """`value` with its path made absolute if the setting `name` is a path, else unchanged."""
    if not isinstance(value, str) or not value:
        return value
    if name in OUTPUTS + FOLDERS:
        return str(Path(value).absolute())
    if name in MODELS + DATASETS + SCRIPTS:
        return ",".join(_absolute_part(part.strip()) for part in value.split(","))
    return value


def is_local(name: str) -> bool:
    """Whether a model, data set or script name means a file or folder of this machine."""
    path = Path(name.partition("@")[0])
    # a Hub name has one slash at most
    explicit = path.is_absolute() or name.startswith(("./", "../", "~")) or len(path.parts) > 2
    return "://" not in name and (explicit or path.suffix in DATA_SUFFIXES or path.exists())


def _absolute_part(name: str) -> str:
    return str(Path(name).expanduser().absolute()) if is_local(name) else name
