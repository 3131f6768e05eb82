"""The broker after outages: queue lengths and publishing come back by themselves, on a real Redis."""

import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from celery import Celery
from kombu import Queue
from redis.exceptions import ReadOnlyError, RedisError

from foundation.backlog import backlog
from foundation.broker import redis_client
from foundation.hints import publish
from foundation.queue import Role, celery_settings
from foundation.watchdog import EXIT_STATUS, Watchdog
from tests.e2e.harness import Machine, Redis

QUEUE = "counted"


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[Redis]:
    """A broker that keeps nothing on disk: started again, it is empty."""
    with Machine(tmp_path) as machine:
        yield Redis(machine).start()


@pytest.fixture
def app(redis: Redis) -> Celery:
    app = Celery("test", set_as_current=False)
    app.conf.update(celery_settings(redis.url, default_queue=QUEUE, role=Role.PUBLISHER))
    app.conf.task_queues = [Queue(QUEUE)]
    return app


def hint(app: Celery) -> None:
    publish(app, "sync.poll", [uuid4()], to=QUEUE, ids_per_message=10)


def killed(redis: Redis) -> Callable[[], object]:
    redis.process.kill()
    return redis.start


def stopped(redis: Redis) -> Callable[[], object]:
    redis.process.terminate()
    return redis.start


def frozen(redis: Redis) -> Callable[[], object]:
    redis.process.signal(signal.SIGSTOP)
    return lambda: redis.process.signal(signal.SIGCONT)


def demoted(redis: Redis) -> Callable[[], object]:
    """A replica answers, and refuses to write."""
    with redis_client(redis.url) as operator:
        operator.replicaof("127.0.0.1", 1)

    def promote() -> None:
        with redis_client(redis.url) as operator:
            operator.replicaof("NO", "ONE")

    return promote


def replaced_unnoticed(redis: Redis) -> Callable[[], object]:
    """Nobody asks while it is away, so every pooled connection is dead afterwards."""
    redis.process.kill()
    redis.start()
    return lambda: None


OUTAGES = [killed, stopped, frozen]


def test_a_queues_length_is_what_waits_in_it(app: Celery) -> None:
    """A queue that nobody has used yet is empty."""
    for _ in range(3):
        hint(app)

    assert backlog(app, [QUEUE, "unheard-of"]) == {QUEUE: 3, "unheard-of": 0}


@pytest.mark.parametrize("outage", OUTAGES)
def test_lengths_are_readable_again_after_an_outage(
    app: Celery, redis: Redis, outage: Callable[[Redis], Callable[[], object]]
) -> None:
    """During the outage the caller gets an error of Redis, and the first look afterwards works."""
    hint(app)
    assert backlog(app, [QUEUE]) == {QUEUE: 1}

    end = outage(redis)
    for _ in range(3):
        with pytest.raises(RedisError):
            backlog(app, [QUEUE])
    end()

    expected = 1 if outage is frozen else 0
    assert backlog(app, [QUEUE]) == {QUEUE: expected}


def test_lengths_survive_an_outage_that_nobody_noticed(app: Celery, redis: Redis) -> None:
    """A connection that died while it rested in the pool costs no error."""
    hint(app)
    assert backlog(app, [QUEUE]) == {QUEUE: 1}

    replaced_unnoticed(redis)

    assert backlog(app, [QUEUE]) == {QUEUE: 0}


@pytest.mark.parametrize("outage", [*OUTAGES, demoted, replaced_unnoticed])
def test_publishing_works_again_after_an_outage(
    app: Celery, redis: Redis, outage: Callable[[Redis], Callable[[], object]]
) -> None:
    """Hints during the outage may be lost. After it every one arrives, from each pooled connection."""
    hint(app)

    end = outage(redis)
    if outage is not replaced_unnoticed:
        for _ in range(3):
            hint(app)
    end()
    if outage is replaced_unnoticed:
        for _ in range(app.conf.broker_pool_limit):
            hint(app)  # each pooled connection may find out once that it is dead
    before = backlog(app, [QUEUE])[QUEUE]
    for _ in range(5):
        hint(app)

    assert backlog(app, [QUEUE]) == {QUEUE: before + 5}


@pytest.mark.parametrize("outage", OUTAGES)
def test_watchdog_sees_again_after_an_outage(
    app: Celery, redis: Redis, outage: Callable[[Redis], Callable[[], object]]
) -> None:
    """It gives no verdict while the broker is silent, and a stalled worker is found once it answers."""
    ended: list[int] = []
    now = 0.0
    watchdog = Watchdog(lambda: backlog(app, [QUEUE])[QUEUE], limit_s=45, end=ended.append, clock=lambda: now)
    hint(app)
    watchdog.look()

    end = outage(redis)
    now = 100.0
    watchdog.look()
    assert ended == []

    end()
    hint(app)
    for _ in range(2):
        now += 50
        watchdog.look()
    assert ended == [EXIT_STATUS]


def test_no_connection_to_a_replica_is_kept(redis: Redis) -> None:
    """After a switchover the same address may lead elsewhere, but only for new connections."""
    with redis_client(redis.url) as client:
        before = client.client_id()
        demoted(redis)

        with pytest.raises(ReadOnlyError):
            client.set("key", "value")

        assert client.client_id() != before
