"""The customers of the demo and the signed webhooks that announce them."""

import asyncio
import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

import httpx

from worker.cli.sending import signed_headers

NAMES: Final = (
    *("Amber Bakery", "Birch Logistics", "Cobalt Books", "Dune Outfitters", "Ember Coffee"),
    *("Fjord Travel", "Garnet Games", "Harbor Health", "Indigo Press", "Juniper Labs"),
    *("Kestrel Air", "Lagoon Spa", "Maple Homes", "Nimbus Hosting", "Opal Jewels"),
    *("Pine Furniture", "Quartz Clocks", "Raven Security", "Sable Studio", "Tundra Foods"),
    *("Umber Paints", "Violet Flowers", "Willow Schools", "Xenon Lighting", "Yarrow Farms"),
)
WITH_WRONG_KEY: Final = "org_13"
AT_ONCE: Final = 8


@dataclass(frozen=True)
class Signup:
    """A customer who signs up with a key of their own."""

    external_id: str
    name: str
    key: str = field(repr=False)

    def event(self, now: datetime) -> bytes:
        properties = {"kind": "stripe_key", "name": self.name, "secret": self.key, "test": True}
        data = {
            "external_id": self.external_id,
            "name": self.name,
            "plan": "default",
            "connections": [{"provider": "stripe", "credential": {"properties": properties}}],
        }
        event = {"type": "tenant.created", "timestamp": now.isoformat(), "data": data}
        return json.dumps(event).encode()


class SignupRefusedError(Exception):
    """The intake did not accept a signup; carries its answer."""


def make_signups() -> list[Signup]:
    """Fresh signups. One key is not of the form that the server takes for a key."""
    ids = [f"org_{number:02}" for number in range(1, len(NAMES) + 1)]
    prefixes = ["not_a_key" if external_id == WITH_WRONG_KEY else "sk_test" for external_id in ids]
    keys = [f"{prefix}_{secrets.token_hex(12)}" for prefix in prefixes]
    return [Signup(*parts) for parts in zip(ids, NAMES, keys, strict=True)]


async def send_all(client: httpx.AsyncClient, url: str, secret: str, signups: Sequence[Signup]) -> None:
    """Post every signup, some at a time, as a busy afternoon would."""
    room = asyncio.Semaphore(AT_ONCE)

    async def send(signup: Signup) -> None:
        body = signup.event(datetime.now(UTC))
        headers = signed_headers(body, secret, f"msg_{signup.external_id}")
        async with room:
            answer = await client.post(url, content=body, headers=headers)
        if answer.status_code != httpx.codes.ACCEPTED:
            raise SignupRefusedError(f"{signup.external_id}: {answer.status_code} {answer.text}")

    await asyncio.gather(*(send(signup) for signup in signups))
