"""What an event looks like in the OpenAPI document: the framework cannot see it, the body is read by hand."""

from typing import Any, Final

from fastapi import FastAPI
from pydantic import TypeAdapter

from worker.intake.events import AnyEvent

_EVENT: Final[dict[str, Any]] = TypeAdapter(AnyEvent).json_schema(
    ref_template="#/components/schemas/{model}", mode="validation"
)
_PARTS: Final[dict[str, Any]] = _EVENT.pop("$defs")

_EXAMPLE: Final = {
    "type": "tenant.created",
    "timestamp": "2026-11-21T10:00:00Z",
    "data": {
        "external_id": "org_1",
        "name": "Choam Corp",
        "plan": "default",
        "connections": [{"provider": "stripe", "credential_id": "id-of-an-imported-credential"}],
    },
}
_SIGNED: Final = ("webhook-id", "webhook-timestamp", "webhook-signature")

EVENT_BODY: Final[dict[str, Any]] = {
    "parameters": [
        {"name": "source", "in": "path", "required": True, "schema": {"type": "string"}},
        *({"name": name, "in": "header", "required": True, "schema": {"type": "string"}} for name in _SIGNED),
    ],
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": _EVENT, "example": _EXAMPLE}},
    },
}


class DocumentedApp(FastAPI):
    """An app whose document has the parts of an event among its components."""

    def openapi(self) -> dict[str, Any]:
        document = super().openapi()
        document["components"]["schemas"] |= _PARTS
        return document
