"""OpenRLHF's own argument parser and validation, taken from its installed source.

They live in the `if __name__ == "__main__":` body of `openrlhf.cli.train_ppo_ray`, where nothing can import
them, and importing that module would load torch, Ray and vLLM. So the body is read with `ast` and run in two
parts: the statements before `args = parser.parse_args()` build the parser, those between it and `train(args)`
are the validation. `ds.param_dtype` gets two more values (`precision`). A changed shape of that body raises
`UpstreamChangedError`.

Checked on openrlhf 0.11.2.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import functools
import importlib.metadata
import importlib.util
import io
import sys
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, SimpleNamespace
from typing import Any

from openrlhf_mtp.config.errors import JobError
from openrlhf_mtp.config.machine.precision import SETTING
from openrlhf_mtp.config.reading.flag_spec import FlagSpec, Kind
from openrlhf_mtp.upstream.openrlhf.precision import extend_choices

ENTRY_POINT = "openrlhf.cli.train_ppo_ray"
_KINDS: dict[object, Kind] = {int: "int", float: "float", str: "str", None: "str"}


class OpenRLHFCrashedError(JobError):
    """OpenRLHF's validation raised on a job, instead of refusing it."""


class UpstreamChangedError(RuntimeError):
    """The installed OpenRLHF's entry point no longer has the shape this module reads."""


@dataclass(frozen=True)
class _EntryPoint:
    """The entry point's source, cut where its parser is complete and where training starts."""

    path: Path
    imports: tuple[ast.stmt, ...]
    build: tuple[ast.stmt, ...]
    validate: tuple[ast.stmt, ...]


def flag_specs() -> dict[str, FlagSpec]:
    """Every flag of OpenRLHF's PPO entry point by dotted name, in the parser's order."""
    actions = [action for action in _build_parser()._actions if action.dest != "help"]
    off_names = {a.dest: _name(a) for a in actions if isinstance(a, argparse._StoreFalseAction)}
    return {_name(action): _spec(action, off_names) for action in actions}


def parse(argv: list[str]) -> SimpleNamespace:
    """Parse and validate as OpenRLHF would; the notes its validation prints go to standard output.

    Raises:
        JobError: OpenRLHF's parser or validation refuses, with its own message.
    """
    args, notes = parse_with_notes(argv)
    for note in notes:
        print(note)
    return args


def parse_with_notes(argv: list[str]) -> tuple[SimpleNamespace, list[str]]:
    """As `parse`, but returns the printed lines (warnings about settings it changed) instead of printing them."""
    args = parse_only(argv)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        validated = _validate(args)
    return validated, printed.getvalue().splitlines()


def parse_only(argv: list[str]) -> SimpleNamespace:
    """Parse without the validation, which rewrites some settings: the namespace tree as the user asked for it.

    Raises:
        JobError: an unknown flag or a value that OpenRLHF's parser refuses.
    """
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            flat = _build_parser().parse_args(argv)
    except SystemExit as end:
        reason = complaint.getvalue().strip().rpartition("error: ")[2]
        raise JobError(f"OpenRLHF refuses the job: {reason}") from end
    tree: SimpleNamespace = _hierarchize()(flat)
    return tree


def _validate(args: SimpleNamespace) -> SimpleNamespace:
    entry = _entry_point()
    scope: dict[str, Any] = {**_stdlib_scope(entry), "args": args}
    for statement in entry.validate:
        code = compile(ast.Module([statement], []), str(entry.path), "exec")
        try:
            exec(code, scope)
        except AssertionError as refusal:
            raise JobError(f"OpenRLHF refuses the job: {refusal or ast.unparse(statement)}") from refusal
        except ImportError as missing:
            raise JobError(
                f"OpenRLHF refuses the job: {_condition(statement)} needs the Python package {missing.name}, which is "
                f"not installed; pip install {missing.name}"
            ) from missing
        except Exception as crash:
            source = ast.unparse(statement).splitlines()[0]
            raise OpenRLHFCrashedError(
                f"OpenRLHF broke on this job ({type(crash).__name__}: {crash}), in: {source}. "
                "A flag it needs is probably missing, or is 0."
            ) from crash
    validated: SimpleNamespace = scope["args"]
    return validated


def _condition(statement: ast.stmt) -> str:
    """The setting a statement depends on: `use_ms` for `if args.use_ms: …`."""
    test = statement.test if isinstance(statement, ast.If) else statement
    return ast.unparse(test).splitlines()[0].removeprefix("args.")


@functools.cache
def _entry_point() -> _EntryPoint:
    path = _package_folder().joinpath(*ENTRY_POINT.split(".")[1:]).with_suffix(".py")
    if not path.is_file():
        raise _changed(f"{path} is gone")
    module = ast.parse(path.read_text(encoding="utf-8"))
    bodies = [node.body for node in module.body if isinstance(node, ast.If) and _is_main_test(node.test)]
    if len(bodies) != 1:
        raise _changed(f"{len(bodies)} `if __name__ == '__main__'` blocks, expected 1")
    body = bodies[0]
    cuts = [i for i, statement in enumerate(body) if ast.unparse(statement) == "args = parser.parse_args()"]
    if len(cuts) != 1:
        raise _changed(f"{len(cuts)} statements `args = parser.parse_args()`, expected 1")
    if ast.unparse(body[-1]) != "train(args)":
        raise _changed(f"the last statement is `{ast.unparse(body[-1])}`, expected `train(args)`")
    imports = tuple(node for node in module.body if _is_stdlib_import(node))
    validate = tuple(statement for statement in body[cuts[0] + 1 : -1] if not _is_hierarchize(statement))
    if len(validate) != len(body) - cuts[0] - 4:
        raise _changed("`hierarchize` is not imported once and called once on the parsed arguments")
    return _EntryPoint(path, imports, tuple(body[: cuts[0]]), validate)


def _build_parser() -> argparse.ArgumentParser:
    entry = _entry_point()
    scope = _stdlib_scope(entry)
    exec(_code(entry.build, entry.path), scope)
    parser = scope.get("parser")
    if not isinstance(parser, argparse.ArgumentParser):
        raise _changed("the statements before `parse_args` no longer make an ArgumentParser named `parser`")
    if not extend_choices(parser):
        raise _changed(f"it has no flag --{SETTING}")
    parser.prog = "openrlhf"
    return parser


@functools.cache
def _code(statements: tuple[ast.stmt, ...], path: Path) -> CodeType:
    return compile(ast.Module(list(statements), []), str(path), "exec")


def _stdlib_scope(entry: _EntryPoint) -> dict[str, Any]:
    scope: dict[str, Any] = {"__name__": "openrlhf_entry_point"}
    exec(_code(entry.imports, entry.path), scope)
    return scope


@functools.cache
def _hierarchize() -> Any:
    """`openrlhf.utils.config.hierarchize`, from its one file: its package would import torch."""
    path = _package_folder() / "utils" / "config.py"
    spec = importlib.util.spec_from_file_location("openrlhf_utils_config", path)
    if spec is None or spec.loader is None or not path.is_file():
        raise _changed(f"{path} is gone")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not hasattr(module, "hierarchize"):
        raise _changed(f"{path} has no `hierarchize`")
    return module.hierarchize


def _package_folder() -> Path:
    spec = importlib.util.find_spec("openrlhf")
    if spec is None or not spec.submodule_search_locations:
        raise UpstreamChangedError("openrlhf is not installed; run `make setup`")
    return Path(next(iter(spec.submodule_search_locations)))


def _spec(action: argparse.Action, off_names: dict[str, str]) -> FlagSpec:
    name = _name(action)
    if isinstance(action, argparse._StoreTrueAction | argparse._StoreFalseAction):
        own_default = action.default if name == action.dest else False
        off_name = off_names.get(name) if name == action.dest else None
        opposite = action.dest if isinstance(action, argparse._StoreFalseAction) else None
        return FlagSpec(
            name, "switch", default=own_default, help=action.help or "", off_name=off_name, opposite=opposite
        )
    if not isinstance(action, argparse._StoreAction) or action.type not in _KINDS:
        raise _changed(f"--{name} is a {type(action).__name__} of type {action.type}, unknown to this module")
    default = tuple(action.default) if isinstance(action.default, list) else action.default
    choices = tuple(action.choices or ())
    return FlagSpec(name, _KINDS[action.type], action.nargs, choices, default, action.help or "")


def _name(action: argparse.Action) -> str:
    return action.option_strings[-1].removeprefix("--")


def _is_main_test(test: ast.expr) -> bool:
    return ast.unparse(test) == "__name__ == '__main__'"


def _is_stdlib_import(node: ast.stmt) -> bool:
    if isinstance(node, ast.Import):
        return all(alias.name.partition(".")[0] in sys.stdlib_module_names for alias in node.names)
    return (
        isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] in sys.stdlib_module_names
    )


def _is_hierarchize(statement: ast.stmt) -> bool:
    return ast.unparse(statement) in {
        "from openrlhf.utils.config import hierarchize",
        "args = hierarchize(args)",
    }


def _changed(what: str) -> UpstreamChangedError:
    version = importlib.metadata.version("openrlhf")
    return UpstreamChangedError(
        f"{ENTRY_POINT} of the installed openrlhf {version} has another shape than 0.11.2: {what}. "
        "Install the pinned version (make setup) or adapt openrlhf_mtp/upstream/openrlhf/flags.py."
    )
