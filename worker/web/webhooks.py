"""`POST /webhooks/{source}`: check, store, answer 202; the work begins after the answer's transaction."""

import asyncio
import hashlib
from http import HTTPStatus
from typing import Final
from uuid import uuid4

import structlog
from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel

from worker.intake.accept import Accepted, Message
from worker.intake.events import InvalidEventError, parse
from worker.intake.inbox import Inbox
from worker.intake.signatures import SignatureError, verify
from worker.queue.wakeups import Waker
from worker.settings import Settings
from worker.web.answers import Refusal, RefusalBody

log = structlog.get_logger()

MAX_BODY: Final = 1024 * 1024


_BODY: Final = {
    # the signature covers the raw body, so it is read by hand; docs/events.md describes it
    "schema": {"type": "object", "required": ["type", "timestamp", "data"]},
    "example": {
        "type": "tenant.created",
        "timestamp": "2026-11-21T10:00:00Z",
        "data": {
            "external_id": "org_1",
            "name": "Choam Corp",
            "plan": "default",
            "connections": [{"provider": "stripe", "credential_id": "id-of-an-imported-credential"}],
        },
    },
}


class ConnectionAnswer(BaseModel):
    id: str
    provider: str
    slot: str
    state: str


class EventAnswer(BaseModel):
    """What a stored message is answered with; the same message again gets the same answer."""

    event_id: str
    tenant: str
    state: str
    connections: list[ConnectionAnswer]
    status_url: str


def webhooks(settings: Settings, inbox: Inbox, waker: Waker) -> APIRouter:
    router = APIRouter(tags=["webhooks"])
    refusals: dict[int | str, dict[str, object]] = {
        code: {"model": RefusalBody} for code in (401, 404, 413, 415, 422)
    }

    @router.post(
        "/webhooks/{source}",
        status_code=HTTPStatus.ACCEPTED,
        response_model=EventAnswer,
        responses=refusals,
        openapi_extra={"requestBody": {"required": True, "content": {"application/json": _BODY}}},
    )
    async def receive(source: str, request: Request) -> JSONResponse:
        """Store a signed event (Standard Webhooks) and start what it asks for."""
        secrets = settings.webhook_secrets.get(source)
        if secrets is None:
            raise Refusal(HTTPStatus.NOT_FOUND, f"no webhook secret is set for source {source!r}")
        _check_content_type(request)
        body = await _limited_body(request)
        try:
            message_id = verify(body, request.headers, secrets, tolerance_s=settings.webhook_tolerance_s)
        except SignatureError as exc:
            raise Refusal(HTTPStatus.UNAUTHORIZED, str(exc)) from exc
        with structlog.contextvars.bound_contextvars(correlation_id=uuid4().hex, message_id=message_id):
            accepted = await _accept(inbox, source, message_id, body)
        for step in accepted.due:
            waker.give(step)
        return JSONResponse(accepted.answer, status_code=HTTPStatus.ACCEPTED)

    return router


async def _accept(inbox: Inbox, source: str, message_id: str, body: bytes) -> Accepted:
    correlation_id = structlog.contextvars.get_contextvars()["correlation_id"]
    try:
        event = parse(body)
        digest = hashlib.sha256(body).hexdigest()
        message = Message(source, message_id, digest, event, correlation_id)
        accepted = await asyncio.wrap_future(inbox.accept(message))
    except InvalidEventError as exc:
        log.warning("event.refused", source=source, fields=sorted(exc.fields))
        raise Refusal(HTTPStatus.UNPROCESSABLE_ENTITY, "Validation failed", exc.fields) from None
    log.info(
        "event.repeated" if accepted.is_repeated else "event.accepted",
        source=source,
        type=event.type,
        event_id=accepted.answer["event_id"],
    )
    return accepted


def _check_content_type(request: Request) -> None:
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type != "application/json":
        raise Refusal(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "Content-Type: expected application/json")


async def _limited_body(request: Request) -> bytes:
    """The raw body, as signed; one that is too large is refused before it is all read."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY:
            raise Refusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"body: expected at most {MAX_BODY} bytes")
    return bytes(body)
