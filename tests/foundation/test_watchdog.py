"""The watchdog: only progress proves life. Time is a number that the test sets."""

from dataclasses import dataclass, field

import pytest
from celery.signals import task_postrun, task_prerun

from foundation.watchdog import BUSY_LIMIT_S, EXIT_STATUS, Limits, Progress, Watchdog, is_stalled

LIMIT_S = 45.0


@dataclass
class Worker:
    """A worker as its watchdog sees it."""

    now: float = 1000.0
    waiting: int = 0
    broker_is_down: bool = False
    ended: list[int] = field(default_factory=list)
    watchdog: Watchdog = field(init=False)

    def __post_init__(self) -> None:
        self.watchdog = Watchdog(
            self._waiting, limit_s=LIMIT_S, end=self.ended.append, clock=lambda: self.now
        )

    def _waiting(self) -> int:
        if self.broker_is_down:
            raise ConnectionError
        return self.waiting

    def pass_time(self, seconds: float) -> None:
        """Look often, as the thread does."""
        for _ in range(int(seconds)):
            self.now += 1
            self.watchdog.look()


@pytest.fixture
def worker() -> Worker:
    return Worker()


def test_idle_worker_lives(worker: Worker) -> None:
    """A worker for which nothing waits may do nothing for as long as it likes."""
    worker.pass_time(10 * LIMIT_S)

    assert worker.ended == []


def test_stalled_worker_is_ended(worker: Worker) -> None:
    """Messages wait, nothing runs: once that has lasted the limit the process ends, to be started again."""
    worker.waiting = 1

    worker.pass_time(LIMIT_S)
    assert worker.ended == []

    worker.pass_time(1)
    assert worker.ended == [EXIT_STATUS]


def test_progress_starts_the_time_anew(worker: Worker) -> None:
    """A busy worker with a long queue lives, as long as tasks begin and end."""
    worker.waiting = 1000

    for _ in range(10):
        worker.pass_time(LIMIT_S - 1)
        worker.watchdog.progress.began()
        worker.watchdog.progress.ended()

    assert worker.ended == []


def test_a_task_may_take_longer_than_the_idle_limit(worker: Worker) -> None:
    """While a task runs, the worker has more time."""
    worker.waiting = 1
    worker.watchdog.progress.began()

    worker.pass_time(BUSY_LIMIT_S - 1)

    assert worker.ended == []


def test_worker_whose_threads_are_all_stuck_is_ended(worker: Worker) -> None:
    """Tasks run, messages wait, and no task begins or ends: none of them ever will."""
    worker.waiting = 1
    for _ in range(8):
        worker.watchdog.progress.began()

    worker.pass_time(BUSY_LIMIT_S + 1)

    assert worker.ended[:1] == [EXIT_STATUS]


def test_one_stuck_task_beside_others_that_end_is_no_stall(worker: Worker) -> None:
    """The worker still gets on with its queue."""
    worker.waiting = 1000
    worker.watchdog.progress.began()

    for _ in range(10):
        worker.pass_time(BUSY_LIMIT_S - 1)
        worker.watchdog.progress.began()
        worker.watchdog.progress.ended()

    assert worker.ended == []


def test_a_long_task_is_no_stall_while_nothing_waits(worker: Worker) -> None:
    """Nobody misses the thread that it takes."""
    worker.watchdog.progress.began()

    worker.pass_time(10 * BUSY_LIMIT_S)

    assert worker.ended == []


def test_stall_after_the_last_task_is_seen(worker: Worker) -> None:
    """The time counts from when the last task ended."""
    worker.waiting = 1
    worker.watchdog.progress.began()
    worker.pass_time(BUSY_LIMIT_S - 1)
    worker.watchdog.progress.ended()

    worker.pass_time(LIMIT_S - 1)
    assert worker.ended == []

    worker.pass_time(1)
    assert worker.ended == [EXIT_STATUS]


def test_message_that_just_arrived_is_no_stall(worker: Worker) -> None:
    """After a long idle time the first message has the whole limit to be taken."""
    worker.pass_time(10 * LIMIT_S)
    worker.waiting = 1

    worker.pass_time(LIMIT_S)

    assert worker.ended == []


def test_queue_that_empties_in_between_is_no_stall(worker: Worker) -> None:
    """Somebody takes the messages, so nothing is stuck."""
    for _ in range(10):
        worker.waiting = 1
        worker.pass_time(LIMIT_S - 1)
        worker.waiting = 0
        worker.pass_time(1)

    assert worker.ended == []


def test_silent_broker_is_no_verdict(worker: Worker) -> None:
    """Without an answer from the broker nothing is known, and the time begins anew afterwards."""
    worker.waiting = 1
    worker.pass_time(LIMIT_S - 1)

    worker.broker_is_down = True
    worker.pass_time(10 * LIMIT_S)
    worker.broker_is_down = False
    worker.pass_time(LIMIT_S - 1)

    assert worker.ended == []


@pytest.mark.parametrize(
    ("waiting", "running", "still_s", "stalled"),
    [
        (1, 0, LIMIT_S, True),
        (1, 0, LIMIT_S - 0.1, False),
        (0, 0, LIMIT_S, False),
        (1, 1, LIMIT_S, False),
        (1, 1, BUSY_LIMIT_S - 0.1, False),
        (1, 1, BUSY_LIMIT_S, True),
        (1, 8, BUSY_LIMIT_S, True),
        (0, 1, BUSY_LIMIT_S, False),
    ],
)
def test_stalled_means_waiting_and_still_for_long(
    waiting: int, running: int, still_s: float, stalled: bool
) -> None:
    """Both together, and longer while something runs."""
    progress = Progress(moved_at=0, running=running)

    assert is_stalled(progress, waiting=waiting, still_s=still_s, limits=Limits(LIMIT_S)) is stalled


def test_celery_reports_progress(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once started, the watchdog hears of every task that begins and ends."""
    monkeypatch.setattr(Watchdog, "_run", lambda _self: None)
    worker.watchdog.start()
    progress = worker.watchdog.progress

    task_prerun.send(sender=None)
    during = progress.running
    task_postrun.send(sender=None)
    after = progress.running
    task_prerun.disconnect(progress.began)
    task_postrun.disconnect(progress.ended)

    assert (during, after) == (1, 0)
