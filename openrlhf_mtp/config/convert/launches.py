"""The `train_ppo_ray` commands of a script, whatever starts them: ray job submit, deepspeed, srun, bash -c, ssh."""

import json
import re
from dataclasses import dataclass, field
from pathlib import PurePath

from openrlhf_mtp.config.convert.expansion import Environment, Field
from openrlhf_mtp.config.convert.parts import LINE_MARK, Holes
from openrlhf_mtp.config.convert.script import Command, commands

MODULE = "train_ppo_ray"
_STARTED = re.compile(r"(?:[\w.]+\.)?train_ppo_ray\Z|(?:.*/)?train_ppo_ray\.py\Z", re.S)
_OTHER = re.compile(r"openrlhf\.cli\.(?!train_ppo_ray\b)\w+\Z")
_ONLY_NAME_IT = frozenset(
    {
        "echo",
        "printf",
        "grep",
        "pgrep",
        "pkill",
        "killall",
        "ps",
        "kill",
        "tail",
        "tee",
        "rm",
        "ls",
        "cp",
        "sed",
    }
)
_MOST_NESTING = 8


@dataclass
class Launch:
    """One command that starts `train_ppo_ray`.

    Attributes:
        arguments: everything after the module's name.
        line: where the command starts.
        wrapper: the words before the module's name, as text.
        lost: words that look like its flags, but that the shell would not pass on: (line, text).
        remarks: what the job file cannot hold, one sentence each.
    """

    arguments: list[Field]
    line: int
    wrapper: str
    lost: list[Field] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)


@dataclass
class Reading:
    """The launches of OpenRLHF that a script contains.

    Attributes:
        launches: the commands, those alike only once.
        notes: (line, text) of decisions made while reading.
        holes: what only the shell could compute.
        others: other entry points of OpenRLHF that it starts, with their lines.
    """

    holes: Holes = field(default_factory=Holes)
    launches: list[Launch] = field(default_factory=list)
    notes: list[tuple[int, str]] = field(default_factory=list)
    others: list[Field] = field(default_factory=list)


def read_script(text: str) -> Reading:
    """Read a script or a command line."""
    reading = Reading()
    _read(text, 1, Environment(reading.holes, reading.notes), reading, depth=0)
    unique: dict[tuple[str, ...], Launch] = {}
    for launch in reading.launches:
        unique.setdefault(tuple(reading.holes.shown(each.text) for each in launch.arguments), launch)
    reading.launches = list(unique.values())
    return reading


def _read(text: str, line: int, env: Environment, reading: Reading, depth: int) -> None:
    last: Launch | None = None
    around = _Surroundings()
    for command in commands(text, line, env):
        first = command.fields[0].text if command.fields else ""
        if last is not None and first.startswith("--"):
            last.lost += command.fields
            continue
        around.see(command, reading.holes)
        last = _launch(command, reading)
        if last is not None:
            last.remarks += around.remarks(command, reading.holes)
            reading.launches.append(last)
        elif depth < _MOST_NESTING:
            for inner, inner_env in _nested(command, reading.holes):
                before = len(reading.launches)
                _read(inner.text, inner.line, inner_env, reading, depth + 1)
                for launch in reading.launches[before:]:
                    launch.remarks += around.remarks(command, reading.holes)
                last = reading.launches[-1] if len(reading.launches) > before else None


def _launch(command: Command, reading: Reading) -> Launch | None:
    program = PurePath(command.fields[0].text).name if command.fields else ""
    if program in _ONLY_NAME_IT or program == "eval":
        return None
    for place, word in enumerate(command.fields):
        if _STARTED.match(word.text):
            before = " ".join(reading.holes.shown(each.text) for each in command.fields[:place])
            return Launch(command.fields[place + 1 :], command.line, before)
        if _OTHER.match(word.text):
            reading.others.append(word)
    return None


def _nested(command: Command, holes: Holes) -> list[tuple[Field, Environment]]:
    """Scripts inside a command: a quoted one, one that eval puts together, a here-document."""
    program = PurePath(command.fields[0].text).name if command.fields else ""
    if program == "eval":
        whole = " ".join(each.text for each in command.fields[1:])
        return [(Field(whole, command.line), command.env)]
    shell = command.env.inner_shell()
    prints = program in _ONLY_NAME_IT and not command.after.startswith("|")
    words = [] if prints else [each for each in command.fields if _is_script(each.text)]
    shows = program == "cat" and not command.writes and not command.after.startswith("|")
    documents = (
        [] if shows or program == "read" else [each for each in command.documents if MODULE in each.text]
    )
    return [(each, shell) for each in (*words, *documents)]


def _is_script(text: str) -> bool:
    return MODULE in text and bool(re.search(r"\s", text.replace(LINE_MARK, " ")))


@dataclass
class _Surroundings:
    """Actions around a launch that a job file cannot hold."""

    folder: str = ""
    sources: list[str] = field(default_factory=list)
    cluster: list[int] = field(default_factory=list)

    def see(self, command: Command, holes: Holes) -> None:
        """Remember `cd`, `source` and `ray start`."""
        words = [holes.shown(each.text) for each in command.fields[:6]]
        if words[:1] == ["cd"] and len(words) > 1:
            self.folder = words[1]
        elif words[:1] in (["source"], ["."]) and len(words) > 1 and "activate" not in words[1]:
            self.sources.append(words[1])
        elif "ray start" in " ".join(words):
            self.cluster.append(command.line)

    def remarks(self, command: Command, holes: Holes) -> list[str]:
        """Sentences for the user."""
        found = []
        if self.folder:
            found.append(
                f"the script changes to {self.folder} first: relative paths start where you run train"
            )
        if self.sources:
            found.append(f"variables that {', '.join(self.sources)} sets are not known here")
        if self.cluster:
            lines = ", ".join(map(str, self.cluster))
            found.append(
                f"the script starts a Ray cluster (line {lines}): docs/from_openrlhf.md, several nodes"
            )
        names = sorted({*command.prefix, *command.env.exported})
        if names:
            found.append(f"set in the shell that runs train what the script sets there: {', '.join(names)}")
        return found + _runtime_env(command, holes)


def _runtime_env(command: Command, holes: Holes) -> list[str]:
    """The request of `ray job submit --runtime-env-json`."""
    words = [holes.shown(each.text) for each in command.fields]
    for place, word in enumerate(words):
        name, equals, value = word.partition("=")
        if name != "--runtime-env-json":
            continue
        try:
            settings = json.loads(value if equals else words[place + 1])
        except (ValueError, IndexError, RecursionError):
            return ["--runtime-env-json is not converted: set its variables in the shell that runs train"]
        return _runtime_settings(settings) if isinstance(settings, dict) else []
    return []


def _runtime_settings(settings: dict[str, object]) -> list[str]:
    found = []
    if "working_dir" in settings:
        found.append(
            f"the job ran in {settings['working_dir']}: relative paths of a job file start where you run train"
        )
    variables = settings.get("env_vars")
    if isinstance(variables, dict) and variables:
        found.append(f"set in the shell that runs train what env_vars held: {', '.join(map(str, variables))}")
    rest = [name for name in settings if name not in ("working_dir", "env_vars")]
    if rest:
        found.append(f"--runtime-env-json: {', '.join(rest)}: install or set up by hand on every node")
    return found
