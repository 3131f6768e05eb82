"""`POST /webhooks/app`: check the signature, store the customer, announce it, answer 202.

Requests that wait at the same time share a transaction: one thread writes for all of them.
"""

import asyncio
import queue
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from standardwebhooks.webhooks import Webhook, WebhookVerificationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from benchmarks.rival import store
from benchmarks.rival.actors import capture
from benchmarks.rival.settings import WEBHOOK_SECRET

MOST_AT_ONCE: Final = 64
_webhook = Webhook(WEBHOOK_SECRET)
Waiting = tuple[store.Signup, "asyncio.Future[None]"]
_waiting: "queue.SimpleQueue[Waiting]" = queue.SimpleQueue()


async def receive(request: Request) -> JSONResponse:
    body = await request.body()
    try:
        event = _webhook.verify(body, dict(request.headers))
    except WebhookVerificationError as exc:
        return JSONResponse({"error": str(exc)}, 401)
    try:
        data = event["data"]
        wish = data["connections"][0]
        secret = wish["credential"]["properties"]["secret"]
        signup = store.Signup(data["external_id"], data["name"], wish["provider"], secret)
    except (KeyError, IndexError, TypeError):
        return JSONResponse({"error": "not a signup"}, 422)
    stored = asyncio.get_running_loop().create_future()
    _waiting.put((signup, stored))
    await stored
    return JSONResponse({"status": "accepted"}, 202)


async def health(_request: Request) -> JSONResponse:
    return JSONResponse({"status": "ok"})


def write(loop: asyncio.AbstractEventLoop) -> None:
    """Store and announce what waits, for ever."""
    while True:
        batch = [_waiting.get()]
        while len(batch) < MOST_AT_ONCE and not _waiting.empty():
            batch.append(_waiting.get())
        error: Exception | None = None
        try:
            for connection_id in store.add(signup for signup, _ in batch):
                capture.send(connection_id)
        except Exception as exc:  # noqa: BLE001  # it becomes the answer of each request
            error = exc
        loop.call_soon_threadsafe(answer, batch, error)


def answer(batch: list[Waiting], error: Exception | None) -> None:
    for _, stored in batch:
        if stored.done():
            continue
        if error is None:
            stored.set_result(None)
        else:
            stored.set_exception(error)


@asynccontextmanager
async def lifespan(_app: Starlette) -> AsyncIterator[None]:
    store.create_tables()
    threading.Thread(target=write, args=(asyncio.get_running_loop(),), daemon=True).start()
    yield


app = Starlette(
    routes=[Route("/webhooks/app", receive, methods=["POST"]), Route("/healthz", health)], lifespan=lifespan
)
