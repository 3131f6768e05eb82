"""Accounts that change while they are read: many customers each, whose names tell their versions."""

import random
from collections.abc import Iterator, Sequence
from typing import Any

import httpx

from tests.e2e.peers import BulkStripe


class Upstream:
    """Several accounts, changed at random but the same for the same seed."""

    def __init__(self, stripe: BulkStripe, keys: Sequence[str], records: int, seed: int) -> None:
        self._draw = random.Random(seed)  # noqa: S311  # repeatable
        self._accounts = [stripe.account(key) for key in keys]
        self._records = records
        self._alive: dict[int, list[str]] = {}
        self.touched = set[str]()
        self.versions = 0

    def change(self) -> None:
        """Create, rename or delete one."""
        self.versions += 1
        number = self._draw.randrange(len(self._accounts))
        account, name = self._accounts[number], {"name": f"v{self.versions}"}
        alive = self._alive.get(number)
        if alive is None or self._draw.random() < 0.2:
            created = account.post("/v1/customers", json=name).raise_for_status().json()["id"]
            prefix = created.rpartition("_")[0]
            alive = self._alive.setdefault(number, [f"{prefix}_{n}" for n in range(1, self._records + 1)])
            alive.append(created)
            self.touched.add(created)
            return
        place = self._place(alive)
        self.touched.add(alive[place])
        if self._draw.random() < 0.25:
            account.delete(f"/v1/customers/{alive.pop(place)}").raise_for_status()
        else:
            account.post(f"/v1/customers/{alive[place]}", json=name).raise_for_status()

    def _place(self, alive: list[str]) -> int:
        """Often one of the newest, who are read first and changed again and again."""
        return self._draw.randrange(-20, 0) if self._draw.random() < 0.3 else self._draw.randrange(len(alive))

    def customers(self) -> dict[str, Any]:
        """Everything there is now, by id."""
        return {each["id"]: each for account in self._accounts for each in self._list(account)}

    def _list(self, account: httpx.Client) -> Iterator[dict[str, Any]]:
        after: dict[str, str] = {}
        while True:
            asked = {"limit": "100", **after}
            page = account.get("/v1/customers", params=asked).raise_for_status().json()
            yield from page["data"]
            if not page["has_more"]:
                return
            after = {"starting_after": page["data"][-1]["id"]}
