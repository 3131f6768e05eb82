"""A burst of signed signups over kept-alive connections, prepared beforehand so that sending is cheap."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

import aiohttp

from worker.cli.sending import signed_headers
from worker.demo.signups import Signup

ACCEPTED: Final = 202
COME_BACK_LATER: Final = (429, 503)
PATIENCE: Final = aiohttp.ClientTimeout(total=60)


@dataclass(frozen=True, slots=True)
class Message:
    """One signed webhook, ready to be sent."""

    external_id: str
    body: bytes
    headers: dict[str, str]


@dataclass
class Sent:
    """When each signup was sent, by the clock of the rows, and how long its answer took."""

    at: dict[str, float] = field(default_factory=dict)
    ack_s: list[float] = field(default_factory=list)
    """From the first try to the acceptance."""
    refused: int = 0
    """Answers that asked to come back later, as senders of webhooks do."""


def signups(count: int, secret: str) -> list[Message]:
    """As many customers, each with a key of its own."""
    return [_message(number, secret) for number in range(count)]


def _message(number: int, secret: str) -> Message:
    signup = Signup(f"org_{number}", f"Customer {number}", f"sk_test_benchmark{number:08}")
    body = signup.event(datetime.now(UTC))
    return Message(signup.external_id, body, signed_headers(body, secret, f"msg_{number}"))


async def send(url: str, messages: Sequence[Message], connections: int) -> Sent:
    """Post each message until it is accepted, over so many connections; raises if one is turned down."""
    sent = Sent()
    waiting = iter(messages)
    connector = aiohttp.TCPConnector(limit=connections, keepalive_timeout=60)
    async with aiohttp.ClientSession(connector=connector, timeout=PATIENCE) as session:

        async def sender() -> None:
            for message in waiting:
                sent.at[message.external_id] = time.time()
                began = time.perf_counter()
                while (wait_s := await _post(session, url, message)) is not None:
                    sent.refused += 1
                    await asyncio.sleep(wait_s)
                sent.ack_s.append(time.perf_counter() - began)

        await asyncio.gather(*(sender() for _ in range(connections)))
    return sent


async def _post(session: aiohttp.ClientSession, url: str, message: Message) -> float | None:
    """Send it once; returns how long to wait if it is to be sent again."""
    async with session.post(url, data=message.body, headers=message.headers) as answer:
        text = await answer.text()
    if answer.status == ACCEPTED:
        return None
    if answer.status in COME_BACK_LATER:
        return float(answer.headers.get("retry-after", "1"))
    raise RuntimeError(f"{message.external_id}: {answer.status} {text[:200]}")
