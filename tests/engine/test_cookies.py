"""No cookie is kept or sent: one client serves all customers."""

import ast
import asyncio
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Final

import pytest

import engine
from engine.backfill.fetch import TIMEOUT, Access, FetchError, get
from engine.clients import new_client
from engine.connect.exchange import Exchange
from engine.issuer import Issuer
from engine.oauth_apps import OAuthClient
from engine.providers.auth import Refresh
from engine.providers.catalogue import load_catalogue
from engine.providers.connect import Connect
from engine.providers.identity import Accounts
from engine.providers.walk import Request
from engine.settings import ProviderOverrides

HOSTILE: Final = (
    [("Set-Cookie", "sid=A; Path=/"), ("Set-Cookie", "__cf_bm=1; Path=/; Max-Age=9999")],
    [("Set-Cookie", b"x=\xe9\xff; Path=/".decode("latin-1"))],
    [("Set-Cookie", f"c{n}={'v' * 4_000}; Path=/") for n in range(15)],
)
TOLD: Final = b'{"id": "acct_1", "data": [], "has_more": false, "access_token": "t", "expires_in": 60}'


class Fake(ThreadingHTTPServer):
    """A provider that sets cookies with every answer and notes those it gets."""

    def __init__(self, cookies: list[tuple[str, str]]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.set_cookies = cookies
        self.seen: list[str | None] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: Fake

    def do_GET(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.seen.append(self.headers.get("Cookie"))
        self.send_response(200)
        for name, value in self.server.set_cookies:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(TOLD)))
        self.end_headers()
        self.wfile.write(TOLD)

    def do_POST(self) -> None:
        self.do_GET()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture(params=HOSTILE, ids=["ordinary", "no ASCII", "many"])
def fake(request: pytest.FixtureRequest) -> Iterator[Fake]:
    with Fake(request.param) as fake:
        thread = Thread(target=fake.serve_forever, args=(0.01,))
        thread.start()
        yield fake
        fake.shutdown()
        thread.join()


def test_the_reader_sends_no_cookie(fake: Fake) -> None:
    """Requests with the token of B do not carry what an answer to A has set; nothing set breaks them."""
    provider = load_catalogue({})["stripe"]

    with new_client(connections=1, timeout=TIMEOUT) as client:
        for token in "ABABA":
            get(client, provider, "stripe:customer", Access(fake.url, token), Request("/v1/customers"))

    assert fake.seen == [None] * 5


@pytest.mark.parametrize("fake", [[("Set-Cookie", f"c{n}={'v' * 4_000}") for n in range(300)]], indirect=True)
def test_an_answer_of_cookies_alone_costs_no_later_request(fake: Fake) -> None:
    """A megabyte of them is more than a head may have; the next request goes through."""
    provider, access = load_catalogue({})["stripe"], Access(fake.url, "A")

    with new_client(connections=1, timeout=TIMEOUT) as client:
        with pytest.raises(FetchError):
            get(client, provider, "stripe:customer", access, Request("/v1/customers"))
        fake.set_cookies = []
        get(client, provider, "stripe:customer", access, Request("/v1/customers"))

    assert fake.seen == [None] * 2


def test_the_issuer_sends_no_cookie(fake: Fake) -> None:
    """The same client asks for tokens."""
    provider = load_catalogue({})["quickbooks"]
    kind = next(each for each in provider.credential_kinds.values() if isinstance(each.grant, Refresh))
    grant = kind.grant.model_copy(update={"token_url": f"{fake.url}/token"})

    with new_client(connections=1, timeout=TIMEOUT) as client:
        for token in "ABA":
            issuer = Issuer(client, provider, grant, fake.url, {})
            issuer.issue(OAuthClient("id", "secret"), token)

    assert fake.seen == [None] * 3


def test_accounts_sends_no_cookie(fake: Fake) -> None:
    """Asking whose credential it is keeps nothing of the answer."""
    provider = load_catalogue({"stripe": ProviderOverrides(base_url=fake.url)})["stripe"]

    async def ask() -> None:
        accounts = Accounts()
        for token in "ABA":
            assert await accounts.told(provider, "stripe_key", {}, token)
        await accounts.aclose()

    asyncio.run(ask())

    assert fake.seen == [None] * 3


def test_exchange_sends_no_cookie(fake: Fake) -> None:
    """Codes of different customers are exchanged with nothing in common."""
    connect = Connect(
        kind="stripe_oauth2",
        authorize_url=fake.url,
        token_url=f"{fake.url}/token",
        properties={"secret": "access_token"},
    )

    async def ask() -> None:
        exchange, app = Exchange(), OAuthClient("id", "secret")
        for code in "ABA":
            await exchange.tokens(connect, app, code=code, redirect_uri="x", verifier="v", inputs={})
        await exchange.aclose()

    asyncio.run(ask())

    assert fake.seen == [None] * 3


def test_no_other_place_builds_a_client() -> None:
    """Whoever builds a client elsewhere would forget that cookies are not kept."""
    root = Path(engine.__file__).parent
    builders = {path.relative_to(root).as_posix() for path in root.rglob("*.py") if builds_client(path)}

    assert builders == {"clients.py"}


CALLS: Final = frozenset({"Client", "AsyncClient", "get", "post", "put", "patch", "request", "stream"})
OTHERS: Final = frozenset({"aiohttp", "requests", "urllib3", "urllib.request", "http.client"})


def builds_client(path: Path) -> bool:
    """Whether a module lets httpx make a client, or imports another library that makes requests."""
    return any(is_client(node) for node in ast.walk(ast.parse(path.read_text())))


def is_client(node: ast.AST) -> bool:
    match node:
        case ast.Call(func=ast.Attribute(value=ast.Name(id="httpx"), attr=name)):
            return name in CALLS
        case ast.Import(names=names):
            return any(each.name in OTHERS for each in names)
        case ast.ImportFrom(module="httpx", names=names):
            return any(each.name in CALLS for each in names)
        case ast.ImportFrom(module="urllib.request", names=names):
            return any(each.name != "Request" for each in names)
        case ast.ImportFrom(module=module):
            return module in OTHERS
        case _:
            return False
