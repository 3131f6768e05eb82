"""A consumer of the stream, as a customer of the Management API would write it: next, process, ack."""

import asyncio
from collections import Counter
from typing import Any, Final, NoReturn

import httpx

STREAM: Final = "customers"
BATCH: Final = 500
LOOK_EVERY_S: Final = 0.3
SAMPLES: Final = 3


class StreamReader:
    """Reads all records of the stream and counts them per tenant."""

    def __init__(self, client: httpx.AsyncClient, api_url: str, token: str) -> None:
        self._client = client
        self._url = f"{api_url}/v1"
        self._headers = {"authorization": f"Bearer {token}"}
        self._ids: dict[str, set[str]] = {}
        self.samples: list[dict[str, Any]] = []
        self.has_caught_up = False

    @property
    def records(self) -> Counter[str]:
        """How many different records each tenant has; delivery is at least once, so ids decide."""
        return Counter({external_id: len(ids) for external_id, ids in self._ids.items()})

    async def read(self) -> NoReturn:
        """Consume for ever, from the moment that the stream exists."""
        consumer = await self._consumer_of(await self._stream_id())
        while True:
            batch = await self._post(f"/http-consumers/{consumer}/next", {"batch_size": BATCH})
            for message in batch["data"]:
                self._take(message["record"])
            if batch["data"]:
                tokens = [message["ack_token"] for message in batch["data"]]
                await self._post(f"/http-consumers/{consumer}/ack", {"ack_tokens": tokens})
            self.has_caught_up = not batch["data"] and batch["info"]["num_pending"] == 0
            if not batch["data"]:
                await asyncio.sleep(LOOK_EVERY_S)

    def _take(self, record: dict[str, Any]) -> None:
        self._ids.setdefault(record["sync"]["external_id"], set()).add(record["id"])
        if len(self.samples) < SAMPLES:
            self.samples.append(record)

    async def _stream_id(self) -> str:
        while True:
            answer = await self._client.get(f"{self._url}/streams", headers=self._headers)
            answer.raise_for_status()
            for stream in answer.json()["data"]:
                if stream["slug"] == STREAM:
                    return str(stream["id"])
            await asyncio.sleep(LOOK_EVERY_S)

    async def _consumer_of(self, stream_id: str) -> str:
        consumer = await self._post("/http-consumers", {"stream_id": stream_id, "name": "demo"})
        return str(consumer["id"])

    async def _post(self, path: str, body: dict[str, object]) -> Any:
        answer = await self._client.post(f"{self._url}{path}", json=body, headers=self._headers)
        answer.raise_for_status()
        return answer.json() if answer.content else None
