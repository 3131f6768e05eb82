"""The steps of one customer, each a message: capture, create, then polls a second apart.

Tuned, one message captures and creates, new customers go before polls, and no middleware is left that the
job does not need.
"""

from typing import Any, Final

import dramatiq
from dramatiq.brokers.redis import RedisBroker
from dramatiq.middleware import CurrentMessage, Middleware, Retries, default_middleware

from benchmarks.rival import api, store
from benchmarks.rival.settings import BROKER_URL, POLL_EVERY_MS, TUNED

RETRIES: Final = Retries(max_retries=50, min_backoff=200, max_backoff=30_000)
ONBOARDING: Final[dict[str, Any]] = {"queue_name": "onboarding", "priority": 0} if TUNED else {}
POLLING: Final[dict[str, Any]] = {"queue_name": "polling", "priority": 1} if TUNED else {}


def middleware() -> list[Middleware]:
    usual = () if TUNED else default_middleware
    others = [make() for make in usual if make is not Retries]
    return [*others, CurrentMessage(), RETRIES]


broker = RedisBroker(url=BROKER_URL, middleware=middleware())
dramatiq.set_broker(broker)


@dramatiq.actor(**ONBOARDING)
def capture(connection_id: str) -> None:
    """Import the credential."""
    row = store.get(connection_id)
    if row.state == "requested":
        row = store.captured(row, api.import_credential(row))
    if TUNED:
        go_on(row)
    else:
        create.send(connection_id)


@dramatiq.actor(**ONBOARDING)
def create(connection_id: str) -> None:
    """Create the sync."""
    go_on(store.get(connection_id))


@dramatiq.actor(**POLLING)
def poll(connection_id: str) -> None:
    """Look at the sync; look again in a second unless it is complete."""
    sync_id = store.sync_id_of(connection_id)
    if sync_id is None:
        return
    if api.is_complete(sync_id):
        store.ready(connection_id)
    else:
        poll_later(connection_id)


def go_on(row: store.Row) -> None:
    """Create the sync, or take over the one that an earlier try created."""
    if row.state == "captured":
        store.created(row, (has_been_tried() and api.find_sync(row)) or api.create_sync(row))
    poll_later(row.id)


def poll_later(connection_id: str) -> None:
    poll.send_with_options(args=(connection_id,), delay=POLL_EVERY_MS)


def has_been_tried() -> bool:
    """Whether an earlier try of this message may have created the sync."""
    message = CurrentMessage.get_current_message()
    return message is not None and message.options.get("retries", 0) > 0
