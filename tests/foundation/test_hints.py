"""Hints reach the broker in few messages, and a broker that is down keeps nobody waiting."""

import threading
import time
from collections.abc import Sequence
from uuid import UUID, uuid4

from celery import Celery

from foundation.hints import Relay, chunks, publish
from foundation.queue import Role, celery_settings

REFUSING = "redis://127.0.0.1:1/0"


class Sent:
    """Notes what a relay publishes, and can be told to take its time."""

    def __init__(self) -> None:
        self.messages: list[tuple[str, list[UUID]]] = []
        self.began = threading.Semaphore(0)
        self.may_go_on = threading.Event()

    def __call__(self, task: str, ids: Sequence[UUID]) -> None:
        self.messages.append((task, list(ids)))
        self.began.release()
        assert self.may_go_on.wait(10)


def test_the_first_hint_goes_at_once_and_those_after_it_together() -> None:
    """However many hints come while a message is being sent, the next message carries them all."""
    sent, ids = Sent(), [uuid4() for _ in range(20)]
    relay = Relay(sent, gather_s=0.001)
    relay.start()

    relay.give("sync.poll", ids[:1])
    assert sent.began.acquire(timeout=10)
    relay.give("sync.poll", ids[1:])
    relay.give("sync.create", ids[:1])
    sent.may_go_on.set()
    relay.stop(timeout_s=10)

    assert sent.messages == [("sync.poll", ids[:1]), ("sync.poll", ids[1:]), ("sync.create", ids[:1])]


def test_stopping_sends_what_is_waiting() -> None:
    """A hint given just before the end is not forgotten."""
    sent, ids = Sent(), [uuid4()]
    sent.may_go_on.set()
    relay = Relay(sent)
    relay.start()

    relay.give("sync.poll", ids)
    relay.stop(timeout_s=10)

    assert sent.messages == [("sync.poll", ids)]


def test_giving_never_waits_for_a_broker_that_refuses() -> None:
    """The real way to a broker that is not there delays nobody and ends cleanly."""
    app = Celery("test", set_as_current=False)
    app.conf.update(celery_settings(REFUSING, default_queue="q", role=Role.PUBLISHER))
    relay = Relay(lambda task, ids: publish(app, task, ids, to="q", ids_per_message=10))
    relay.start()

    began = time.monotonic()
    relay.give("sync.poll", [uuid4() for _ in range(100)])
    waited_s = time.monotonic() - began
    relay.stop(timeout_s=10)

    assert waited_s < 0.25
    assert not relay._thread.is_alive()


def test_chunks_lose_nothing() -> None:
    """Every id is in exactly one chunk, in order."""
    ids = [uuid4() for _ in range(7)]

    assert [list(some) for some in chunks(ids, 3)] == [ids[:3], ids[3:6], ids[6:]]
