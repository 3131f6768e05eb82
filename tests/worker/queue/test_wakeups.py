"""Wake-ups reach the broker in few messages, and a broker that is down keeps nobody waiting."""

import threading
import time
from typing import Any

import pytest
from celery import Celery
from kombu import Queue
from redis.exceptions import ConnectionError as RedisConnectionError

from foundation.queue import Role, celery_settings
from models import Step
from worker.queue import wakeups
from worker.queue.wakeups import WAITING_AT_MOST, Waker, wake, wake_if_room

REFUSING = "redis://127.0.0.1:1/0"
WAIT_S = 10


class Sent:
    """Notes what a waker sends, and can be told to take its time."""

    def __init__(self) -> None:
        self.tasks: list[str] = []
        self.began = threading.Semaphore(0)
        self.may_go_on = threading.Event()

    def __call__(self, task: str) -> None:
        self.tasks.append(task)
        self.began.release()
        assert self.may_go_on.wait(WAIT_S)


@pytest.fixture
def app() -> Celery:
    app = Celery("test", set_as_current=False)
    app.conf.update(celery_settings(REFUSING, default_queue=Step.CREATE, role=Role.PUBLISHER))
    app.conf.task_queues = [Queue(Step.CREATE), Queue(Step.POLL)]
    return app


def test_messages_carry_nothing(app: Celery, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wake-up names its task and its queue; no id, no argument, no result."""
    sent: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
    monkeypatch.setattr(app, "send_task", lambda *args, **how: sent.append((args, how)))

    assert wake(app, Step.CREATE, count=2)
    assert wake(app, Step.POLL)

    create = ((Step.CREATE,), {"queue": Step.CREATE, "ignore_result": True})
    assert sent == [create, create, ((Step.POLL,), {"queue": Step.POLL, "ignore_result": True})]


def test_broker_that_is_down_is_told(app: Celery, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wake-up that was not taken raises nothing: the sweep asks again."""

    def refuse(*_: Any, **__: Any) -> None:
        raise RedisConnectionError

    monkeypatch.setattr(app, "send_task", refuse)

    assert wake(app, Step.CREATE) is False


def test_broker_that_refuses_is_a_broker_that_is_down(app: Celery) -> None:
    """The same by the real way to a broker that is not there."""
    assert wake(app, Step.CREATE) is False


@pytest.mark.parametrize(
    ("waiting", "is_sent"), [(0, True), (WAITING_AT_MOST - 1, True), (WAITING_AT_MOST, False), (10**6, False)]
)
def test_long_queue_gets_no_further_message(
    app: Celery, monkeypatch: pytest.MonkeyPatch, waiting: int, is_sent: bool
) -> None:
    """Messages that wait already will find the work."""
    sent: list[str] = []
    monkeypatch.setattr(wakeups, "backlog", lambda _app, queues: dict.fromkeys(queues, waiting))
    monkeypatch.setattr(app, "send_task", lambda task, **_: sent.append(task))

    assert wake_if_room(app, Step.CREATE) is is_sent
    assert sent == ([Step.CREATE] if is_sent else [])


def test_queue_that_nobody_can_ask_gets_no_message(app: Celery) -> None:
    """A broker that does not answer is left to the sweep."""
    assert wake_if_room(app, Step.CREATE) is False


def test_the_first_goes_at_once_and_those_after_it_become_one() -> None:
    """However many wake-ups of one task come while a message is being sent, one more message follows."""
    sent = Sent()
    waker = Waker(sent, gather_s=0.001)
    waker.start()

    waker.give(Step.CAPTURE)
    assert sent.began.acquire(timeout=WAIT_S)
    for _ in range(100):
        waker.give(Step.CAPTURE)
        waker.give(Step.REMOVE)
    sent.may_go_on.set()
    waker.stop(timeout_s=WAIT_S)

    assert sent.tasks == [Step.CAPTURE, Step.CAPTURE, Step.REMOVE]


def test_wakeup_during_a_send_is_not_lost() -> None:
    """What comes after a message has been sent is sent by the next one, also without any further wake-up."""
    sent = Sent()
    waker = Waker(sent, gather_s=0.001)
    waker.start()
    waker.give(Step.CAPTURE)
    assert sent.began.acquire(timeout=WAIT_S)

    waker.give(Step.CAPTURE)
    sent.may_go_on.set()

    assert sent.began.acquire(timeout=WAIT_S)
    waker.stop(timeout_s=WAIT_S)


def test_stopping_sends_what_is_waiting() -> None:
    """A wake-up given just before the end is not forgotten."""
    sent = Sent()
    sent.may_go_on.set()
    waker = Waker(sent, gather_s=60)
    waker.start()
    waker.give(Step.CAPTURE)
    assert sent.began.acquire(timeout=WAIT_S)

    waker.give(Step.REMOVE)
    waker.stop(timeout_s=WAIT_S)

    assert sent.tasks == [Step.CAPTURE, Step.REMOVE]
    assert not waker._thread.is_alive()


def test_waker_outlives_any_error_of_the_sender() -> None:
    """What nobody has foreseen costs one message; a dead thread would cost all of them."""
    sent = Sent()
    sent.may_go_on.set()

    def send(task: str) -> None:
        sent(task)
        if task == Step.CAPTURE:
            raise RuntimeError

    waker = Waker(send, gather_s=0.001)
    waker.start()
    waker.give(Step.CAPTURE)
    assert sent.began.acquire(timeout=WAIT_S)

    waker.give(Step.REMOVE)

    assert sent.began.acquire(timeout=WAIT_S)
    waker.stop(timeout_s=WAIT_S)
    assert sent.tasks == [Step.CAPTURE, Step.REMOVE]


def test_giving_never_waits_for_the_broker(app: Celery) -> None:
    """A broker that is not there delays nobody, and the thread ends cleanly."""
    waker = Waker(lambda task: wake(app, task))
    waker.start()

    began = time.monotonic()
    for _ in range(1_000):
        waker.give(Step.CAPTURE)
    waited_s = time.monotonic() - began
    waker.stop(timeout_s=WAIT_S)

    assert waited_s < 0.5
    assert not waker._thread.is_alive()
