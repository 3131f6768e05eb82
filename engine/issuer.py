"""Asks a provider for a token: one POST, ending in tokens or a named failure."""

import json
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import httpx
from pydantic import JsonValue

from engine.backfill.fetch import FetchError
from engine.backfill.verdict import Failure, retry_after, unreachable
from engine.bounds import read, within
from engine.health import TroubleCode
from engine.oauth_apps import OAuthClient
from engine.providers.answer import UnreadableAnswerError
from engine.providers.auth import ClientCredentials, Installation, Issued, Refresh, Signed
from engine.providers.catalogue import Provider
from engine.providers.issue import (
    TokenRequest,
    Tokens,
    UnusableKeyError,
    assertion,
    installation_request,
    read_exchanged,
    read_installed,
    sign,
    token_request,
)
from engine.tables import JsonObject
from foundation.database import utc_now

TIMEOUT: Final = httpx.Timeout(3.0, connect=2.0)
WHOLE_ANSWER_S: Final = 5.0
MAX_ANSWER_BYTES: Final = 256 * 1024
REFUSES_APP: Final = ("invalid_client", "unauthorized_client")
REFUSALS: Final = frozenset({401, 403})
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

    @property
    def own_client(self) -> OAuthClient | None:
        """The client's id and secret, if the credential itself is that."""
        if not isinstance(self.grant, ClientCredentials):
            return None
        client_id, secret = (self.values[name] for name in self.grant.fields)
        return OAuthClient(str(client_id), str(secret))

    def issue(self, app: OAuthClient, refresh_token: str | None) -> Tokens:
        """New tokens; raises `FetchError` for everything else."""
        now = utc_now()
        answer = self._post(self._request(app, refresh_token, now))
        try:
            if isinstance(self.grant, Installation):
                return read_installed(answer)
            return read_exchanged(self.grant, answer, now)
        except UnreadableAnswerError as exc:
            message = f"{self.provider.title} {exc}"
            raise FetchError(Failure(TroubleCode.PROVIDER_UNAVAILABLE, message)) from None

    def _request(self, app: OAuthClient, refresh_token: str | None, now: datetime) -> TokenRequest:
        if isinstance(self.grant, Installation):
            return self._signed(self.grant, app, now)
        url = self.grant.token_url
        url = self.base_url + url if url.startswith("/") else url
        if isinstance(self.grant, Refresh):
            held = refresh_token or str(self.values[self.grant.field])
            form = {"grant_type": "refresh_token", "refresh_token": held}
            return token_request(self.grant, url, app.client_id, app.client_secret, form)
        if self.grant.signed is not None:
            return self._asserted(self.grant, self.grant.signed, app, url, now)
        return token_request(self.grant, url, app.client_id, app.client_secret, self.grant.form(self.values))

    def _signed(self, grant: Installation, app: OAuthClient, now: datetime) -> TokenRequest:
        try:
            signed = sign(app.client_id, app.client_secret, now)
        except UnusableKeyError:
            message = f"The app's private key for {self.provider.title} is no RSA key in PEM"
            raise AppRefusedError(Failure(TroubleCode.PROVIDER_UNAVAILABLE, message)) from None
        return installation_request(self.base_url + grant.path, self.provider.headers, signed, self.values)

    def _asserted(
        self, grant: ClientCredentials, signed: Signed, client: OAuthClient, url: str, now: datetime
    ) -> TokenRequest:
        try:
            proof = assertion(signed, self.values, client.client_id, client.client_secret, url, now)
        except UnusableKeyError:
            message = f"The credential's private key for {self.provider.title} is no RSA key in PEM"
            raise FetchError(Failure(TroubleCode.CREDENTIAL_REJECTED, message)) from None
        return TokenRequest(url, {"Accept": "application/json"}, {**grant.form(self.values), **proof})

    def _post(self, asked: TokenRequest) -> JsonObject:
        title = self.provider.title
        try:
            request = self.client.build_request(
                "POST", asked.url, data=dict(asked.form) or None, headers=asked.headers, timeout=TIMEOUT
            )
            with within(WHOLE_ANSWER_S), closing(self.client.send(request, stream=True)) as reply:
                body = read(reply, MAX_ANSWER_BYTES)
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as exc:
            raise FetchError(unreachable(title, type(exc).__name__)) from None
        if not reply.is_success:
            raise self._refused(reply, body.decode(errors="replace"))
        try:
            answer = json.loads(body)
        except (ValueError, RecursionError):
            answer = None
        if not isinstance(answer, dict):
            raise FetchError(unreachable(title, "not a JSON object"))
        return answer

    def _refused(self, reply: httpx.Response, body: str) -> FetchError:
        """Whose trouble it is; what the answer says is looked at and never quoted."""
        title, status = self.provider.title, reply.status_code
        match self.grant:
            case Installation():
                is_gone, is_app = status in GONE, status == httpx.codes.UNAUTHORIZED
            case ClientCredentials(refusals=refusals):
                is_gone = status in REFUSALS or any(each in body for each in refusals)
                is_app = False
            case Refresh(refusals=refusals):
                is_gone = any(each in body for each in refusals)
                is_app = any(each in body for each in REFUSES_APP)
        if is_gone and status < httpx.codes.INTERNAL_SERVER_ERROR:
            message = f"{title} gives this credential no more tokens ({status}): import it again"
            return FetchError(Failure(TroubleCode.CREDENTIAL_REJECTED, message))
        if is_app:
            message = f"{title} refuses the OAuth app's id or secret ({status})"
            return AppRefusedError(Failure(TroubleCode.PROVIDER_UNAVAILABLE, message))
        wait = retry_after(reply.headers.get("retry-after"), utc_now())
        message = f"{title} answered {status} when asked for a token"
        return FetchError(Failure(TroubleCode.PROVIDER_UNAVAILABLE, message, wait))
