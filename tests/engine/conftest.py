"""An engine on a fresh database, SQLite and PostgreSQL alike, with the network replaced."""

import socket
import ssl
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import fakeredis
import httpx
import pytest
import uvicorn
from pydantic import SecretStr
from sqlalchemy import create_engine, make_url, text

from engine.access import create_organization
from engine.api import create_app
from engine.backfill.pace import Pace
from engine.backfill.reader import Reader
from engine.hints import READ
from engine.oauth_apps import OAuthClient
from engine.providers.catalogue import Catalogue, load_catalogue
from engine.schema import migrate
from engine.sealing import Safe
from engine.settings import ProviderOverrides, Settings
from engine.tables import Scope
from engine.tokens import issue
from foundation.database import Database
from foundation.vault import generate_key
from tests.engine.provider_cases import FAST, Case
from tests.engine.watching import Account, Watched

PROVIDER_URL = "http://provider.test"
TLS = ssl.create_default_context()
"""Nothing here is encrypted, but each client of its own would take 30 ms to prepare for it."""
SLICE_S = 30.0
"""No slice is over before everything is read, however busy the machine."""


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated SQLite file to copy."""
    path = tmp_path_factory.mktemp("sqlite") / "template.db"
    database = Database(f"sqlite:///{path}")
    migrate(database)
    database.dispose()
    return path


@pytest.fixture(scope="session")
def postgresql_template(postgresql_server: str) -> str:
    """The URL of the real PostgreSQL server, on which the database `template_engine` is migrated."""
    run(postgresql_server, "CREATE DATABASE template_engine")
    database = Database(make_url(postgresql_server).set(database="template_engine"))
    migrate(database)
    database.dispose()
    return postgresql_server


def run(url: str, statement: str) -> None:
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(statement))
    engine.dispose()


@pytest.fixture(scope="session", params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> str:
    """The URL of a migrated database of each kind. Tests share it, each in an organisation of its own."""
    if request.param == "sqlite":
        return f"sqlite:///{request.getfixturevalue('sqlite_template')}"
    server: str = request.getfixturevalue("postgresql_template")
    return make_url(server).set(database="template_engine").render_as_string(hide_password=False)


@pytest.fixture(scope="session")
def settings(database_url: str) -> Settings:
    return Settings(
        database_url=SecretStr(database_url),
        broker_url=SecretStr("redis://127.0.0.1:1/0"),
        vault_keys=SecretStr(generate_key()),
        tokens=(SecretStr("a-token-of-the-default-organisation"),),
        providers={"stripe": ProviderOverrides(base_url=PROVIDER_URL)},
    )


@dataclass
class RecordedHints:
    """Stands in for the relay and remembers what it was given."""

    given: list[tuple[str, UUID]] = field(default_factory=list)

    def give(self, task: str, ids: Iterable[UUID]) -> None:
        self.given += [(task, each) for each in ids]

    def of(self, task: str) -> list[UUID]:
        return [each for name, each in self.given if name == task]


@dataclass
class Upstream:
    """A provider in memory that behaves as its documentation says; `interfere` may answer instead."""

    objects: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    account: str | None = "acct_1"
    requests: list[httpx.Request] = field(default_factory=list)
    interfere: Callable[[httpx.Request], httpx.Response | None] = lambda _request: None

    def fill(self, path: str, count: int, created: int = 1_700_000_000) -> None:
        """Newest first, as the real one lists."""
        self.objects[path] = [
            {
                "id": f"{path.rsplit('/', 1)[1][:3]}_{number}",
                "created": created + number,
                "name": f"n{number}",
            }
            for number in reversed(range(count))
        ]

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        if (answer := self.interfere(request)) is not None:
            return answer
        if request.url.path == "/v1/account":
            return httpx.Response(200, json={"id": self.account}) if self.account else httpx.Response(404)
        if request.url.path not in self.objects:
            return httpx.Response(404, json={"error": "no such path"})
        return self._page(request.url.path, request.url.params)

    def _page(self, path: str, params: Mapping[str, str]) -> httpx.Response:
        ids = [each["id"] for each in self.objects[path]]
        start = ids.index(params["starting_after"]) + 1 if "starting_after" in params else 0
        page = self.objects[path][start : start + int(params["limit"])]
        more = start + len(page) < len(ids)
        return httpx.Response(200, json={"object": "list", "data": page, "has_more": more})


@pytest.fixture
def upstream() -> Upstream:
    return Upstream()


@pytest.fixture
def hints() -> RecordedHints:
    return RecordedHints()


@dataclass
class Surroundings:
    """What the server of all tests sees of the test that is running."""

    hints: RecordedHints = field(default_factory=RecordedHints)
    upstream: Upstream = field(default_factory=Upstream)

    def give(self, task: str, ids: Iterable[UUID]) -> None:
        self.hints.give(task, ids)

    def answer(self, request: httpx.Request) -> httpx.Response:
        return self.upstream(request)


@contextmanager
def serving(
    settings: Settings, surroundings: Surroundings, stopping: threading.Event | None = None
) -> Iterator[str]:
    """A real server on a free port; gives its URL."""
    transport = httpx.MockTransport(surroundings.answer)
    app = create_app(settings, hints=surroundings, transport=transport, stopping=stopping)
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, timeout_graceful_shutdown=1))
    listener = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive(), "the server did not start"
            time.sleep(0.01)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


@pytest.fixture(scope="session")
def surroundings() -> Surroundings:
    return Surroundings()


@pytest.fixture(scope="session")
def server(settings: Settings, surroundings: Surroundings) -> Iterator[str]:
    with serving(settings, surroundings) as url:
        yield url


@pytest.fixture
def api(
    server: str,
    settings: Settings,
    database: Database,
    surroundings: Surroundings,
    hints: RecordedHints,
    upstream: Upstream,
) -> Iterator[httpx.Client]:
    """A client of the API with a token of a new organisation."""
    surroundings.hints, surroundings.upstream = hints, upstream
    token = new_organization(database, settings)
    with client_of(server, token) as client:
        yield client


def client_of(server: str, token: str | None = None) -> httpx.Client:
    """Somebody who calls the API, with cookies of their own."""
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    return httpx.Client(base_url=server, headers=headers, timeout=30, verify=TLS)


def new_organization(database: Database, settings: Settings, scopes: Collection[Scope] = tuple(Scope)) -> str:
    """Add an organisation and give its token."""
    with database.write() as session:
        organization = create_organization(session, settings.vault(), str(uuid4()))
        return issue(session, organization.id, "test", scopes)[1]


@pytest.fixture(scope="session")
def database(settings: Settings) -> Iterator[Database]:
    """A second way into the API's database, as a worker has."""
    database = Database(settings.database_url.get_secret_value())
    yield database
    database.dispose()


@pytest.fixture(scope="session")
def catalogue() -> Catalogue:
    """All providers; reading their files takes a while."""
    return load_catalogue({})


@pytest.fixture(scope="session")
def redirected(settings: Settings) -> Catalogue:
    """The same, with what the settings override."""
    return load_catalogue(settings.providers)


@pytest.fixture
def reader(
    settings: Settings, database: Database, redirected: Catalogue, upstream: Upstream
) -> Iterator[Reader]:
    """A worker's reader on the same database, whose requests reach the upstream in memory."""
    with httpx.Client(transport=httpx.MockTransport(upstream)) as client:
        yield Reader(
            database=database,
            safe=Safe(settings.vault()),
            catalogue=redirected,
            pace=Pace(fakeredis.FakeRedis()),
            client=client,
            slice_s=SLICE_S,
        )


@pytest.fixture
def stream(api: httpx.Client) -> str:
    """The id of a stream."""
    answer = api.post("/v1/streams", json={"slug": "main"})
    assert answer.status_code == 200
    return str(answer.json()["id"])


@pytest.fixture
def sync_body(stream: str) -> dict[str, Any]:
    """The create example of the reference."""
    return {
        "provider": "stripe",
        "stream_id": stream,
        "name": "Choam Corp - Stripe Production",
        "collection_ids": ["stripe:customer", "stripe:invoice"],
        "rate_limit": {"allowed_requests": 100, "interval": 60, "max_concurrent_requests": 0},
        "credential": {
            "properties": {
                "kind": "stripe_oauth2",
                "secret": "sk_live_7eC39HqLyjWDarjtT1zdp7dc",
                "test": True,
                "name": "Choam Corp - Stripe [Test]",
            },
            "oauth_app_id": "8ff58ef0-d376-4ae8-b2e2-9f0206aa65b8",
            "metadata": {"custom_credential_property": 42},
        },
        "metadata": {"custom_property": 42},
        "external_id": "org_1",
    }


@pytest.fixture
def other(server: str, settings: Settings, database: Database) -> Iterator[httpx.Client]:
    """A client of another organisation."""
    with client_of(server, new_organization(database, settings)) as client:
        yield client


@pytest.fixture
def browser(server: str) -> Iterator[httpx.Client]:
    """Somebody without a token."""
    with client_of(server) as client:
        yield client


@pytest.fixture
def serve(surroundings: Surroundings) -> Callable[..., AbstractContextManager[str]]:
    """Starts another server, with other settings."""
    return partial(serving, surroundings=surroundings)


@pytest.fixture
def worker(settings: Settings, database: Database, catalogue: Catalogue) -> Callable[[Case], Reader]:
    """Makes a worker's reader whose requests reach the fake."""

    def worker(case: Case) -> Reader:
        return Reader(
            database=database,
            safe=Safe(settings.vault()),
            catalogue=catalogue,
            pace=Pace(fakeredis.FakeRedis()),
            client=httpx.Client(transport=httpx.MockTransport(case.fake)),
            own_apps={case.provider: case.app} if case.app else {},
            slice_s=SLICE_S,
        )

    return worker


def register(api: httpx.Client, provider: str, app: OAuthClient) -> str:
    """The id of an organisation's own OAuth app."""
    told = {
        "provider": provider,
        "name": "own",
        "client_id": app.client_id,
        "client_secret": app.client_secret,
    }
    answer = api.post("/v1/oauth-apps", json=told)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["id"])


@pytest.fixture
def start(api: httpx.Client, hints: Any, stream: str, upstream: Any) -> Callable[..., tuple[str, list[UUID]]]:
    """Create a sync of everything a case expects; gives its path and its readings."""

    def start(case: Case, *collections: str) -> tuple[str, list[UUID]]:
        upstream.interfere = case.fake
        app_id = register(api, "github", case.app) if case.app and case.provider == "github" else None
        body = {
            "provider": case.provider,
            "stream_id": stream,
            "name": "Choam",
            "collection_ids": collections or list(case.expected),
            "rate_limit": FAST,
            "credential": {"properties": case.properties, "oauth_app_id": app_id},
        }
        answer = api.post("/v1/syncs", json=body)
        assert answer.status_code == 200, answer.text
        return f"/v1/syncs/{answer.json()['id']}", hints.of(READ)[-len(body["collection_ids"]) :]

    return start


@pytest.fixture
def account(upstream: Any) -> Account:
    return Account(upstream)


@pytest.fixture
def watch(
    api: httpx.Client, database: Database, reader: Reader, sync_body: dict[str, Any], account: Account
) -> Callable[..., Watched]:
    def watch(*collection_ids: str, **more: Any) -> Watched:
        body = sync_body | {"collection_ids": list(collection_ids or ["stripe:customer"]), "rate_limit": None}
        watched = Watched(api, database, reader, body | more)
        watched.backfill()
        return watched

    return watch
