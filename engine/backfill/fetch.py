"""One request to a provider: bounded in time and size, ending in an answer or a named failure."""

import json
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from typing import Final, TypeVar

import httpx
from pydantic import JsonValue

from engine.backfill.verdict import Failure, judge, retry_after, unreachable
from engine.bounds import read, within
from engine.health import TroubleCode
from engine.providers.answer import Answer, StrayLinkError, UnreadableAnswerError
from engine.providers.auth import is_carriable
from engine.providers.catalogue import Provider
from engine.providers.text import SUSPECT, mended
from engine.providers.throttle import is_throttled, resets_in_s, rest_ahead_s
from engine.providers.urls import on_origin_of
from engine.providers.walk import Request
from foundation.database import utc_now

TIMEOUT: Final = httpx.Timeout(6.0, connect=3.0)
WHOLE_ANSWER_S: Final = 8.0
MAX_ANSWER_BYTES: Final = 32 * 1024 * 1024
MAX_REFUSAL_BYTES: Final = 64 * 1024

Understood = TypeVar("Understood")


class FetchError(Exception):
    """The request brought no answer that can be used."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure)
        self.failure = failure

    @property
    def is_refusal(self) -> bool:
        """Whether another token might have been accepted."""
        return self.failure.code is TroubleCode.CREDENTIAL_REJECTED


@dataclass(slots=True)
class Allowance:
    """What the provider last told of how many more requests it allows."""

    rest_s: float = 0.0
    """How long to rest before the next."""


@dataclass(frozen=True, slots=True)
class Access:
    """Where a credential's requests go and what they carry."""

    base_url: str
    token: str = field(repr=False)
    is_renewable: bool = False
    allowance: Allowance = field(default_factory=Allowance)


def understood(provider: Provider, read: Callable[[], Understood]) -> Understood:
    """What an answer says; raises `FetchError` when that cannot be made out."""
    try:
        return read()
    except StrayLinkError as exc:
        raise FetchError(Failure(TroubleCode.COLLECTION_FAILED, f"{provider.title} {exc}")) from None
    except UnreadableAnswerError as exc:
        raise FetchError(Failure(TroubleCode.PROVIDER_UNAVAILABLE, f"{provider.title} {exc}")) from None


def get(
    client: httpx.Client,
    provider: Provider,
    collection_id: str,
    access: Access,
    wanted: Request,
    within_s: float = WHOLE_ANSWER_S,
) -> Answer:
    """The answer to one request about a collection; raises `FetchError` for everything else."""
    asked = _asking(client, provider, collection_id, access, wanted)
    try:
        with within(within_s), closing(client.send(asked, stream=True)) as reply:
            access.allowance.rest_s = rest_ahead_s(provider.throttle, reply.headers, utc_now())
            if reply.is_success:
                payload = _parse(read(reply, MAX_ANSWER_BYTES))
                status = provider.faults.status_of(payload) if provider.faults else None
            elif reply.status_code in wanted.missing:
                status = reply.status_code
            else:
                raise _refused(provider, collection_id, reply)
        if status in wanted.missing:
            return Answer(None, str(asked.url), is_missing=True)
        if status is not None:
            raise _judged(provider, collection_id, status, reply.headers, "")
        next_link = reply.links.get("next", {}).get("url")
        return Answer(payload, str(asked.url), next_link)
    except httpx.HTTPError as exc:
        raise FetchError(unreachable(provider.title, type(exc).__name__)) from None
    except (ValueError, RecursionError):
        raise FetchError(unreachable(provider.title, "not JSON")) from None


def _asking(
    client: httpx.Client, provider: Provider, collection_id: str, access: Access, wanted: Request
) -> httpx.Request:
    """The request. What is wrong with one would be told together with the token, so none of that gets out."""
    if not is_carriable(access.token):
        message = f"No header can carry the credential's token for {provider.title}: import it again"
        raise FetchError(Failure(TroubleCode.CREDENTIAL_REJECTED, message))
    try:
        # without parameters httpx would take `{}` to mean that a link's own query is to go
        return client.build_request(
            "GET" if wanted.body is None else "POST",
            on_origin_of(access.base_url, wanted.path) if wanted.is_link else access.base_url + wanted.path,
            params=wanted.params or None,
            json=wanted.body,
            headers=provider.carrying(access.token),
        )
    except (httpx.InvalidURL, ValueError) as exc:
        message = f"{provider.title} cannot be asked for {collection_id} ({type(exc).__name__})"
        raise FetchError(Failure(TroubleCode.COLLECTION_FAILED, message)) from None


def _refused(provider: Provider, collection_id: str, reply: httpx.Response) -> FetchError:
    """What an unsuccessful answer means; its body is read where the provider says more there."""
    status, body = reply.status_code, ""
    if provider.faults or (provider.throttle.codes and status in provider.throttle.statuses):
        body = read(reply, MAX_REFUSAL_BYTES).decode(errors="replace")
    told = provider.faults.status_in(body) if provider.faults else None
    return _judged(provider, collection_id, told or status, reply.headers, body)


def _judged(
    provider: Provider, collection_id: str, status: int, headers: httpx.Headers, body: str
) -> FetchError:
    """Whose trouble a refusal is. Its own text stays out: it may quote the secret."""
    now = utc_now()
    if is_throttled(provider.throttle, status, headers, body):
        wait = retry_after(headers.get("retry-after"), now)
        wait = resets_in_s(provider.throttle, headers, now) if wait is None else wait
        message = f"{provider.title} asks to slow down ({status})"
        return FetchError(Failure(TroubleCode.RATE_LIMITED, message, wait))
    if status == httpx.codes.FORBIDDEN and provider.forbidden == "collection":
        message = f"{provider.title} does not let this credential list {collection_id} (403)"
        return FetchError(Failure(TroubleCode.COLLECTION_FAILED, message))
    return FetchError(judge(provider.title, collection_id, status, headers, now))


def _parse(body: bytes) -> JsonValue:
    value: JsonValue = json.loads(body, parse_constant=_refuse)
    return mended(value) if SUSPECT.search(body) else value


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")
