"""Run a provider that lists customers as Stripe does: very many, very fast, and it counts who asks when.

localstripe takes time in proportion to what it holds for every record it makes, so it cannot be large. This
one makes its customers up while it lists them; only those that were changed take memory. Each key has an
account of its own. Customers are created, updated and deleted by JSON bodies, and the events tell of it.
Charges, invoices and products are as many, and never change.
"""

import argparse
import asyncio
import hashlib
import json
import signal
import time
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

EPOCH: Final = 1_700_000_000
"""When the first customer was created; the others follow, one a second."""
LARGEST_PAGE: Final = 100
CUSTOMER: Final = (
    '{"id": "%s", "object": "customer", "address": {"city": "Lyon", "country": "FR", "line1": "Rue %d",'
    ' "line2": null, "postal_code": "69001", "state": null}, "balance": 0, "created": %d, "currency": "eur",'
    ' "default_source": null, "delinquent": false, "description": "Customer number %d", "discount": null,'
    ' "email": "customer-%d@example.com", "invoice_prefix": "INV%d", "livemode": false,'
    ' "metadata": {"number": "%d", "plan": "team"}, "name": "%s", "phone": null,'
    ' "preferred_locales": [], "shipping": null, "tax_exempt": "none", "test_clock": null}'
)
UNCHANGING: Final = '{"id": "%s_%s_%d", "object": "%s", "created": %d, "livemode": false, "metadata": {}}'


class Account:
    """What one key reaches."""

    def __init__(self, key: str, count: int) -> None:
        self.id = f"acct_{hashlib.sha256(key.encode()).hexdigest()[:12]}"
        self.prefix = f"cus_{self.id[5:]}"
        self.count = self.newest = count
        self.names = dict[int, str]()
        self.deleted = set[int]()
        self.events = list[dict[str, Any]]()
        self.asked_at = list[float]()
        """When something was read; who changes something is not who is counted."""
        self.under_way = 0
        self.most_under_way = 0

    def numbers(self, after: str | None) -> Iterator[int]:
        """Newest first, as the real one lists."""
        start = self.number(after) - 1 if after else self.newest
        return (number for number in range(start, 0, -1) if number not in self.deleted)

    def number(self, customer_id: str) -> int:
        """Raises `ValueError` for what is no id of a customer of this account."""
        prefix, _, number = customer_id.rpartition("_")
        if prefix != self.prefix or not 0 < int(number) <= self.newest:
            raise ValueError(customer_id)
        return int(number)

    def customer(self, number: int) -> str:
        name = self.names.get(number) or f"Customer {number}"
        numbers = (number, EPOCH + number, number, number, number, number)
        return CUSTOMER % (f"{self.prefix}_{number}", *numbers, name)

    def page(self, limit: int, after: str | None) -> str:
        numbers = self.numbers(after)
        listed = list(islice(numbers, limit))
        has_more = next(numbers, None) is not None
        return listing(", ".join(map(self.customer, listed)), "/v1/customers", has_more=has_more)

    def page_of_unchanging(self, name: str, limit: int, after: str | None) -> str:
        start = int(after.rpartition("_")[2]) if after else self.count + 1
        numbers = range(start - 1, max(start - 1 - limit, 0), -1)
        kind = name.removesuffix("s")
        listed = (UNCHANGING % (kind, self.id[5:], number, kind, EPOCH + number) for number in numbers)
        return listing(", ".join(listed), f"/v1/{name}", has_more=start - 1 > limit)

    def write(self, number: int, name: str, kind: str) -> str:
        self.names[number] = name
        self.tell(kind, number)
        return self.customer(number)

    def delete(self, number: int) -> str:
        self.tell("customer.deleted", number)
        self.deleted.add(number)
        return json.dumps({"id": f"{self.prefix}_{number}", "object": "customer", "deleted": True})

    def tell(self, kind: str, number: int) -> None:
        self.events.append(
            {
                "id": f"evt_{self.id[5:]}_{len(self.events) + 1}",
                "object": "event",
                "created": int(time.time()),
                "type": kind,
                "data": {"object": json.loads(self.customer(number))},
            }
        )

    def page_of_events(self, limit: int, after: str | None, since: int) -> str:
        told = [each for each in reversed(self.events) if each["created"] >= since]
        start = next((place for place, each in enumerate(told, 1) if each["id"] == after), 0)
        page = told[start : start + limit]
        has_more = len(told) > start + limit
        return listing(", ".join(map(json.dumps, page)), "/v1/events", has_more=has_more)


class Server:
    """Answers requests; keeps every account that ever asked."""

    def __init__(self, count: int, latency_s: float) -> None:
        self._count = count
        self._latency_s = latency_s
        self._accounts = dict[str, Account]()

    async def converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection until the other side ends it."""
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                request, *lines = head.split("\r\n")
                headers = dict(line.split(": ", 1) for line in lines if ": " in line)
                folded = {name.lower(): value for name, value in headers.items()}
                body = await reader.readexactly(int(folded.get("content-length", "0")))
                method, target, _ = request.split(" ")
                key = folded.get("authorization", "").removeprefix("Bearer ")
                status, answer = await self.attend(method, target, key, body)
                payload = answer.encode()
                writer.write(
                    b"HTTP/1.1 %d OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"
                    % (status, len(payload), payload)
                )
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async def attend(self, method: str, target: str, key: str, body: bytes) -> tuple[int, str]:
        """Status and body of the answer to one request, which is counted and takes its time."""
        if target == "/_requests":
            return 200, json.dumps({account.id: account.asked_at for account in self._accounts.values()})
        if target == "/_most_under_way":
            most = {account.id: account.most_under_way for account in self._accounts.values()}
            return 200, json.dumps(most)
        if not key.startswith("sk_test_"):
            return 401, json.dumps({"error": {"type": "invalid_request_error", "message": "Invalid API Key"}})
        account = self._accounts.setdefault(key, Account(key, self._count))
        if method == "GET":
            account.asked_at.append(time.monotonic())
        account.under_way += 1
        account.most_under_way = max(account.most_under_way, account.under_way)
        try:
            await asyncio.sleep(self._latency_s)
            return self.answer(account, method, target, body)
        finally:
            account.under_way -= 1

    def answer(self, account: Account, method: str, target: str, body: bytes) -> tuple[int, str]:
        url = urlsplit(target)
        query = {name: values[-1] for name, values in parse_qs(url.query).items()}
        try:
            return 200, route(account, method, url.path, query, body)
        except (ValueError, KeyError) as exc:
            return 404, json.dumps({"error": {"type": "invalid_request_error", "message": f"No such {exc}"}})


def route(account: Account, method: str, path: str, query: dict[str, str], body: bytes) -> str:
    """The body of the answer to what an account asked; raises `ValueError` when there is no such thing."""
    limit, after = min(int(query.get("limit", "10")), LARGEST_PAGE), query.get("starting_after")
    match method, path.removeprefix("/v1/").split("/"):
        case "GET", ["account"]:
            return json.dumps({"id": account.id, "object": "account"})
        case "GET", ["customers"]:
            return account.page(limit, after)
        case "GET", ["charges" | "invoices" | "products" as name]:
            return account.page_of_unchanging(name, limit, after)
        case "GET", ["events"]:
            return account.page_of_events(limit, after, int(query.get("created[gte]", "0")))
        case "POST", ["customers"]:
            account.newest += 1
            return account.write(account.newest, json.loads(body)["name"], "customer.created")
        case _, ["customers", customer_id] if account.number(customer_id) in account.deleted:
            raise ValueError(customer_id)
        case "GET", ["customers", customer_id]:
            return account.customer(account.number(customer_id))
        case "POST", ["customers", customer_id]:
            return account.write(account.number(customer_id), json.loads(body)["name"], "customer.updated")
        case "DELETE", ["customers", customer_id]:
            return account.delete(account.number(customer_id))
    raise ValueError(path)


def listing(data: str, path: str, *, has_more: bool) -> str:
    more = "true" if has_more else "false"
    return f'{{"object": "list", "url": "{path}", "has_more": {more}, "data": [{data}]}}'


async def serve(options: argparse.Namespace) -> None:
    """Listen, say where, and stop when asked to."""
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    server = Server(options.records, options.latency_ms / 1000)
    listener = await asyncio.start_server(server.converse, "127.0.0.1", options.port, backlog=1024)
    if options.port_file is not None:
        write_port(options.port_file, listener.sockets[0].getsockname()[1])
    await stopped.wait()
    listener.close()


def write_port(port_file: Path, port: int) -> None:
    """Write the port so that a reader sees all of it or nothing."""
    draft = port_file.with_name(f"{port_file.name}.draft")
    draft.write_text(f"{port}\n")
    draft.replace(port_file)


def main(argv: Sequence[str] | None = None) -> None:
    """Serve until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--port-file", type=Path, help="gets the port once the server listens")
    parser.add_argument("--records", type=int, default=50_000, help="customers of each account")
    parser.add_argument("--latency-ms", type=float, default=0, help="how long each answer takes at least")
    asyncio.run(serve(parser.parse_args(argv)))


if __name__ == "__main__":
    main()
