"""The servers of others: another Management API, and a provider to read from."""

import sys
from pathlib import Path
from typing import Any, Final, Self

import httpx

from tests.e2e.harness import HOST, Machine, free_port

PEERS: Final = Path(__file__).parent.parent / "peers"


class ContractApi:
    """The independent Management API server of `tests/peers`, with its operator's view."""

    TOKEN: Final = "contract-token-of-tests"

    def __init__(self, machine: Machine, *options: str, name: str = "contract-api") -> None:
        self.port = free_port()
        self.url = f"http://{HOST}:{self.port}"
        command = (
            sys.executable,
            PEERS / "contract_api.py",
            "--port",
            self.port,
            "--token",
            self.TOKEN,
            *options,
        )
        self.process = machine.add(name, command)
        self._machine = machine
        self._http = machine.client(self.url, self.TOKEN)

    def start(self) -> Self:
        self.process.start()
        self._machine.wait_for_port(self.port, "the contract API")
        return self

    def stats(self) -> dict[str, Any]:
        answer = self._http.get("/_double/stats", params={"group_by": "gangway_connection_id"})
        return dict(answer.raise_for_status().json())

    def log(self, limit: int = 10_000) -> list[dict[str, Any]]:
        return list(self._http.get("/_double/log", params={"limit": limit}).raise_for_status().json()["data"])

    def faults(self, **changes: object) -> None:
        """Change what goes wrong from now on."""
        self._http.post("/_double/faults", json=changes).raise_for_status()

    def refuse_credentials(self, *, refused: bool) -> None:
        """Have the provider refuse every credential there is, or end that."""
        self._http.post("/_double/refuse", json={"refused": refused}).raise_for_status()

    def syncs(self) -> list[dict[str, Any]]:
        return list(self._http.get("/v1/syncs").raise_for_status().json()["data"])


class BulkStripe:
    """Our provider of very many records, which counts who asks when; each key is an account of its own."""

    def __init__(self, machine: Machine, *, records: int, latency_ms: float = 0) -> None:
        self.port = free_port()
        self.url = f"http://{HOST}:{self.port}"
        size = ("--records", records, "--latency-ms", latency_ms)
        self.process = machine.add(
            "bulk-stripe", (sys.executable, PEERS / "bulk_stripe.py", "--port", self.port, *size)
        )
        self._machine = machine
        self._http = machine.client(self.url)

    def start(self) -> Self:
        self.process.start()
        self._machine.wait_for_port(self.port, "the bulk provider")
        return self

    def account(self, key: str) -> httpx.Client:
        """A client that sees and changes what this key reaches."""
        return self._machine.client(self.url, key)

    def requests(self) -> dict[str, list[float]]:
        """When each account was asked, by its id."""
        return dict(self._http.get("/_requests").raise_for_status().json())

    def most_under_way(self) -> dict[str, int]:
        """How many requests of each account were under way at the same time, at most."""
        return dict(self._http.get("/_most_under_way").raise_for_status().json())


class LocalStripe:
    """A Stripe-compatible server by other people, filled with customers."""

    def __init__(self, machine: Machine, *, customers: int, subscribers: int) -> None:
        self.port = free_port()
        self.url = f"http://{HOST}:{self.port}"
        size = ("--customers", customers, "--subscribers", subscribers)
        self.process = machine.add(
            "localstripe", (sys.executable, PEERS / "localstripe_server.py", "--port", self.port, *size)
        )
        self._machine = machine
        self._http = machine.client(self.url, "sk_test_of_the_tests")

    def start(self) -> Self:
        self.process.start()
        self._machine.wait_for_port(self.port, "localstripe")
        return self

    def ids(self, path: str) -> set[str]:
        """The ids of everything at this path, read page by page."""
        found: list[str] = []
        while True:
            after = {"starting_after": found[-1]} if found else {}
            page = self._http.get(path, params={"limit": 100, **after}).raise_for_status().json()
            found += [each["id"] for each in page["data"]]
            if not page["has_more"]:
                return set(found)


class OAuth2Provider:
    """django-oauth-toolkit with a small CRM behind it, and one application that may ask for access."""

    USER: Final = {"username": "ada", "password": "a password of the tests"}
    CLIENT: Final = {"client_id": "application-1", "client_secret": "a+secret%of the:tests"}

    def __init__(self, machine: Machine, port: int, *options: object) -> None:
        self.port = port
        self.url = f"http://{HOST}:{port}"
        home = machine.home / "provider"
        home.mkdir()
        command = (sys.executable, PEERS / "oauth2_server.py", "--home", home, "--port", port, *options)
        named = [
            (f"--{name.replace('_', '-')}", value) for name, value in {**self.USER, **self.CLIENT}.items()
        ]
        self.process = machine.add("provider", (*command, *(word for pair in named for word in pair)))
        self._http = machine.client(self.url)

    def objects(self, path: str) -> list[dict[str, Any]]:
        """Everything in a list, past all checks."""
        return list(self._state()["objects"][path])

    def refresh_tokens(self) -> dict[str, int]:
        """How many were issued, and how many of them are still good."""
        return dict(self._state()["refresh_tokens"])

    def change_contact(self, number: int, **properties: str) -> None:
        self._http.post(f"/_peer/contacts/{number}", json=properties).raise_for_status()

    def expire_access_tokens(self) -> None:
        """End all of them, earlier than was announced."""
        self._http.post("/_peer/expire").raise_for_status()

    def _state(self) -> dict[str, Any]:
        return dict(self._http.get("/_peer/state").raise_for_status().json())
