"""One settings field: its default, its unit and its help text in one place."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class Settings(BaseModel):
    """Base of every settings section: immutable, an unknown key is an error rather than a silent no-op, and no number
    is infinite or NaN, which would pass every comparison with a bound."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def knob(default: Any, *, unit: str, help: str, **constraints: Any) -> Any:
    """A settings field with its help text and unit ("" for a name or a switch).

    `constraints` are pydantic's (`ge`, `gt`, `le`, ...). Read them back with `describe`.
    """
    return Field(default, description=help, json_schema_extra={"unit": unit}, **constraints)
