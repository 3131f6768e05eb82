"""Asks a provider for a token: one POST, ending in tokens or a named failure."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import httpx
from pydantic import JsonValue

from engine.backfill.fetch import FetchError
from engine.backfill.verdict import Failure, retry_after, unreachable
from engine.health import TroubleCode
from engine.oauth_apps import OAuthClient
from engine.providers.answer import UnreadableAnswerError
from engine.providers.auth import Installation, Issued, Refresh
from engine.providers.catalogue import Provider
from engine.providers.issue import (
    TokenRequest,
    Tokens,
    UnusableKeyError,
    installation_request,
    read_installed,
    read_refreshed,
    refresh_request,
    sign,
)
from engine.tables import JsonObject
from foundation.database import utc_now

TIMEOUT: Final = httpx.Timeout(3.0, connect=2.0)
MAX_ANSWER_BYTES: Final = 256 * 1024
REFUSES_APP: Final = ("invalid_client", "unauthorized_client")
GONE: Final = frozenset({403, 404, 410, 422})
"""What an app hears about an installation that was removed or suspended."""


class AppRefusedError(FetchError):
    """The provider does not take the app's id and secret; the credential may be fine."""


@dataclass(frozen=True, slots=True)
class Issuer:
    """Where one credential's tokens come from."""

    client: httpx.Client
    provider: Provider
    grant: Issued
    base_url: str
    values: Mapping[str, JsonValue]

    def issue(self, app: OAuthClient, refresh_token: str | None) -> Tokens:
        """New tokens; raises `FetchError` for everything else."""
        now = utc_now()
        answer = self._post(self._request(app, refresh_token, now))
        try:
            if isinstance(self.grant, Refresh):
                return read_refreshed(self.grant, answer, now)
            return read_installed(answer)
        except UnreadableAnswerError as exc:
            message = f"{self.provider.title} {exc}"
            raise FetchError(Failure(TroubleCode.PROVIDER_UNAVAILABLE, message)) from None

    def _request(self, app: OAuthClient, refresh_token: str | None, now: datetime) -> TokenRequest:
        if isinstance(self.grant, Refresh):
            held = refresh_token or str(self.values[self.grant.field])
            url = self.grant.token_url
            url = self.base_url + url if url.startswith("/") else url
            return refresh_request(self.grant, url, app.client_id, app.client_secret, held)
        url = self.base_url + self.grant.path
        try:
            signed = sign(app.client_id, app.client_secret, now)
        except UnusableKeyError:
            message = f"The app's private key for {self.provider.title} is no RSA key in PEM"
            raise AppRefusedError(Failure(TroubleCode.PROVIDER_UNAVAILABLE, message)) from None
        return installation_request(url, self.provider.headers, signed, self.values)

    def _post(self, asked: TokenRequest) -> JsonObject:
        title = self.provider.title
        try:
            reply = self.client.post(
                asked.url, data=dict(asked.form) or None, headers=asked.headers, timeout=TIMEOUT
            )
        except httpx.HTTPError as exc:
            raise FetchError(unreachable(title, type(exc).__name__)) from None
        if not reply.is_success:
            raise self._refused(reply)
        if len(reply.content) > MAX_ANSWER_BYTES:
            raise FetchError(unreachable(title, "the answer is too large"))
        try:
            answer = reply.json()
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise FetchError(unreachable(title, "not a JSON object"))
        return answer

    def _refused(self, reply: httpx.Response) -> FetchError:
        """Whose trouble it is; what the answer says is looked at and never quoted."""
        title, status = self.provider.title, reply.status_code
        if isinstance(self.grant, Installation):
            is_gone, is_app = status in GONE, status == httpx.codes.UNAUTHORIZED
        else:
            is_gone = any(each in reply.text for each in self.grant.refusals)
            is_app = any(each in reply.text for each in REFUSES_APP)
        if is_gone and status < httpx.codes.INTERNAL_SERVER_ERROR:
            message = f"{title} gives this credential no more tokens ({status}): import it again"
            return FetchError(Failure(TroubleCode.CREDENTIAL_REJECTED, message), status)
        if is_app:
            message = f"{title} refuses the OAuth app's id or secret ({status})"
            return AppRefusedError(Failure(TroubleCode.PROVIDER_UNAVAILABLE, message), status)
        wait = retry_after(reply.headers.get("retry-after"), utc_now())
        message = f"{title} answered {status} when asked for a token"
        return FetchError(Failure(TroubleCode.PROVIDER_UNAVAILABLE, message, wait), status)
