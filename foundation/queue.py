"""Celery's settings, as measured: nothing here waits for ever and nothing relies on the broker's memory.

Rows in the database are the truth and messages only hints, so the settings aim at bounded waits and few
surprises rather than at the broker never losing a message: on Redis it can (a popped message that was not
yet noted as unacknowledged dies with its worker).
"""

import ssl
from collections.abc import Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from foundation.broker import checks_certificates

if TYPE_CHECKING:
    from celery import Celery

VISIBILITY_TIMEOUT_S: Final = 600
MAX_COUNTDOWN_S: Final = 60  # longer waits live in a row's due_at, never in a worker's memory


class Role(StrEnum):
    """Who uses the app: a consumer may wait for its broker, a publisher must not."""

    CONSUMER = "consumer"
    PUBLISHER = "publisher"


def celery_settings(broker_url: str, *, default_queue: str, role: Role) -> dict[str, object]:
    """Settings for a Celery app on Redis."""
    return {
        "broker_url": broker_url,
        "broker_use_ssl": _tls(broker_url),
        "task_serializer": "json",
        "accept_content": ["json"],
        "result_backend": None,
        "task_ignore_result": True,
        "task_acks_late": True,
        "task_reject_on_worker_lost": False,  # the rows recover; requeueing would loop a poison task for ever
        "task_default_queue": default_queue,
        "task_create_missing_queues": False,
        "worker_prefetch_multiplier": 1,
        "worker_soft_shutdown_timeout": 0.0,  # our tasks take seconds; a soft shutdown always sleeps it all
        "worker_send_task_events": True,
        "worker_hijack_root_logger": False,
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        "broker_transport_options": _transport(role),
        "enable_utc": True,
        "timezone": "UTC",
    } | (_PUBLISHER if role is Role.PUBLISHER else {})


_PUBLISHER: Final[dict[str, object]] = {
    "task_publish_retry": False,
    "broker_pool_limit": 4,
    "broker_pool_acquire_timeout": 1.0,
}


def _tls(broker_url: str) -> dict[str, object] | None:
    """Verify the server's certificate unless the URL says otherwise: by itself kombu would not."""
    is_verified = broker_url.startswith("rediss://") and checks_certificates(broker_url)
    return {"ssl_cert_reqs": ssl.CERT_REQUIRED} if is_verified else None


def _transport(role: Role) -> dict[str, object]:
    timeouts: dict[str, object] = (
        {"socket_timeout": 1, "socket_connect_timeout": 1, "max_retries": 0}
        if role is Role.PUBLISHER
        else {"socket_timeout": 30, "socket_connect_timeout": 3}
    )
    return {
        "visibility_timeout": VISIBILITY_TIMEOUT_S,  # the same for every app on this Redis, the shortest wins
        "unacked_restore_interval": 5,
        "unacked_restore_throttle": 1,
        "socket_keepalive": True,
        "health_check_interval": 10,
    } | timeouts


def run_worker(app: "Celery", arguments: Sequence[str]) -> int:
    """Run a worker to its end and return its exit status, which `worker_main` itself does not tell.

    A worker may also end because it failed: measured on Celery 5.7, one in three that had messages in hand
    do when Redis is killed. Those who restart what fails should see it.
    """
    from celery.signals import worker_shutdown

    statuses: list[int] = []

    def note_status(sender: object, **_: object) -> None:
        statuses.append(getattr(sender, "exitcode", None) or 0)

    worker_shutdown.connect(note_status, weak=False)
    app.worker_main(list(arguments))
    return max(statuses, default=0)
