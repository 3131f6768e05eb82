"""`POST /webhooks/{source}`: check, store, answer 202; the work begins after the answer's transaction."""

import asyncio
from collections.abc import Mapping
from http import HTTPStatus
from typing import Final
from uuid import uuid4

import structlog
from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.types import ASGIApp, Receive, Scope, Send

from worker.intake.accept import Accepted, Message
from worker.intake.events import TYPES, AnyEvent, InvalidEventError, UnknownEvent, parse
from worker.intake.inbox import Inbox, InboxFullError
from worker.intake.kinds import foreign_kinds
from worker.intake.signatures import SignatureError, Verifier
from worker.plans import Plans
from worker.queue.wakeups import Waker
from worker.settings import Settings
from worker.web.answers import UNAVAILABLE, Refusal, RefusalBody, put_off, refused
from worker.web.bodies import Bodies
from worker.web.documents import EVENT_BODY
from worker.web.readiness import Storage

PREFIX: Final = "/webhooks/"

log = structlog.get_logger()


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
    applied: bool = True
    """False if the event changed nothing, for `reason`."""
    reason: str | None = None
    ignored: list[str] = []
    """Fields that are not part of the event's type."""


class UnknownAnswer(BaseModel):
    """What a message of a type that is not ours is answered with: received, and of no effect."""

    applied: bool = False
    reason: str


class Receiver:
    """Takes in one message after the other."""

    def __init__(
        self, settings: Settings, plans: Plans, inbox: Inbox, waker: Waker, storage: Storage
    ) -> None:
        self._verifiers: Mapping[str, Verifier] = {
            source: Verifier(secrets, tolerance_s=settings.webhook_tolerance_s)
            for source, secrets in settings.webhook_secrets.items()
        }
        self._providers = plans.providers()
        self._deadline_s = settings.intake_deadline_s
        self._inbox = inbox
        self._waker = waker
        self._storage = storage
        self._bodies = Bodies()

    async def receive(self, source: str, request: Request) -> JSONResponse:
        """Store the event of a signed message and start what it asks for."""
        verifier = self._verifiers.get(source)
        if verifier is None:
            raise Refusal(HTTPStatus.NOT_FOUND, f"no webhook secret is set for source {source!r}")
        _check_headers(request)
        body = await self._bodies.read(request)
        try:
            message_id = verifier.verify(body, request.scope["headers"])
        except SignatureError as exc:
            raise Refusal(HTTPStatus.UNAUTHORIZED, str(exc)) from exc
        try:
            return await self._answer(source, message_id, body)
        except InvalidEventError as exc:
            fields = sorted(exc.fields)
            log.warning("event.refused", source=source, message_id=message_id, fields=fields)
            raise Refusal(HTTPStatus.UNPROCESSABLE_ENTITY, "Validation failed", exc.fields) from None

    async def _answer(self, source: str, message_id: str, body: bytes) -> JSONResponse:
        event = parse(body)
        if isinstance(event, UnknownEvent):
            log.info("event.unknown", source=source, message_id=message_id, type=event.type)
            return _acknowledged(event)
        foreign = foreign_kinds(event, self._providers)
        if foreign:
            raise InvalidEventError(foreign)
        message = Message(source, message_id, event.digest, event, correlation_id=uuid4().hex)
        accepted = await self._stored(message)
        if not accepted.is_repeated:
            self._storage.note_write()
        for step in accepted.due:
            self._waker.give(step)
        _log_accepted(message, accepted)
        return _accepted(event, accepted)

    async def _stored(self, message: Message) -> Accepted:
        """Wait for the commit, but not for ever; what is stored later is answered when it is sent again."""
        try:
            async with asyncio.timeout(self._deadline_s):
                return await asyncio.wrap_future(self._inbox.accept(message))
        except UNAVAILABLE:
            self._storage.note_failure()
            raise
        except InboxFullError:
            reason = "full"
        except TimeoutError:
            reason = "slow"
        self._storage.note_failure()
        log.warning("event.put_off", source=message.source, message_id=message.id, inbox=reason)
        raise Refusal(HTTPStatus.SERVICE_UNAVAILABLE, "The event could not be stored in time; send it again")


class Shortcut:
    """Leads webhooks past the framework's routing, which costs several times the check of a signature."""

    def __init__(self, app: ASGIApp, receiver: Receiver) -> None:
        self._app = app
        self._receiver = receiver

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        source = _source_of(scope)
        if source is None:
            await self._app(scope, receive, send)
            return
        try:
            answer = await self._receiver.receive(source, Request(scope, receive))
        except Refusal as exc:
            answer = refused(exc)
        except UNAVAILABLE as exc:
            answer = put_off(exc)
        await answer(scope, receive, send)


def webhooks(receiver: Receiver) -> APIRouter:
    """Document the route that `Shortcut` serves, and refuse its other methods."""
    router = APIRouter(tags=["webhooks"])

    @router.post(
        f"{PREFIX}{{source}}",
        status_code=HTTPStatus.ACCEPTED,
        response_model=EventAnswer | UnknownAnswer,
        responses={code: {"model": RefusalBody} for code in (401, 404, 408, 413, 415, 422, 503)},
        openapi_extra=EVENT_BODY,
    )
    async def receive(request: Request) -> JSONResponse:
        """Store a signed event (Standard Webhooks) and start what it asks for."""
        return await receiver.receive(request.path_params["source"], request)

    return router


def _source_of(scope: Scope) -> str | None:
    """The source in the path of a webhook; nothing for any other request."""
    if scope["type"] != "http" or scope["method"] != "POST" or not scope["path"].startswith(PREFIX):
        return None
    source: str = scope["path"][len(PREFIX) :]
    return source if source and "/" not in source else None


def _accepted(event: AnyEvent, accepted: Accepted) -> JSONResponse:
    answer = {"applied": True, "reason": None, **accepted.answer, "ignored": list(event.ignored)}
    return JSONResponse(answer, status_code=HTTPStatus.ACCEPTED)


def _acknowledged(event: UnknownEvent) -> JSONResponse:
    reason = f"unknown type {event.type}; known are {', '.join(sorted(TYPES))}"
    return JSONResponse({"applied": False, "reason": reason}, status_code=HTTPStatus.ACCEPTED)


def _log_accepted(message: Message, accepted: Accepted) -> None:
    log.info(
        "event.repeated" if accepted.is_repeated else "event.accepted",
        source=message.source,
        type=message.event.type,
        external_id=message.event.data.external_id,
        message_id=message.id,
        event_id=accepted.answer["event_id"],
        correlation_id=message.correlation_id,
        **({"ignored": message.event.ignored} if message.event.ignored else {}),
    )


def _check_headers(request: Request) -> None:
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type != "application/json":
        raise Refusal(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "Content-Type: expected application/json")
    if request.headers.get("content-encoding", "identity").strip().lower() != "identity":
        raise Refusal(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "Content-Encoding: expected none; send the body uncompressed"
        )
