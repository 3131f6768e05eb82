"""A product, the engine and an OAuth2 provider, each on an origin of its own."""

from collections.abc import Callable
from contextlib import ExitStack
from typing import Final, Self

from engine.providers.catalogue import load_catalogue
from tests.e2e.connect.product import Product
from tests.e2e.harness import HOST, Machine, Redis, free_port
from tests.e2e.peers import OAuth2Provider
from tests.e2e.services import Engine

PROVIDER: Final = "hubspot"
COLLECTIONS: Final = {
    "hubspot:contact": "/crm/objects/2026-03/contacts",
    "hubspot:owner": "/crm/owners/2026-03",
}
LOOKS_EVERY_S: Final = "0.3"
LIFETIME_S: Final = 63
"""Of an access token: it is renewed a minute before its end, and so after three seconds."""

Origins = Callable[[str, int], str]


def plain(_name: str, port: int) -> str:
    """Without TLS, on different ports."""
    return f"http://{HOST}:{port}"


class Stage:
    """Everything that a customer's browser meets on its way, and what happens behind."""

    def __init__(self, machine: Machine, origins: Origins = plain) -> None:
        ports = {name: free_port() for name in ("product", "engine", "provider")}
        self.origins = {name: origins(name, port) for name, port in ports.items()}
        engine, provider = self.origins["engine"], self.origins["provider"]
        connect = load_catalogue({})[PROVIDER].connect
        scopes = connect.scopes if connect else ()
        self.callback_url = f"{engine}/link/oauth2/callback/{PROVIDER}"
        self.provider = OAuth2Provider(
            machine,
            ports["provider"],
            *("--origin", provider),
            *("--form-action", engine),
            *("--redirect-uri", self.callback_url),
            *("--scopes", " ".join(scopes)),
            *("--lifetime", LIFETIME_S),
        )
        prefix = f"providers__{PROVIDER}__"
        self._redis = Redis(machine)
        self.engine = Engine(
            machine,
            database_url=f"sqlite:///{machine.home}/engine.db",
            broker_url=self._redis.url,
            port=ports["engine"],
            public_url=engine,
            log_level="DEBUG",
            watch_floor_s=LOOKS_EVERY_S,
            watch_ceiling_s=LOOKS_EVERY_S,
            **{
                f"{prefix}authorize_url": f"{provider}/o/authorize/",
                f"{prefix}token_url": f"{self.provider.url}/o/token/",
                f"{prefix}base_url": self.provider.url,
            },
        )
        self.product = Product(ports["product"], self.origins["product"], engine, self.engine.url)
        self.machine = machine
        self._running = ExitStack()

    def __enter__(self) -> Self:
        self.provider.process.start()
        self._redis.start()
        self.engine.start()
        self.machine.wait_for_port(self.provider.port, "the provider")
        self._running.enter_context(self.product)
        self._register()
        return self

    def __exit__(self, *_: object) -> None:
        self._running.close()

    def _register(self) -> None:
        """Tell the engine of the product's application at the provider."""
        client = self.provider.CLIENT
        app = {"provider": PROVIDER, "name": "Product", "redirect_uris": [self.product.return_url], **client}
        answer = self.engine.http.post("/oauth-apps", json=app)
        self.product.app = answer.raise_for_status().json()
        self.product.client_secret = client["client_secret"]
