"""From the raw `mtp:` mapping to `MTPSettings`, with every problem said in the job file's own words."""

import re
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from openrlhf_mtp.config.errors import JobError, JobErrors
from openrlhf_mtp.config.reading.given import at
from openrlhf_mtp.config.reading.names import unknown
from openrlhf_mtp.config.reading.paths import absolute_path
from openrlhf_mtp.config.reading.values import shown
from openrlhf_mtp.config.settings.mtp import MTPSettings
from openrlhf_mtp.config.settings.setting import UNFIT, Settings

Place = Callable[[str], str]
"""From a dotted name to where it was given, such as "line 12"; "" when nowhere."""


@cache
def mtp_names() -> tuple[str, ...]:
    """Every key of the section by dotted name, `mtp.` first: `mtp.depths`, `mtp.optim.lr`, ..."""
    return tuple(_leaves(MTPSettings, "mtp"))


def parse_mtp(section: Mapping[str, Any], place: Place = lambda name: "") -> MTPSettings:
    """Check and type a raw section; `place` tells where each of its keys was given.

    Raises:
        JobErrors: every wrong value and every unknown key.
    """
    try:
        settings = MTPSettings.model_validate(section)
    except ValidationError as error:
        problems = [_problem(details, section, place) for details in error.errors()]
        raise JobErrors("the mtp section cannot be used:", problems) from error
    try:
        head = absolute_path("mtp.head", settings.head)
    except JobError as error:
        raise JobErrors("the mtp section cannot be used:", [at(place("mtp.head"), str(error))]) from error
    return settings.model_copy(update={"head": head})


def _leaves(model: type[Settings], prefix: str) -> Iterator[str]:
    for name, info in model.model_fields.items():
        inner = info.annotation
        if isinstance(inner, type) and issubclass(inner, Settings):
            yield from _leaves(inner, f"{prefix}.{name}")
        else:
            yield f"{prefix}.{name}"


def _problem(error: ErrorDetails, section: Mapping[str, Any], place: Place) -> str:
    name = ".".join(["mtp", *(str(part) for part in error["loc"])])
    if error["type"] == "extra_forbidden":
        return at(place(name), unknown(name, mtp_names()))
    if error["type"] == "value_error":  # of several settings together: it names the first itself
        words = error["msg"].removeprefix("Value error, ")
        return at(_first_place(name, words, place), f"{name}.{words}")
    expected = error["msg"].removeprefix("Input should be ")
    got = shown(error["input"])
    end = "" if error["type"] == UNFIT and " names" in expected else _help(error["loc"])
    return at(place(name), f"{name}: got {got}, expected {expected}{end}")


def _first_place(section: str, words: str, place: Place) -> str:
    """The place of the first setting that a message about several of them names."""
    named = (place(f"{section}.{word}") for word in re.findall(r"[a-z][\w.]*", words))
    return next((found for found in named if found), "")


def _help(location: tuple[int | str, ...]) -> str:
    """The field's help text in brackets, "" for an item inside a list."""
    model: type[Settings] = MTPSettings
    text = ""
    for part in location:
        info = model.model_fields.get(str(part))
        if info is None:
            break
        text = f" ({info.description})"
        if isinstance(info.annotation, type) and issubclass(info.annotation, Settings):
            model = info.annotation
    return text
