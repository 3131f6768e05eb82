"""The length of a queue is what the broker says."""

from celery import Celery
from kombu import Exchange, Queue

from foundation.backlog import backlog


def test_a_queues_length_is_what_waits_in_it() -> None:
    """A queue that nobody has declared yet is empty."""
    app = Celery(broker="memory://", set_as_current=False)
    app.conf.task_queues = [Queue("counted", Exchange("counted"), routing_key="counted")]

    for _ in range(3):
        app.send_task("anything", queue="counted", ignore_result=True)

    assert backlog(app, ["counted", "unheard-of"]) == {"counted": 3, "unheard-of": 0}
