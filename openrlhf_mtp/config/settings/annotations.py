"""A settings field's type: what it takes, in words, and a value of the job file brought to it.

Stricter than pydantic's own reading, which takes true for 1 and "3" for 3.
"""

from collections.abc import Mapping
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from openrlhf_mtp.config.reading import values
from openrlhf_mtp.config.reading.values import UnfitError, WrittenFloat, WrittenInt


def _whole_number(value: object) -> int:
    result = values.whole_number(value)
    if abs(result) > values.LARGEST_WHOLE:
        raise UnfitError(f"a whole number of at most {values.LARGEST_WHOLE}")
    return result


_READ = {bool: values.switch, int: _whole_number, float: values.number, str: values.text}
_WORDS = {bool: "true or false", int: "a whole number", float: "a number", str: "text", NoneType: "nothing"}


def read_as(annotation: Any, value: Any) -> Any:
    """`value` as the annotation's type; a section's mapping stays as it is, to be read key by key.

    Raises:
        UnfitError: what the annotation takes.
    """
    origin, inner = get_origin(annotation), get_args(annotation)
    if annotation is Any:
        return _plain(value)
    if annotation in _READ:
        return _READ[annotation](value)
    if origin is Annotated:
        return read_as(inner[0], value)
    if origin in (Union, UnionType):
        return _one_of(annotation, value)
    if origin is tuple and isinstance(value, list | tuple):
        kinds = inner[:1] * len(value) if Ellipsis in inner else inner
        if len(value) == len(kinds):
            return _parts(annotation, lambda: tuple(map(read_as, kinds, value)))
    if origin is dict and isinstance(value, Mapping):
        return _parts(
            annotation, lambda: {read_as(inner[0], k): read_as(inner[1], v) for k, v in value.items()}
        )
    if origin is Literal and isinstance(value, str) and value in inner:
        return value
    if isinstance(annotation, type) and isinstance(value, annotation | Mapping):
        return value
    raise UnfitError(takes(annotation))


def _plain(value: Any) -> Any:
    """A value of the job file without what it knows of its text and lines."""
    if isinstance(value, Mapping):
        return {_READ[str](name): _plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, WrittenInt):
        return int(value)
    return float(value) if isinstance(value, WrittenFloat) else value


def takes(annotation: Any, *, example: bool = True) -> str:
    """The values that a field of this type takes, in words; `example` adds one where the form needs it."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if annotation in _WORDS:
        return _WORDS[annotation]
    if origin is Annotated:
        return takes(inner[0], example=example)
    if origin is Literal:
        return f"one of {', '.join(map(str, inner))}"
    if origin is tuple:
        return "a list of numbers" if Ellipsis in inner else f"a list of {len(inner)} numbers"
    if origin is dict and inner[0] is str:
        return "a mapping of names to values"
    if origin is dict:
        first, second = get_args(inner[0])[:2]
        such = f", for example {{{first}: 0.3, {second}: 0.7}}" if example else ""
        return f"a mapping of such names to numbers{such}"
    if origin in (Union, UnionType):
        return " or ".join(takes(kind, example=example) for kind in inner)
    return "a section with keys of its own"


def _one_of(annotation: Any, value: Any) -> Any:
    kinds = [kind for kind in get_args(annotation) if kind is not NoneType]
    if value is None and len(kinds) < len(get_args(annotation)):
        return None
    if len(kinds) == 1:
        return read_as(kinds[0], value)
    for kind in kinds:
        try:
            return read_as(kind, value)
        except UnfitError:
            continue
    raise UnfitError(takes(annotation))


def _parts(annotation: Any, read: Any) -> Any:
    """A list or mapping whose parts are read; what is said of a wrong one is what the whole should be."""
    try:
        return read()
    except UnfitError as unfit:
        raise UnfitError(takes(annotation)) from unfit
