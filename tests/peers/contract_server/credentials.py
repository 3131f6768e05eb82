"""The endpoints of credentials."""

import time

from .answers import Answers, Handler
from .bodies import metadata_filter, read_body
from .errors import ApiError, FieldErrors, invalid, not_found
from .store import Credential, Store, assign, contains
from .validation import CREDENTIAL, CREDENTIAL_UPDATE, JsonObject, provider_of, require
from .views import Views
from .wire import Request, Response


class CredentialEndpoints:
    """Importing a credential again gives the same one."""

    def __init__(self, store: Store, views: Views, answers: Answers) -> None:
        self._store = store
        self._views = views
        self._answers = answers

    def handlers(self) -> dict[str, Handler]:
        """Name the routes."""
        return {
            "POST /v1/credentials": self._import_credential,
            "GET /v1/credentials": self._list_credentials,
            "GET /v1/credentials/{id}": self._get_credential,
            "PATCH /v1/credentials/{id}": self._update_credential,
            "DELETE /v1/credentials/{id}": self._delete_credential,
        }

    def _import_credential(self, request: Request, _: str) -> Response:
        body = read_body(request)
        require(body, CREDENTIAL)
        if errors := provider_errors(body, None):
            raise invalid(errors)
        return self._answers.created(self._views.encode_credential(upsert(self._store, body)))

    def _list_credentials(self, request: Request, _: str) -> Response:
        query = request.query()
        wanted = metadata_filter(query)
        return self._answers.listed(
            self._views.encode_credential(credential)
            for credential in self._store.credentials.values()
            if credential.provider == query.get("provider", credential.provider)
            and credential.properties["kind"] == query.get("kind", credential.properties["kind"])
            and contains(credential.metadata, wanted)
        )

    def _get_credential(self, _request: Request, id_: str) -> Response:
        return self._answers.found(self._views.encode_credential(self._credential(id_)))

    def _update_credential(self, request: Request, id_: str) -> Response:
        credential = self._credential(id_)
        body = read_body(request)
        require(body, CREDENTIAL_UPDATE)
        now = time.time()
        assign(credential, body, now)
        for sync in self._store.syncs_of(credential):
            self._store.syncs.touch(sync, now)
        return self._answers.found(self._views.encode_credential(credential))

    def _delete_credential(self, _request: Request, id_: str) -> Response:
        credential = self._credential(id_)
        if self._store.syncs_of(credential):
            raise ApiError(422, "The credential is still used by a sync", {})
        self._store.remove_credential(credential)
        return self._answers.deleted(credential.id)

    def _credential(self, id_: str) -> Credential:
        if (credential := self._store.credentials.get(id_)) is None:
            raise not_found("credential")
        return credential


def upsert(store: Store, body: JsonObject) -> Credential:
    """Remember a new credential, or renew the one known for the same account."""
    properties = body["properties"]
    given = {name: value for name, value in body.items() if name != "provider"}
    now = time.time()
    known = store.credential_of(properties)
    if known is None:
        provider = provider_of(properties["kind"]) or ""
        known = Credential(provider, created_at=now, updated_at=now, **given)
        store.add_credential(known)
        return known
    assign(known, given, now)
    for sync in store.syncs_of(known):
        sync.settle(now)
        store.syncs.touch(sync, now)
    return known


def provider_errors(credential: JsonObject, provider: str | None) -> FieldErrors:
    """Say whether the kind of a credential belongs to another provider."""
    owner = provider_of(credential["properties"]["kind"])
    stated = {provider, credential.get("provider")} - {None}
    return {} if stated <= {owner} else {"properties": {"kind": ["is of another provider"]}}
