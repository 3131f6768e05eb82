"""How long the queues are, asked of the broker itself."""

from collections.abc import Iterable
from typing import Final

from celery import Celery
from kombu import Connection, Queue
from kombu.exceptions import ChannelError

BACKLOG_LIMIT: Final = 40
"""Messages waiting in a queue beyond which rows are left where they are: in fair order."""


def backlog(app: Celery, queues: Iterable[str]) -> dict[str, int]:
    """How many messages wait in each queue."""
    with app.connection_or_acquire() as connection:
        return {name: _length(name, connection) for name in queues}


def _length(name: str, connection: Connection) -> int:
    """A channel each, since asking RabbitMQ for a queue that is not there closes the channel."""
    with connection.channel() as channel:
        try:
            declared = Queue(name)(channel).queue_declare(passive=True)
            return int(declared.message_count)  # type: ignore[union-attr]  # the stubs know no message_count
        except ChannelError:
            return 0  # a queue that nobody has declared yet is empty
