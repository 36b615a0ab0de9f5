"""One settings field: its default, its unit and its help text in one place."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from openrlhf_mtp.config.reading.values import UnfitError
from openrlhf_mtp.config.settings.annotations import read_as

UNFIT = "unfit"
"""Type of the error that says which kind of value a field takes."""


class Settings(BaseModel):
    """Base of every settings section: immutable, an unknown key is an error rather than a silent no-op, and a value is
    of the field's own kind: true is no number, and neither is text, infinity or nan.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _of_its_kind(cls, value: object, info: ValidationInfo) -> object:
        assert info.field_name is not None
        try:
            return read_as(cls.model_fields[info.field_name].annotation, value)
        except UnfitError as unfit:
            raise PydanticCustomError(UNFIT, "{expected}", {"expected": str(unfit)}) from unfit


def setting(default: Any, *, unit: str, help: str, **constraints: Any) -> Any:
    """A settings field with its help text and unit ("" for a name or a switch).

    `constraints` are pydantic's (`ge`, `gt`, `le`, ...). Read them back with `describe`.
    """
    return Field(default, description=help, json_schema_extra={"unit": unit}, **constraints)
