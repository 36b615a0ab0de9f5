"""The settings of a job by dotted name, from its file and the command line, each with its place."""

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from openrlhf_mtp.config.errors import JobError
from openrlhf_mtp.config.reading import yaml_text
from openrlhf_mtp.config.reading.names import unknown
from openrlhf_mtp.config.reading.values import printable, shown
from openrlhf_mtp.config.reading.variables import UndefinedVariableError, expand
from openrlhf_mtp.config.reading.yaml_reader import PLAIN, Section

COMMAND_LINE = "command line"
ANCHORS = "x-"
"""Sections at the top whose name begins so hold anchors, and mean nothing by themselves."""


@dataclass(frozen=True)
class Given:
    """A value, and where it was given: "line 12", or "command line"."""

    value: object
    place: str


class GivenSettings:
    """The settings of a job by dotted name.

    Attributes:
        by_name: the known names that the job sets, in its order.
        opened: the sections in the file, including empty ones.
        blank: sections with nothing at all behind the colon, with their places.
        problems: what cannot be used, in the order it was found.
    """

    def __init__(self, leaves: Iterable[str], is_text: Callable[[str], bool]) -> None:
        """`leaves`: the names that take a value; `is_text` says of one whether any word is a value of it."""
        self.by_name: dict[str, Given] = {}
        self.opened: set[str] = set()
        self.blank: dict[str, str] = {}
        self.problems: list[str] = []
        self._leaves = dict.fromkeys(leaves)
        self._is_text = is_text
        self._sections: dict[str, str] = {}
        for name in self._leaves:
            for i, letter in enumerate(name):
                if letter == ".":
                    self._sections.setdefault(name[:i], name)

    def place(self, name: str) -> str:
        """The place at which a name or a part of it was given, "" if it was not."""
        while name and name not in self.by_name:
            name = name.rpartition(".")[0]
        return self.by_name[name].place if name else ""

    def add_file(self, tree: Section) -> None:
        """A job file, nested and dotted keys alike. An empty section is no setting."""
        for key, value in tree.items():
            if not key.startswith(ANCHORS):
                self._add(key, value, f"line {tree.lines[key]}")
                if key in tree.blank and key in self._sections:
                    self.blank[key] = f"line {tree.lines[key]}"

    def add_override(self, text: str) -> None:
        """One `key=value` of the command line, which replaces what the file says.

        A section's `null` takes the section out; a section's mapping replaces the keys that it has.
        """
        name, equals, raw = text.partition("=")
        if not equals or not name:
            self.problems.append(f"override: got {shown(text)}, expected key=value, for example mtp.depths=2")
            return
        try:
            value = _override_value(raw, is_text=name in self._leaves and self._is_text(name))
        except UndefinedVariableError as error:
            self._problem(COMMAND_LINE, f"{name}: {error}")
            return
        if name in self._sections and value is None:
            self._drop(name)
        else:
            self._add(name, value, COMMAND_LINE)

    def _add(self, name: str, value: object, place: str) -> None:
        if name in self._leaves:
            self._set(name, value, place)
        elif isinstance(value, Section) and (value or name in self._sections):
            self.opened.add(name)
            for key, inner in value.items():
                self._add(
                    f"{name}.{key}", inner, place if place == COMMAND_LINE else f"line {value.lines[key]}"
                )
        elif name not in self._sections:
            self._problem(place, unknown(printable(name), self._leaves))
        elif value is not None:
            self._problem(
                place,
                f"{name}: got {shown(value)}, expected a section, with keys such as {self._sections[name]}",
            )

    def _set(self, name: str, value: object, place: str) -> None:
        earlier = self.by_name.get(name)
        if earlier is not None and place != COMMAND_LINE:
            self._problem(
                place,
                f"{name} is given twice, nested and dotted (the other in {earlier.place}); keep one of them",
            )
            return
        self.by_name[name] = Given(value, place)

    def _problem(self, place: str, text: str) -> None:
        self.problems.append(at(place, text))

    def _drop(self, section: str) -> None:
        inside = f"{section}."
        self.by_name = {name: given for name, given in self.by_name.items() if not name.startswith(inside)}
        self.opened = {name for name in self.opened if name != section and not name.startswith(inside)}
        self.blank.pop(section, None)


def at(place: str, problem: str) -> str:
    """A problem, and its place behind it."""
    return f"{problem} ({place})" if place else problem


def _override_value(raw: str, *, is_text: bool) -> object:
    """A command-line value by YAML's rules; what YAML calls an error, and any word for a text, is that text."""
    words = expand(raw, os.environ)
    try:
        value = yaml_text.load(raw, "override")
    except JobError:
        return words
    if not is_text or isinstance(value, bool) or PLAIN["null"].match(raw.strip()):
        return value
    return value if isinstance(value, str) and raw[:1] in ("'", '"', "!") else words
