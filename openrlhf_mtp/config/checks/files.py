"""Data files, reward functions and the run folder."""

import ast
import os
from collections.abc import Iterator
from pathlib import Path

from openrlhf_mtp.config.data_files import READABLE
from openrlhf_mtp.config.job_context import JobContext
from openrlhf_mtp.config.problem import Problem, error, refuse
from openrlhf_mtp.config.reading.paths import is_local, too_long
from openrlhf_mtp.config.reading.values import cut
from openrlhf_mtp.config.run_files import METRICS, RUN_YAML


def prompt_data(context: JobContext) -> Iterator[Problem]:
    """A job needs prompts."""
    name = context.text("data.prompt_dataset")
    if not name:
        yield error(
            "data.prompt_dataset",
            "nothing",
            "a data set of prompts",
            "give a .jsonl file, a folder or a Hub name",
        )
        return
    yield from _data_files(context, "data.prompt_dataset", name)


def evaluation_data(context: JobContext) -> Iterator[Problem]:
    """The same for the evaluation data."""
    name = context.text("eval.dataset")
    if name:
        yield from _data_files(context, "eval.dataset", name)


def reward(context: JobContext) -> Iterator[Problem]:
    """OpenRLHF loads the reward function inside every engine, where a missing file is a hang or a log line."""
    url, agent = context.text("reward.remote_url"), context.text("train.agent_func_path")
    if not url and not agent and not context.text("reward.model_name_or_path"):
        yield refuse(
            "reward.remote_url",
            "the job has no reward; set reward.remote_url (a reward function in a .py file, or a server), "
            "train.agent_func_path (an agent) or reward.model_name_or_path (a reward model)",
        )
    if url and url.split(",")[0].endswith(".py"):
        yield from _script(context, "reward.remote_url", Path(url.split(",")[0]), "reward_func")
    if agent:
        yield from _script(context, "train.agent_func_path", Path(agent), "AgentExecutor")


def run_folder(context: JobContext) -> Iterator[Problem]:
    """An earlier run is never overwritten by accident, and a full disk of permissions is found before the work."""
    if context.out is None or not context.look_at_files:
        return
    if too_long(context.out):
        yield error(
            "--out", cut(str(context.out)), "a path that the file system can hold", "give a shorter --out"
        )
    elif context.out.exists() and not context.out.is_dir():
        yield refuse("--out", f"{context.out} is a file, not a folder; give another --out")
    elif not context.may_reuse_out and any((context.out / name).exists() for name in (RUN_YAML, METRICS)):
        yield refuse(
            "--out",
            f"{context.out} holds a run already; continue it with --resume or replace it with --overwrite",
        )
    else:
        existing = next(
            folder for folder in (context.out, *context.out.absolute().parents) if folder.exists()
        )
        if not os.access(existing, os.W_OK | os.X_OK):
            yield refuse(
                "--out",
                f"{context.out} cannot be made: this user may not write to {existing}; give another --out",
            )


def _data_files(context: JobContext, setting: str, names: str) -> Iterator[Problem]:
    for name in (part.strip().partition("@")[0] for part in names.split(",")):
        if not context.look_at_files or not is_local(name):
            continue
        file = Path(name)
        if not file.exists():
            yield error(
                setting, file, "an existing file or folder", f"check the path (looked from {Path.cwd()})"
            )
        elif file.is_dir() and file.suffix in READABLE:
            yield refuse(
                setting,
                f"{file} is a folder, and OpenRLHF reads a path in {file.suffix} as a file; rename it",
            )


def _script(context: JobContext, setting: str, file: Path, symbol: str) -> Iterator[Problem]:
    if not context.look_at_files:
        return
    if not file.is_file():
        yield error(setting, file, "an existing Python file", f"check the path (looked from {Path.cwd()})")
        return
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError, RecursionError, MemoryError, OSError) as broken:
        yield refuse(setting, f"{file} is not valid Python ({_reason(broken)}); correct the file")
        return
    if symbol not in _defined(tree):
        yield error(setting, file, f"a file that defines {symbol}", f"define {symbol} at the top level")


def _reason(broken: Exception) -> str:
    if isinstance(broken, SyntaxError):
        return f"line {broken.lineno or 1}: {broken.msg}"
    return str(broken) or type(broken).__name__


def _defined(tree: ast.Module) -> set[str]:
    """Names that a module binds at its top level by definition, import or assignment."""
    names: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names.update(alias.asname or alias.name for alias in node.names)
        elif isinstance(node, ast.Assign):
            names.update(target.id for target in node.targets if isinstance(target, ast.Name))
    return names
