"""From the raw `mtp:` mapping to `MTPSettings`, with every problem said in the job file's own words."""

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from openrlhf_mtp.config.errors import JobErrors
from openrlhf_mtp.config.knob import Settings
from openrlhf_mtp.config.mtp import MTPSettings
from openrlhf_mtp.config.names import unknown
from openrlhf_mtp.config.paths import absolute_path


@cache
def mtp_names() -> tuple[str, ...]:
    """Every key of the section by dotted name, `mtp.` first: `mtp.depths`, `mtp.optim.lr`, ..."""
    return tuple(_leaves(MTPSettings, "mtp"))


def parse_mtp(section: Mapping[str, Any]) -> MTPSettings:
    """Check and type a raw section.

    Raises:
        JobErrors: every unknown key with the nearest known one, and every wrong value.
    """
    problems = list(_unknown_keys(section, MTPSettings, "mtp"))
    try:
        settings = MTPSettings.model_validate(section)
    except ValidationError as error:
        problems += [_message(e) for e in error.errors() if e["type"] != "extra_forbidden"]
        raise JobErrors("the mtp section cannot be used:", problems) from error
    head = absolute_path("mtp.head", settings.head)
    return settings.model_copy(update={"head": head})


def _leaves(model: type[Settings], prefix: str) -> Iterator[str]:
    for name, info in model.model_fields.items():
        inner = info.annotation
        if isinstance(inner, type) and issubclass(inner, Settings):
            yield from _leaves(inner, f"{prefix}.{name}")
        else:
            yield f"{prefix}.{name}"


def _unknown_keys(section: Mapping[str, Any], model: type[Settings], prefix: str) -> Iterator[str]:
    for key, value in section.items():
        if key not in model.model_fields:
            yield unknown(f"{prefix}.{key}", mtp_names())
            continue
        inner = model.model_fields[key].annotation
        if isinstance(value, Mapping) and isinstance(inner, type) and issubclass(inner, Settings):
            yield from _unknown_keys(value, inner, f"{prefix}.{key}")


def _message(error: ErrorDetails) -> str:
    name = ".".join(["mtp", *(str(part) for part in error["loc"])])
    if error["type"] == "value_error":
        return f"{name}.{error['msg'].removeprefix('Value error, ')}"
    expected = error["msg"].removeprefix("Input should be ")
    if error["type"] == "model_type":
        expected = "a section with keys of its own"
    return f"{name}: got {error['input']!r}, expected {expected}{_help(error['loc'])}"


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
