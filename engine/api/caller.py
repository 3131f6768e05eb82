"""Who calls, and what the handlers work with."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Annotated, Final, TypeVar
from uuid import UUID

from fastapi import Depends, Request
from fastapi.security import HTTPBearer
from sqlmodel import Session
from starlette.concurrency import run_in_threadpool

from engine.api.long_polls import LongPolls
from engine.connect.capture import Capture
from engine.errors import BadRequestError, DeadlineError, ForbiddenError, UnauthorizedError
from engine.hints import Hints
from engine.providers.catalogue import Catalogue
from engine.providers.identity import Accounts
from engine.sealing import Safe
from engine.tables import Scope
from engine.tokens import Tokens
from engine.transactions import retrying
from foundation.database import Database

Result = TypeVar("Result")
SAFE_METHODS: Final = frozenset({"GET", "HEAD"})
BEARER: Final = HTTPBearer(scheme_name="Token", description="an API token", auto_error=False)
"""Describes in OpenAPI what `_bearer` reads, which tells the ways to be refused apart."""


@dataclass(frozen=True, slots=True)
class Services:
    """What one web process holds."""

    database: Database
    tokens: Tokens
    safe: Safe
    catalogue: Catalogue
    accounts: Accounts
    capture: Capture
    hints: Hints
    polls: LongPolls
    public_url: str | None
    request_deadline_s: float
    is_stopping: Callable[[], bool]


@dataclass(frozen=True, slots=True)
class Caller:
    """One authenticated request: its organisation, what it may do, and when it must have committed."""

    services: Services
    org_id: UUID
    scopes: frozenset[Scope]
    commit_by: float

    def require(self, scope: Scope) -> None:
        """Go on only with this scope; otherwise 403."""
        if scope not in self.scopes:
            raise ForbiddenError(scope)

    def read(self) -> AbstractContextManager[Session]:
        return self.services.database.read()

    def write(self, work: Callable[[Session], Result]) -> Result:
        """Commit in time or not at all: a client that heard nothing knows when it may ask again."""

        def in_time(session: Session) -> Result:
            result = work(session)
            session.flush()
            if time.monotonic() > self.commit_by:
                raise DeadlineError
            return result

        return retrying(self.services.database, in_time)


async def _identified(request: Request, _described: Annotated[object, Depends(BEARER)]) -> Caller:
    services: Services = request.app.state.services
    token = _bearer(request)
    if b"%00" in request.scope["query_string"]:
        raise BadRequestError("Invalid query: it holds a NUL character")
    bearer = services.tokens.recall(token) or await run_in_threadpool(services.tokens.find, token)
    if bearer is None:
        raise UnauthorizedError("Unauthorized: unknown or expired token")
    received_at: float = request.state.received_at
    until_commit = services.request_deadline_s * 0.9  # the rest is for the commit itself
    return Caller(services, bearer.org_id, bearer.scopes, received_at + until_commit)


def _bearer(request: Request) -> str:
    headers = request.headers.getlist("authorization")
    if not headers:
        raise UnauthorizedError("Unauthorized: the Authorization header is missing")
    if len(headers) > 1:
        raise UnauthorizedError("Unauthorized: more than one Authorization header")
    scheme, _, token = headers[0].partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise UnauthorizedError("Unauthorized: the Authorization header does not start with Bearer")
    return token.strip()


def _reading(caller: Annotated[Caller, Depends(_identified)]) -> Caller:
    caller.require(Scope.READ)
    return caller


def _authenticated(request: Request, caller: Annotated[Caller, Depends(_identified)]) -> Caller:
    caller.require(Scope.READ if request.method in SAFE_METHODS else Scope.WRITE)
    return caller


Authenticated = Annotated[Caller, Depends(_authenticated)]
"""May do what the method says: GET takes the scope `read`, everything else takes `write`."""
Reading = Annotated[Caller, Depends(_reading)]
"""Only reads, whatever the method."""
