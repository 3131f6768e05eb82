"""The length of queues, read from the broker's Redis."""

from collections.abc import Iterable
from functools import cache
from typing import Final

from celery import Celery
from redis import Redis

from foundation.broker import redis_client

BACKLOG_LIMIT: Final = 40
"""Messages waiting in a queue beyond which rows are left where they are: in fair order."""


def backlog(app: Celery, queues: Iterable[str]) -> dict[str, int]:
    """Return how many messages wait in each queue. Raises `RedisError` while the broker does not answer.

    Celery keeps a queue in a Redis list of the same name (further lists would hold messages with a
    priority, which we never set). A pooled connection of Celery would be shorter to write, but it stays
    broken after the first outage.
    """
    names = list(queues)
    with _client(app.conf.broker_url).pipeline(transaction=False) as pipeline:
        for name in names:
            pipeline.llen(name)
        return dict(zip(names, pipeline.execute(), strict=True))


@cache
def _client(url: str) -> Redis:
    """One client, and so one pool of connections, for each broker."""
    return redis_client(url)
