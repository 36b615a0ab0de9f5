"""A job file: OpenRLHF's dotted flags as nested YAML, plus the `mtp:` section.

    actor:
      model_name_or_path: runs/equipped
      adam: {lr: 1e-6}
    mtp:
      depths: 3

is `--actor.model_name_or_path=runs/equipped --actor.adam.lr=1e-06` and `MTPSettings(depths=3)`. Paths are
relative to the current directory, not to the job file, and become absolute on loading.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from openrlhf_mtp.config import yaml_text
from openrlhf_mtp.config.errors import JobError, JobErrors
from openrlhf_mtp.config.flags import FlagSpecs, FlagValue
from openrlhf_mtp.config.mtp import MTPSettings
from openrlhf_mtp.config.mtp_section import mtp_names, parse_mtp
from openrlhf_mtp.config.names import unknown
from openrlhf_mtp.config.paths import absolute_path
from openrlhf_mtp.config.ranges import in_range

MTP = "mtp"


@dataclass(frozen=True)
class Job:
    """A loaded job.

    Attributes:
        path: the job file.
        flags: OpenRLHF's flags that the job sets, by dotted name; None leaves OpenRLHF's default.
        mtp: the `mtp:` section, None when the job has none (then plain OpenRLHF runs).
        specs: what each flag of the installed OpenRLHF accepts.
    """

    path: Path
    flags: Mapping[str, FlagValue]
    mtp: MTPSettings | None
    specs: FlagSpecs = field(repr=False)

    def value(self, name: str) -> FlagValue:
        """A flag's value in this job, OpenRLHF's default when the job does not set it."""
        given = self.flags.get(name)
        return self.specs[name].default if given is None else given

    def to_argv(self) -> list[str]:
        """The command line that OpenRLHF's own entry point would be given for this job."""
        return [word for name, value in self.flags.items() for word in self.specs[name].argv(value)]

    def dump_yaml(self) -> str:
        """The job as a job file: overrides merged, paths absolute, every `mtp` setting written out."""
        tree = _nest({name: value for name, value in self.flags.items() if value is not None})
        if self.mtp is not None:
            tree[MTP] = self.mtp.model_dump(mode="json")
        return yaml_text.dump(tree)

    def with_flags(self, **by_underscore: FlagValue) -> "Job":
        """A copy with flags set by code, dots written as `__`: `with_flags(ckpt__output_dir="runs/x")`.

        Raises:
            JobErrors: an unknown flag or a wrong value.
        """
        raw = {name.replace("__", "."): value for name, value in by_underscore.items()}
        return replace(self, flags={**self.flags, **_check_flags(raw, self.specs, str(self.path))})


def load_job(path: Path, overrides: Sequence[str], specs: FlagSpecs) -> Job:
    """Read a job file and apply command-line overrides such as `actor.adam.lr=1e-6` or `mtp.depths=2`.

    `mtp=null` removes the section: the same job on plain OpenRLHF.

    Raises:
        JobError: no such file, not YAML, a key given twice.
        JobErrors: every unknown key (with the nearest known one) and every wrong value, all at once.
    """
    tree = _read(path)
    section = tree.pop(MTP, None)
    if section is not None and not isinstance(section, Mapping):
        raise JobError(f"{path}: mtp: got {section!r}, expected a section (or leave it out)")
    flags = _flatten(tree, specs, str(path))
    for override in overrides:
        section = _override(override, flags, section)
    problems: list[str] = []
    checked: dict[str, FlagValue] = {}
    mtp = None
    try:
        checked = _check_flags(flags, specs, str(path))
    except JobErrors as errors:
        problems += errors.problems
    try:
        mtp = None if section is None else parse_mtp(section)
    except JobErrors as errors:
        problems += errors.problems
    if problems:
        raise JobErrors(f"{path} cannot be used:", problems)
    return Job(path, checked, mtp, specs)


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise JobError(
            f"job file: got {path}, which is not a file (looked from {Path.cwd()}); give a YAML job file"
        )
    tree = yaml_text.load(path.read_text(encoding="utf-8"), str(path))
    if not isinstance(tree, dict) or not tree:
        raise JobError(f"{path}: got {tree!r}, expected sections such as `actor:` and `mtp:`")
    return tree


def _flatten(tree: Mapping[Any, Any], specs: FlagSpecs, source: str) -> dict[str, object]:
    """Nested sections to dotted names. An empty section is no flag; a key given nested and dotted is an error."""
    sections = {name[:i] for name in specs for i, letter in enumerate(name) if letter == "."}
    flags: dict[str, object] = {}

    def walk(node: Mapping[Any, Any], prefix: str) -> None:
        for key, value in node.items():
            name = f"{prefix}{key}"
            if isinstance(value, Mapping) and name not in specs:
                walk(value, f"{name}.")
            elif value is None and name in sections:
                continue
            elif name in flags:
                raise JobError(f"{source}: {name} is given twice, nested and dotted; keep one of them")
            else:
                flags[name] = value

    walk(tree, "")
    return flags


def _override(
    text: str, flags: dict[str, object], section: Mapping[str, Any] | None
) -> Mapping[str, Any] | None:
    """Apply one `key=value` to `flags` in place, or return the changed mtp section."""
    name, equals, raw = text.partition("=")
    if not equals or not name:
        raise JobError(f"override: got {text!r}, expected key=value, for example mtp.depths=2")
    value = _scalar(raw)
    if name == MTP:
        if value is not None:
            raise JobError(
                f"override: got {text!r}, expected mtp=null or a key inside, for example mtp.depths=2"
            )
        return None
    if not name.startswith(f"{MTP}."):
        flags[name] = value
        return section
    return _with_key(section or {}, name.split(".")[1:], value)


def _with_key(tree: Mapping[str, Any], keys: list[str], value: object) -> dict[str, Any]:
    """A copy of nested dictionaries with one leaf set."""
    if len(keys) == 1:
        return {**tree, keys[0]: value}
    inner = tree.get(keys[0]) or {}
    return {**tree, keys[0]: _with_key(inner if isinstance(inner, Mapping) else {}, keys[1:], value)}


def _scalar(raw: str) -> object:
    """A command-line value by YAML's rules; what YAML would call a mapping or an error is plain text."""
    try:
        value = yaml_text.load(raw, "override")
    except JobError:
        return raw
    return raw if isinstance(value, dict) else value


def _check_flags(flags: Mapping[str, object], specs: FlagSpecs, source: str) -> dict[str, FlagValue]:
    checked: dict[str, FlagValue] = {}
    problems: list[str] = []
    for name, value in flags.items():
        if name not in specs:
            problems.append(unknown(name, [*specs, *mtp_names()]))
            continue
        try:
            checked[name] = absolute_path(name, in_range(name, specs[name].coerce(value)))
        except JobError as error:
            problems.append(str(error))
    if problems:
        raise JobErrors(f"{source} cannot be used:", problems)
    return checked


def _nest(flags: Mapping[str, FlagValue]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for name, value in flags.items():
        *sections, leaf = name.split(".")
        node = tree
        for section in sections:
            node = node.setdefault(section, {})
        node[leaf] = list(value) if isinstance(value, tuple) else value
    return tree
