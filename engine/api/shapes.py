"""What all bodies and answers share: names, metadata, instants, masks."""

from typing import Annotated, Any, Final, Literal
from uuid import UUID

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    JsonValue,
    StringConstraints,
    WithJsonSchema,
)
from pydantic_core import CoreSchema

MASK: Final = "***********"
MAX_NAME: Final = 1_000


def _empty_list_is_empty_map(value: object) -> object:
    return {} if value == [] else value  # seen on the wire (contract 9.2)


def _never(_value: JsonValue) -> JsonValue:
    raise ValueError("cannot be changed")


class NotNull:
    """A field that may be left out of a body, but is not emptied with null."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        schema = handler(source)
        return schema["schema"] if schema["type"] == "nullable" else schema


Never = Annotated[
    JsonValue, AfterValidator(_never), WithJsonSchema({"not": {}, "description": "cannot be changed"})
]
"""A field of an object that its PATCH refuses."""
Name = Annotated[str, StringConstraints(min_length=1, max_length=MAX_NAME)]
Metadata = Annotated[dict[str, JsonValue], BeforeValidator(_empty_list_is_empty_map)]


class Given(BaseModel):
    """A request body; fields the contract does not name are ignored."""

    model_config = ConfigDict(extra="ignore", hide_input_in_errors=True)


class Deleted(BaseModel):
    """The answer to every DELETE."""

    id: UUID
    deleted: Literal[True] = True


class Failure(BaseModel):
    """The answer to everything refused (contract 1.4)."""

    summary: str = Field(examples=["Validation failed"])
    validation_errors: dict[str, JsonValue] | None = Field(
        default=None, examples=[{"name": ["Field required"]}], description="only with 422: field to reasons"
    )
