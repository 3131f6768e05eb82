"""Whole numbers as JSON means them: `5` and `5.0` are one, `"5"` and `true` are none."""

from typing import Final

from pydantic import BeforeValidator
from pydantic_core import PydanticKnownError


def _number(value: object) -> object:
    if isinstance(value, str | bool):
        raise PydanticKnownError("int_type")
    return value


NUMBER: Final = BeforeValidator(_number)
"""The last in an `Annotated[int, ...]`, or the bounds before it would not show in the JSON schema."""
