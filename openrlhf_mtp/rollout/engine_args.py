"""`mtp.rollout.engine_args`, held against the arguments of the installed vLLM. Imports vLLM, which takes seconds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any

from pydantic import PydanticSchemaGenerationError, TypeAdapter, ValidationError

from openrlhf_mtp.config.engine_args import KEPT, SET_BY, SETTING
from openrlhf_mtp.config.problem import Problem, error, refuse
from openrlhf_mtp.config.reading.names import unknown


def unfit(arguments: Mapping[str, Any]) -> Iterator[Problem]:
    """An error for each argument that vLLM's `AsyncEngineArgs` does not have, or whose value it does not take."""
    if not arguments:
        return
    from vllm import AsyncEngineArgs

    known = {field.name: field.type for field in fields(AsyncEngineArgs) if not field.name.startswith("_")}
    for name, value in arguments.items():
        if name in SET_BY or name in KEPT:
            continue  # `config.checks.rollout` says so
        if name not in known:
            sentence = unknown(f"{SETTING}.{name}", [f"{SETTING}.{other}" for other in known])
            yield refuse(f"{SETTING}.{name}", f"{sentence.partition(': ')[2]} (an argument of vLLM's engine)")
        elif (expected := _expected(known[name], value)) is not None:
            yield error(f"{SETTING}.{name}", value, expected, "set it as vLLM's documentation says")


def _expected(annotation: Any, value: Any) -> str | None:
    """Say in pydantic's words which values vLLM takes, where it does not take this one."""
    if isinstance(annotation, str):  # a class that only type checkers import; vLLM judges it itself
        return None
    try:
        TypeAdapter(annotation).validate_python(value)
    except ValidationError as wrong:
        words = dict.fromkeys(details["msg"].removeprefix("Input should be ") for details in wrong.errors())
        return " or ".join(words)
    except PydanticSchemaGenerationError:  # a class of vLLM's own, which it judges itself
        return None
    return None
