"""What all bodies and answers share: names, metadata, instants, masks."""

from typing import Annotated, Final, Literal
from uuid import UUID

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, JsonValue, StringConstraints

MASK: Final = "***********"
MAX_NAME: Final = 1_000


def _empty_list_is_empty_map(value: object) -> object:
    return {} if value == [] else value  # seen on the wire (contract 9.2)


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


class ServerOwnApp(BaseModel):
    """Stands for the service's own OAuth app (contract 2.1)."""

    kind: Literal["sequin"] = "sequin"


class OwnApp(BaseModel):
    """A customer's OAuth app, by reference."""

    id: UUID


def oauth_app(app_id: UUID | None) -> ServerOwnApp | OwnApp:
    return ServerOwnApp() if app_id is None else OwnApp(id=app_id)
