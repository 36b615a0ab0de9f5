"""A script's text to a job file's text, with everything that a user has to be told."""

import re
from collections.abc import Collection
from dataclasses import dataclass, field, replace

from openrlhf_mtp.config.convert.arguments import Unplaced, cut_flags
from openrlhf_mtp.config.convert.job_text import head_section, job_text
from openrlhf_mtp.config.convert.launches import Launch, Reading, read_script
from openrlhf_mtp.config.convert.parts import HOLE, Holes
from openrlhf_mtp.config.convert.translation import Setting, Translation, translate
from openrlhf_mtp.config.errors import JobError
from openrlhf_mtp.config.reading.flag_spec import FlagSpecs, FlagValue, Scalar

MOST_LETTERS = 1_000_000
"""A longer text is no launch script."""


@dataclass(frozen=True)
class Conversion:
    """The result of a conversion: settings, and remarks for the user.

    Attributes:
        line: where the converted command starts.
        settings: the job's flags.
        unplaced: what the job file does not hold; each is a comment in it.
        remarks: what else to know, one sentence each.
        variables: environment variables that the job file reads, each with what the script says of it.
        holes: the values behind the texts' marks.
    """

    line: int
    settings: dict[str, Setting]
    unplaced: list[Unplaced]
    remarks: list[str]
    variables: dict[str, str]
    holes: Holes = field(repr=False)

    @property
    def renamed(self) -> int:
        """Settings that had another name in the script."""
        return sum(bool(setting.was) for setting in self.settings.values())

    def text(self, source: str, *, job: str, with_head: bool = True) -> str:
        """The job file.

        Args:
            source: what was converted, for the first line.
            job: the file's own name, for the commands in its comments.
            with_head: write an `mtp:` section.
        """
        model = self.settings.get("actor.model_name_or_path")
        run = re.sub(r"[^\w-]+", "-", job.rpartition("/")[2].removesuffix(".yaml"), flags=re.ASCII)
        name = self.holes.shown(str(model.value)) if model else "MODEL"
        return job_text(
            self.settings,
            self.unplaced,
            self.holes,
            title=f"Converted from {source}, the command of line {self.line}, by openrlhf-mtp convert.",
            head=head_section(name, job=job, run=run.strip("-") or "job") if with_head else "",
        )

    def waiting(self, environment: Collection[str]) -> list[str]:
        """Settings that are no text and whose variable the environment does not have: nobody can check these yet."""
        return [
            name
            for name, setting in self.settings.items()
            if setting.waits and self.holes.within(str(setting.value))[0].variable not in environment
        ]

    def text_to_check(self, environment: Collection[str], *, with_head: bool = True) -> str:
        """The same job with `NAME` for every `${NAME}` in a text that the environment does not have."""
        settings = {
            name: setting
            if setting.waits
            else replace(setting, value=_filled(setting.value, self.holes, environment))
            for name, setting in self.settings.items()
        }
        return replace(self, settings=settings, unplaced=[]).text("", job="job.yaml", with_head=with_head)


def convert(text: str, specs: FlagSpecs, *, nth: int | None = None) -> Conversion:
    """Convert the launch command of a script, or the `nth` (from 1) of several.

    Raises:
        JobError: nothing to convert, several commands and no `nth`, or a text that is no script.
    """
    reading = _read(text)
    launch = _choose(reading, nth)
    flags, strays = cut_flags(launch.arguments, specs, reading.holes)
    translation = translate(flags, specs, reading.holes)
    unplaced = [*strays, *translation.unplaced, *_lost(launch, reading)]
    remarks = [
        *(f"line {line}, {note}" for line, note in reading.notes),
        *translation.remarks,
        *launch.remarks,
    ]
    return Conversion(
        launch.line,
        translation.settings,
        sorted(unplaced, key=lambda each: each.line),
        list(dict.fromkeys(remarks)),
        _variables(translation, reading.holes),
        reading.holes,
    )


def _read(text: str) -> Reading:
    if "\0" in text:
        raise JobError("got a binary file, expected a shell script with a train_ppo_ray command")
    if len(text) > MOST_LETTERS:
        raise JobError(f"got {len(text):,} letters, expected a launch script (at most {MOST_LETTERS:,})")
    try:
        return read_script(text.removeprefix("\ufeff").replace("\r\n", "\n"))
    except RecursionError:
        raise JobError(
            "got brackets or quotes nested too deeply to be read; give the command itself"
        ) from None


def _choose(reading: Reading, nth: int | None) -> Launch:
    found = reading.launches
    if not found:
        others = ", ".join(f"{each.text} (line {each.line})" for each in reading.others[:3])
        instead = f"found {others}" if others else "found none"
        raise JobError(
            f"expected a command that starts openrlhf.cli.train_ppo_ray, {instead}; "
            "give the script that has it, or the command itself"
        )
    if nth is None and len(found) > 1:
        places = "; ".join(f"{number}: line {each.line}" for number, each in enumerate(found, 1))
        raise JobError(
            f"found {len(found)} different train_ppo_ray commands ({places}); choose one with --nth"
        )
    if nth is not None and not 1 <= nth <= len(found):
        raise JobError(f"--nth: got {nth}, expected 1 to {len(found)}, the number of train_ppo_ray commands")
    return found[(nth or 1) - 1]


def _lost(launch: Launch, reading: Reading) -> list[Unplaced]:
    """Words after a comment between continued lines, grouped by flag."""
    groups: list[Unplaced] = []
    for word in launch.lost:
        text = reading.holes.shown(word.text)
        if groups and not text.startswith("--"):
            groups[-1] = Unplaced(groups[-1].line, f"{groups[-1].what} {text}", groups[-1].why)
        else:
            why = "the shell ends the command before it (a comment or a missing backslash), so OpenRLHF never got it"
            groups.append(Unplaced(word.line, text, why))
    return groups


def _variables(translation: Translation, holes: Holes) -> dict[str, str]:
    texts = [text for setting in translation.settings.values() for text in _texts(setting.value)]
    found = [hole for text in texts for hole in holes.within(text)]
    return {hole.variable: hole.reason for hole in found if hole.variable}


def _texts(value: FlagValue) -> list[str]:
    return [each for each in (value if isinstance(value, tuple) else (value,)) if isinstance(each, str)]


def _filled(value: FlagValue, holes: Holes, environment: Collection[str]) -> FlagValue:
    if isinstance(value, tuple):
        return tuple(_name_in(each, holes, environment) for each in value)
    return None if value is None else _name_in(value, holes, environment)


def _name_in(value: Scalar, holes: Holes, environment: Collection[str]) -> Scalar:
    if not isinstance(value, str):
        return value

    def name(mark: re.Match[str]) -> str:
        variable = holes.found[int(mark[1])].variable
        return mark[0] if variable in environment else str(variable)

    return HOLE.sub(name, value)
