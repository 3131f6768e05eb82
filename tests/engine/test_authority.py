"""Tokens that providers issue: renewed once however many ask, stored together, and never shown."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import httpx
import pytest
from sqlalchemy import Connection, event
from sqlmodel import col, update

from engine.authority import LEASE, Authority, RenewalUnderWayError
from engine.backfill.fetch import Access, FetchError
from engine.health import TroubleCode
from engine.issuer import WHOLE_ANSWER_S
from engine.oauth_apps import OAuthClient
from engine.providers.catalogue import Catalogue, load_catalogue
from engine.sealing import Safe
from engine.settings import ProviderOverrides, Settings
from engine.tables import Credential, Organization
from foundation.database import WRITES, Database, utc_now
from tests.engine.conftest import register
from tests.peers.providers.github import GitHub
from tests.peers.providers.hubspot import HubSpot
from tests.peers.providers.netsuite import NetSuite
from tests.peers.providers.salesforce import Salesforce

HOST = "https://choam.my.salesforce.com"


class KilledError(BaseException):
    """Stands in for SIGKILL: nothing of ours may catch it."""


@pytest.fixture
def authority(settings: Settings, database: Database, catalogue: Catalogue) -> Callable[..., Authority]:
    """Makes an authority as a worker process has one, with or without an app of the installation."""

    def authority(fake: Any, app: tuple[str, str] | None = None) -> Authority:
        return Authority(
            database=database,
            safe=Safe(settings.vault()),
            catalogue=catalogue,
            client=httpx.Client(transport=httpx.MockTransport(fake)),
            own_apps={name: OAuthClient(*app) for name in ("salesforce", "hubspot", "github")} if app else {},
        )

    return authority


@pytest.fixture
def imported(api: httpx.Client, database: Database) -> Callable[..., Callable[[], Credential]]:
    """Imports a credential; gives a function that reads its row anew."""

    def imported(properties: dict[str, Any], **more: Any) -> Callable[[], Credential]:
        answer = api.post("/v1/credentials", json={"properties": properties, **more})
        assert answer.status_code == 200, answer.text

        def row() -> Credential:
            with database.read() as session:
                return session.get_one(Credential, UUID(answer.json()["id"]))

        return row

    return imported


def salesforce(given: str = "refresh-0") -> dict[str, str]:
    return {"kind": "salesforce_oauth2", "instance_url": HOST, "refresh_token": given}


def let_leases_end(database: Database) -> None:
    with database.write() as session:
        session.exec(update(Credential).values(renewing_until=utc_now() - timedelta(seconds=1)))


def failure(work: Callable[[], Access]) -> tuple[TroubleCode, str]:
    with pytest.raises(FetchError) as caught:
        work()
    return caught.value.failure.code, caught.value.failure.message


def test_one_refresh_for_all(authority: Any, imported: Any) -> None:
    """Ten threads of several workers want a token at once: one asks, all get the same."""
    fake = Salesforce(rotates=True)
    row = imported(salesforce())
    workers = [authority(fake, fake.client) for _ in range(3)]
    together = threading.Barrier(10)
    credential = row()

    def ask(number: int) -> str:
        together.wait()
        return str(workers[number % 3].access(credential).token)

    with ThreadPoolExecutor(10) as pool:
        tokens = set(pool.map(ask, range(10)))

    assert tokens == {"access-1"}
    assert fake.issued == 1


def test_one_refresh_for_all_who_were_refused(authority: Any, imported: Any) -> None:
    """Ten requests met the same 401: the first to say so renews, the others take what it got."""
    fake = Salesforce(rotates=True)
    row = imported(salesforce())
    worker = authority(fake, fake.client)
    old = worker.access(row())
    credential = row()

    with ThreadPoolExecutor(10) as pool:
        renewed = list(pool.map(lambda _: worker.access(credential, instead_of=old).token, range(10)))

    assert set(renewed) == {"access-2"}
    assert fake.issued == 2


def test_issued_tokens_are_kept(authority: Any, imported: Any, api: httpx.Client) -> None:
    """A later worker finds the token; at rest it is sealed, over the API it does not appear."""
    fake = Salesforce()
    row = imported(salesforce())
    authority(fake, fake.client).access(row())

    token = authority(fake, fake.client).access(row()).token

    assert (token, fake.issued) == ("access-1", 1)
    assert "access-1" not in row().model_dump_json()
    assert "access-1" not in api.get(f"/v1/credentials/{row().id}").text


def test_rotation(authority: Any, imported: Any) -> None:
    """Each refresh token is used once and the next one kept; a provider that keeps its own is fine too."""
    fake = Salesforce(rotates=True)
    row = imported(salesforce())
    worker = authority(fake, fake.client)

    access = worker.access(row())
    for _ in range(3):
        access = worker.access(row(), instead_of=access)
    fake.rotates = False
    for _ in range(2):
        access = worker.access(row(), instead_of=access)

    assert access.token == "access-6"


def test_killed_between_refresh_and_store(
    authority: Any, imported: Any, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing of a turn is stored unless all is; when a dead worker's lease has ended, the next asks."""
    fake = Salesforce()
    row = imported(salesforce())
    with monkeypatch.context() as patched:
        patched.setattr(Safe, "seal_tokens", _killed)
        with pytest.raises(KilledError):
            authority(fake, fake.client).access(row())
    assert row().sealed_tokens is None
    assert row().renewing_until is not None
    let_leases_end(database)

    assert authority(fake, fake.client).access(row()).token == "access-2"
    assert row().renewing_until is None


def _killed(*_: object) -> None:
    raise KilledError


def test_a_turn_that_took_too_long_stores_nothing(authority: Any, imported: Any, database: Database) -> None:
    """Somebody else has renewed in the meantime, and that stays."""
    fake = HubSpot()
    row = imported({"kind": "hubspot_oauth2", "hub_id": 1, "refresh_token": "refresh-1"})
    other = authority(fake, fake.client)

    def overtaken(request: httpx.Request) -> httpx.Response:
        let_leases_end(database)
        answer = fake(request)
        assert other.access(row()).token == "access-2"
        return answer

    authority(overtaken, fake.client).access(row())

    assert other.access(row()).token == "access-2"


def test_a_rotated_refresh_token_is_kept(authority: Any, imported: Any, database: Database) -> None:
    """However late it comes: the one before it is used up, and who tried that again was refused."""
    fake = Salesforce(rotates=True)
    row = imported(salesforce())
    other = authority(fake, fake.client)

    def late(request: httpx.Request) -> httpx.Response:
        answer = fake(request)
        let_leases_end(database)
        assert failure(lambda: other.access(row()))[0] is TroubleCode.CREDENTIAL_REJECTED
        return answer

    assert authority(late, fake.client).access(row()).token == "access-1"

    assert other.access(row(), instead_of=Access("", "access-1")).token == "access-2"


def test_a_refusal_that_comes_too_late_counts_for_nothing(
    authority: Any, imported: Any, database: Database
) -> None:
    """Somebody else has used the refresh token meanwhile, and what that brought is good."""
    fake = Salesforce(rotates=True)
    row = imported(salesforce())
    other = authority(fake, fake.client)

    def overtaken(request: httpx.Request) -> httpx.Response:
        let_leases_end(database)
        assert other.access(row()).token == "access-1"
        return fake(request)

    assert authority(overtaken, fake.client).access(row()).token == "access-1"


def test_token_requests_are_over_before_their_lease() -> None:
    """By far, since storing what they brought takes a moment, too."""
    assert LEASE.total_seconds() >= WHOLE_ANSWER_S + 2


def test_waiting_ends(authority: Any, imported: Any, database: Database) -> None:
    """A worker that hangs keeps the others waiting for a while, and harms nothing."""
    fake = Salesforce()
    row = imported(salesforce())
    with database.write() as session:
        leased = update(Credential).where(col(Credential.id) == row().id)
        session.exec(leased.values(renewing_until=utc_now() + LEASE))
    worker = replace(authority(fake, fake.client), wait_s=0.1)

    with pytest.raises(RenewalUnderWayError), written(database) as writes:
        worker.access(row())

    assert fake.issued == 0
    assert writes == []


@contextmanager
def written(database: Database) -> Iterator[list[str]]:
    """Notes the statements of write transactions: on SQLite each would keep every other writer waiting."""
    writes = list[str]()

    def note(connection: Connection, _cursor: object, statement: str, *_: object) -> None:
        if connection.get_execution_options().get(WRITES, False) or "FOR " in statement:
            writes.append(statement)

    engines = {database._writer, database._reader}
    for engine in engines:
        event.listen(engine, "before_cursor_execute", note)
    try:
        yield writes
    finally:
        for engine in engines:
            event.remove(engine, "before_cursor_execute", note)


def test_invalid_grant(authority: Any, imported: Any) -> None:
    """A refused refresh token is the credential's trouble, and the message repeats no secret."""
    fake = Salesforce()
    row = imported(salesforce("revoked-token"))

    code, message = failure(lambda: authority(fake, fake.client).access(row()))

    assert code is TroubleCode.CREDENTIAL_REJECTED
    assert "revoked-token" not in message
    assert row().renewing_until is None


@pytest.mark.parametrize(
    "answer",
    [
        lambda _request: httpx.Response(503),
        lambda _request: httpx.Response(500, json={"error": "invalid_grant"}),
        lambda _request: httpx.Response(200, text="<html>"),
        lambda _request: httpx.Response(200, json=[]),
        lambda _request: httpx.Response(200, json={"access_token": ""}),
        lambda _request: (_ for _ in ()).throw(httpx.ReadTimeout("slow")),
    ],
)
def test_other_failures_pass(authority: Any, imported: Any, answer: Any) -> None:
    """A token endpoint in trouble is the provider's trouble; the next attempt asks again."""
    fake = Salesforce()
    row = imported(salesforce())

    code, _ = failure(lambda: authority(answer, fake.client).access(row()))

    assert code is TroubleCode.PROVIDER_UNAVAILABLE
    assert authority(fake, fake.client).access(row()).token == "access-1"


def test_registered_app(api: httpx.Client, authority: Any, imported: Any) -> None:
    """The credential's own OAuth app asks; a wrong secret is the app's trouble and shows in its health."""
    fake = Salesforce()
    app = {"provider": "salesforce", "name": "Choam", "client_id": "client-1", "client_secret": "wrong"}
    app_path = f"/v1/oauth-apps/{api.post('/v1/oauth-apps', json=app).json()['id']}"
    row = imported(salesforce(), oauth_app_id=app_path.rsplit("/", 1)[1])

    code, _ = failure(lambda: authority(fake, ("unused", "unused")).access(row()))
    assert code is TroubleCode.PROVIDER_UNAVAILABLE
    assert api.get(app_path).json()["health"]["status"] == "error"
    api.patch(app_path, json={"client_secret": "client-secret-1"})

    assert authority(fake).access(row()).token == "access-1"
    assert api.get(app_path).json()["health"]["status"] == "ok"


def test_unknown_app(authority: Any, imported: Any) -> None:
    """Without any app nobody can ask, and a person has to act."""
    row = imported(salesforce())

    code, message = failure(lambda: authority(Salesforce()).access(row()))

    assert code is TroubleCode.CREDENTIAL_REJECTED
    assert "No OAuth app" in message


def test_the_same_import_keeps_what_was_issued(authority: Any, imported: Any) -> None:
    """A repeated import brings back a refresh token that was used up; the newer one stays."""
    fake = Salesforce(rotates=True)
    row = imported(salesforce())
    worker = authority(fake, fake.client)
    access = worker.access(row())

    imported(salesforce())

    assert worker.access(row(), instead_of=access).token == "access-2"


def test_another_import_replaces_what_was_issued(authority: Any, imported: Any) -> None:
    """New secrets are a new beginning: nothing issued for the old ones is used."""
    fake = Salesforce()
    row = imported(salesforce())
    worker = authority(fake, fake.client)
    worker.access(row())
    fake.refresh_token = "given-anew"

    imported(salesforce("given-anew"))

    assert row().sealed_tokens is None
    assert worker.access(row()).token == "access-2"


@pytest.fixture
def installed(api: httpx.Client, imported: Any) -> Callable[[GitHub], Callable[[], Credential]]:
    """Imports an installation of an App that the organisation has registered."""

    def installed(fake: GitHub) -> Callable[[], Credential]:
        app_id = register(api, "github", OAuthClient(fake.app_id, fake.private_key))
        row: Callable[[], Credential] = imported(
            {"kind": "github_app", "installation_id": 77}, oauth_app_id=app_id
        )
        return row

    return installed


def test_installation_of_another_organisation(
    authority: Any, imported: Any, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever knows its number could have it, so the installation's own App serves the default one only."""
    fake = GitHub()
    row = imported({"kind": "github_app", "installation_id": 77})
    worker = authority(fake, (fake.app_id, fake.private_key))

    assert failure(lambda: worker.access(row()))[0] is TroubleCode.CREDENTIAL_REJECTED
    assert fake.requests == []

    with database.read() as session:
        name = session.get_one(Organization, row().org_id).name
    monkeypatch.setattr("engine.authority.DEFAULT_ORGANIZATION", name)
    assert worker.access(row()).token == "ghs_1"


def test_installation_tokens(authority: Any, installed: Any) -> None:
    """An app's token is kept for its hour and asked for again when refused."""
    fake = GitHub()
    row = installed(fake)
    worker = authority(fake)

    first, again = worker.access(row()), worker.access(row())
    renewed = worker.access(row(), instead_of=first)

    assert (first.token, again.token, renewed.token) == ("ghs_1", "ghs_1", "ghs_2")


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (401, TroubleCode.PROVIDER_UNAVAILABLE),
        (404, TroubleCode.CREDENTIAL_REJECTED),
        (403, TroubleCode.CREDENTIAL_REJECTED),
        (502, TroubleCode.PROVIDER_UNAVAILABLE),
    ],
)
def test_refused_installations(authority: Any, installed: Any, status: int, code: TroubleCode) -> None:
    """Gone or suspended is the credential's trouble; a signature that is not taken is the app's."""
    fake = GitHub()
    row = installed(fake)
    worker = authority(lambda _request: httpx.Response(status))

    assert failure(lambda: worker.access(row()))[0] is code


def netsuite(fake: NetSuite, **more: str) -> dict[str, str]:
    """What a credential of NetSuite's holds."""
    return {
        "kind": "netsuite_app",
        "account_id": "1234567-sb1",
        "client_id": fake.client_id,
        "certificate_id": fake.certificate_id,
        "private_key": fake.private_key,
    } | more


def test_clients_that_sign(authority: Any, imported: Any) -> None:
    """A client may show who it is with a signature, and needs no OAuth app."""
    fake = NetSuite()

    assert authority(fake).access(imported(netsuite(fake))()).token == "access-1"
    assert authority(fake).access(imported(netsuite(fake))()).token == "access-1"
    assert fake.tokens.issued == 1


@pytest.mark.parametrize(
    "wrong", [{"private_key": "none"}, {"certificate_id": "other"}, {"client_id": "other"}]
)
def test_clients_that_sign_wrongly(authority: Any, imported: Any, wrong: dict[str, str]) -> None:
    """Another key, or none, is the credential's trouble."""
    fake = NetSuite()
    row = imported(netsuite(fake, **wrong))

    code, message = failure(lambda: authority(fake).access(row()))

    assert code is TroubleCode.CREDENTIAL_REJECTED
    assert "import it again" in message or "no RSA key" in message


def test_operator_s_address_wins(settings: Settings, database: Database, imported: Any) -> None:
    """With an override everything goes there: the tokens, too, and whatever the credential says."""
    asked = []

    def anywhere(request: httpx.Request) -> httpx.Response:
        asked.append(str(request.url))
        return httpx.Response(200, json={"access_token": "a"})

    override = ProviderOverrides(base_url="http://127.0.0.1:9/")
    authority = Authority(
        database,
        Safe(settings.vault()),
        load_catalogue({"salesforce": override}),
        httpx.Client(transport=httpx.MockTransport(anywhere)),
        {"salesforce": OAuthClient("id", "secret")},
    )

    access = authority.access(imported(salesforce())())

    assert access.base_url == "http://127.0.0.1:9"
    assert asked == ["http://127.0.0.1:9/services/oauth2/token"]


def test_sealed_tokens_are_the_credential_s_own(
    settings: Settings, database: Database, authority: Any, imported: Any
) -> None:
    """Copied to another row they cannot be opened, and are as if they were not there."""
    fake = Salesforce()
    row = imported(salesforce())
    authority(fake, fake.client).access(row())
    other = imported({"kind": "hubspot_oauth2", "hub_id": 9, "refresh_token": "refresh-1"})()

    other.sealed_tokens = row().sealed_tokens

    assert Safe(settings.vault()).open_tokens(other) is None
