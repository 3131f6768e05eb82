"""The steps of one customer as messages: one captures and creates, then polls follow a second apart."""

import dramatiq
from dramatiq.brokers.redis import RedisBroker
from dramatiq.middleware import CurrentMessage, Retries

from benchmarks.rival import api, store
from benchmarks.rival.settings import BROKER_URL, POLL_EVERY_MS

broker = RedisBroker(
    url=BROKER_URL,
    middleware=[CurrentMessage(), Retries(max_retries=50, min_backoff=200, max_backoff=30_000)],
)
dramatiq.set_broker(broker)


@dramatiq.actor(queue_name="onboarding", priority=0)
def onboard(connection_id: str) -> None:
    """Import the credential and create the sync, in one message since that is faster; each is recorded."""
    row = store.get(connection_id)
    if row.state == "requested":
        row = store.captured(row, api.import_credential(row))
    if row.state == "captured":
        store.created(row, (has_been_tried() and api.find_sync(row)) or api.create_sync(row))
    poll.send_with_options(args=(connection_id,), delay=POLL_EVERY_MS)


@dramatiq.actor(queue_name="polling", priority=1)
def poll(connection_id: str) -> None:
    """Look at the sync; look again in a second unless it is complete."""
    sync_id = store.sync_id_of(connection_id)
    if sync_id is None:
        return
    if api.is_complete(sync_id):
        store.ready(connection_id)
    else:
        poll.send_with_options(args=(connection_id,), delay=POLL_EVERY_MS)


def has_been_tried() -> bool:
    """Whether an earlier try of this message may have created the sync."""
    message = CurrentMessage.get_current_message()
    return message is not None and message.options.get("retries", 0) > 0
