"""A job file: OpenRLHF's dotted flags as nested YAML, plus the `mtp:` section.

    actor:
      model_name_or_path: runs/equipped
      adam: {lr: 1e-6}
    mtp:
      depths: 3

is `--actor.model_name_or_path=runs/equipped --actor.adam.lr=1e-06` and `MTPSettings(depths=3)`. Paths are
relative to the current directory, not to the job file, and become absolute on loading. `${NAME}` is the environment's
variable, `<<: *name` merges a section, and sections whose name begins with `x-` hold anchors.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from openrlhf_mtp.config.errors import JobError, JobErrors
from openrlhf_mtp.config.reading import yaml_text
from openrlhf_mtp.config.reading.flag_spec import FlagSpecs, FlagValue
from openrlhf_mtp.config.reading.given import Given, GivenSettings, at
from openrlhf_mtp.config.reading.job_text import is_script, read_text, script_error, source_name
from openrlhf_mtp.config.reading.names import unknown
from openrlhf_mtp.config.reading.paths import PATHS, absolute_path
from openrlhf_mtp.config.reading.ranges import in_range
from openrlhf_mtp.config.reading.values import shown
from openrlhf_mtp.config.reading.variables import BARE
from openrlhf_mtp.config.reading.yaml_reader import Section
from openrlhf_mtp.config.settings.mtp import MTPSettings
from openrlhf_mtp.config.settings.section import mtp_names, parse_mtp

MTP = "mtp"


@dataclass(frozen=True)
class Job:
    """A loaded job.

    Attributes:
        path: the job file.
        flags: OpenRLHF's flags that the job sets, by dotted name; None leaves OpenRLHF's default.
        mtp: the `mtp:` section, None when the job has none (then plain OpenRLHF runs).
        specs: what each flag of the installed OpenRLHF accepts.
        notes: what the job may not mean as it says it: a setting, and what to look at.
        places: where each setting was given, by dotted name: "line 12" or "command line".
    """

    path: Path
    flags: Mapping[str, FlagValue]
    mtp: MTPSettings | None
    specs: FlagSpecs = field(repr=False)
    notes: tuple[tuple[str, str], ...] = ()
    places: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def source(self) -> str:
        """The job file's name in messages."""
        return source_name(self.path)

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
        return replace(self, flags={**self.flags, **_check_flags(raw, self.specs, self.source)})


def load_job(path: Path, overrides: Sequence[str], specs: FlagSpecs) -> Job:
    """Read a job file and apply command-line overrides such as `actor.adam.lr=1e-6` or `mtp.depths=2`.

    `path` may be `-` for standard input, or a pipe. `mtp=null` removes the section: the same job on plain OpenRLHF.

    Raises:
        JobError: no such file, not YAML, a key given twice; with the line.
        JobErrors: every unknown key (with the nearest known one) and every wrong value, all at once, with their lines.
    """
    source = source_name(path)
    given = GivenSettings(
        [*specs, *mtp_names()], lambda name: name == "mtp.head" or (name in specs and specs[name].is_text)
    )
    given.add_file(_read(path))
    for override in overrides:
        given.add_override(override)
    problems = given.problems
    flags, wrong = _read_flags(given.by_name, specs)
    problems += wrong
    mtp = None
    inside = {name: one.value for name, one in given.by_name.items() if name.startswith(f"{MTP}.")}
    if inside or MTP in given.opened:
        try:
            mtp = parse_mtp(_nest(inside).get(MTP, {}), given.place)
        except JobErrors as errors:
            problems += errors.problems
    if problems:
        raise JobErrors(f"{source} cannot be used:", problems)
    places = {**given.blank, **{name: one.place for name, one in given.by_name.items()}}
    return Job(path, flags, mtp, specs, tuple(_notes(given, mtp)), places)


def _read(path: Path) -> Section:
    source = source_name(path)
    text = read_text(path)
    try:
        tree = yaml_text.load(text, source)
    except JobError as error:
        if is_script(path, text):
            raise script_error(path) from error
        raise
    if not isinstance(tree, Section) or not tree:
        if is_script(path, text):
            raise script_error(path)
        raise JobError(f"{source}, line 1: got {shown(tree)}, expected sections such as `actor:` and `mtp:`")
    return tree


def _read_flags(given: Mapping[str, Given], specs: FlagSpecs) -> tuple[dict[str, FlagValue], list[str]]:
    """The flags among known names, brought to their types, and what is wrong with the others."""
    flags: dict[str, FlagValue] = {}
    problems: list[str] = []
    for name, one in given.items():
        if name not in specs:
            continue
        try:
            value = absolute_path(name, in_range(name, specs[name].coerce(one.value)))
        except JobError as error:
            problems.append(at(one.place, str(error)))
            continue
        opposite = specs[name].opposite
        if opposite is not None and opposite in given:
            problems.append(
                at(one.place, f"{name}: {opposite} is its contrary and is given too; keep one of them")
            )
        elif opposite is not None:
            flags[opposite] = None if value is None else not value
        else:
            flags[name] = value
    return flags, problems


def _notes(given: GivenSettings, mtp: MTPSettings | None) -> Iterator[tuple[str, str]]:
    if MTP in given.blank and mtp is None:
        yield (
            MTP,
            "got a section with nothing in it, so plain OpenRLHF runs; write `mtp: {}` for a head with the defaults, "
            "or leave it out",
        )
    for name, one in given.by_name.items():
        bare = BARE.search(str(one.value)) if name in PATHS else None
        if bare is not None:
            yield (
                name,
                f"got {shown(one.value)}, and {bare[0]} is kept as it is; a variable is ${{{bare[0][1:]}}}",
            )


def _check_flags(flags: Mapping[str, object], specs: FlagSpecs, source: str) -> dict[str, FlagValue]:
    known = {name: Given(value, "") for name, value in flags.items() if name in specs}
    checked, problems = _read_flags(known, specs)
    problems += [unknown(name, specs) for name in flags if name not in specs]
    if problems:
        raise JobErrors(f"{source} cannot be used:", problems)
    return checked


def _nest(flags: Mapping[str, Any]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for name, value in flags.items():
        *sections, leaf = name.split(".")
        node = tree
        for section in sections:
            node = node.setdefault(section, {})
        node[leaf] = list(value) if isinstance(value, tuple) else value
    return tree
