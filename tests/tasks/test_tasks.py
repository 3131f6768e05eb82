"""Tasks: every step has one, on a declared queue; short waits are retries, long ones wait in rows."""

import inspect
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from celery import Task
from celery.exceptions import Retry
from pydantic import SecretStr

from foundation.queue import MAX_COUNTDOWN_S, VISIBILITY_TIMEOUT_S, Role
from foundation.vault import generate_key
from models import Step
from tasks import edge, maintenance
from worker.app import MAINTENANCE, ONBOARDING, POLLING, QUEUE_OF, SWEEP, app, configure
from worker.settings import Settings
from worker.steps.run import StepRun

RUNTIME = object()


@pytest.fixture(autouse=True)
def configured() -> None:
    configure(
        Settings(
            database_url=SecretStr("sqlite:///unused.db"),
            broker_url=SecretStr("redis://127.0.0.1:1/0"),
            api_url="http://api.test",
            api_token=SecretStr("a-token-of-the-api"),
            webhook_secrets={},
            vault_keys=SecretStr(generate_key()),
            operator_token=SecretStr("a-token-of-operators"),
        ),
        Role.CONSUMER,
    )
    app.loader.import_default_modules()


def test_every_step_has_its_task() -> None:
    """A step's value is the name of a task that is registered once the app has loaded its modules."""
    assert {str(step) for step in Step} | {SWEEP} == {
        name for name in app.tasks if not name.startswith("celery.")
    }


@pytest.mark.parametrize("name", [*Step, SWEEP])
def test_every_task_is_routed_to_a_declared_queue(name: str) -> None:
    """No task goes to a queue that nobody declared, where it would wait for ever."""
    declared = {queue.name for queue in app.conf.task_queues}

    assert app.conf.task_routes[name] == {"queue": QUEUE_OF[name]}
    assert QUEUE_OF[name] in declared == {ONBOARDING, POLLING, MAINTENANCE}


def test_polls_stand_behind_nobody() -> None:
    """Polls have a queue to themselves, and so has the sweep."""
    assert [step for step in Step if QUEUE_OF[step] == POLLING] == [Step.POLL]
    assert [name for name, queue in QUEUE_OF.items() if queue == MAINTENANCE] == [SWEEP]


@pytest.mark.parametrize("step", Step)
def test_arguments_are_ids(step: Step) -> None:
    """Arguments are visible in the broker and in Flower, so a step's task takes ids and nothing else."""
    assert list(inspect.signature(app.tasks[step].run).parameters) == ["connection_ids"]


@pytest.mark.parametrize("step", Step)
def test_retries_are_counted_in_the_rows(step: Step) -> None:
    """The queue never gives up: when to stop is written in the row."""
    assert app.tasks[step].max_retries is None


def test_sweep_is_on_the_timetable() -> None:
    """Beat asks for the sweep, and a sweep that waited too long is dropped."""
    entry = app.conf.beat_schedule["sweep"]

    assert entry["task"] == SWEEP
    assert 5 <= entry["options"]["expires"] < 60


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What a run was given, what it shall come to, and what was published."""
    seen: dict[str, Any] = {"outcome": StepRun(), "published": []}

    def run_step(runtime: object, step: Step, ids: list[UUID], *, task_id: str | None) -> StepRun:
        seen.update(runtime=runtime, step=step, ids=ids, task_id=task_id)
        outcome: StepRun = seen["outcome"]
        return outcome

    monkeypatch.setattr(edge, "runtime", lambda: RUNTIME)
    monkeypatch.setattr(edge, "run_step", run_step)
    monkeypatch.setattr(edge, "publish", lambda *args: seen["published"].append(args[1:]))
    return seen


@pytest.fixture
def retried(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The retries that tasks asked the queue for."""
    asked: list[dict[str, Any]] = []

    def retry(_self: Any, **how: Any) -> Retry:
        asked.append(how)
        return Retry(when=how["countdown"])

    monkeypatch.setattr(Task, "retry", retry)
    return asked


@pytest.mark.parametrize("step", Step)
def test_task_runs_its_step(ran: dict[str, Any], step: Step) -> None:
    """Each task does its own step for the connections of the message, under its own task id."""
    ids = [uuid4(), uuid4()]

    done = app.tasks[step].apply(args=[[str(each) for each in ids]], task_id="task-1")

    assert done.state == "SUCCESS"
    assert (ran["runtime"], ran["step"], ran["ids"], ran["task_id"]) == (RUNTIME, step, ids, "task-1")


def test_next_steps_are_published(ran: dict[str, Any]) -> None:
    """What is due at once is asked of the queue right away."""
    due = uuid4()
    ran["outcome"] = StepRun(due={Step.CREATE: [due]})

    app.tasks[Step.CAPTURE].apply(args=[[str(due)]])

    assert [args[-2:] for args in ran["published"]] == [(Step.CREATE, [due])]


@pytest.mark.parametrize("wait_s", [0.1, 5, MAX_COUNTDOWN_S])
def test_short_waits_are_retries_of_the_queue(
    ran: dict[str, Any], retried: list[dict[str, Any]], wait_s: float
) -> None:
    """What failed for the moment goes back to the queue, those rows only, and Flower shows a retry."""
    failed = uuid4()
    ran["outcome"] = StepRun(to_retry=[failed], retry_in=timedelta(seconds=wait_s))

    done = app.tasks[Step.CAPTURE].apply(args=[[str(failed), str(uuid4())]])

    assert done.state == "RETRY"
    assert retried == [{"args": ([str(failed)],), "countdown": wait_s}]


@pytest.mark.parametrize("wait_s", [MAX_COUNTDOWN_S + 1, VISIBILITY_TIMEOUT_S, 86_400])
def test_long_waits_live_in_the_rows(
    ran: dict[str, Any], retried: list[dict[str, Any]], wait_s: float
) -> None:
    """A wait beyond the limit is no countdown: the sweep finds the row when it is due."""
    ran["outcome"] = StepRun(to_retry=[uuid4()], retry_in=timedelta(seconds=wait_s))

    done = app.tasks[Step.CAPTURE].apply(args=[[str(uuid4())]])

    assert done.state == "SUCCESS"
    assert retried == []


@pytest.mark.parametrize("argument", ["sk_test_4eC39HqLyjWDarjtT1zdp7dc", "1; DROP TABLE tenant", ""])
def test_what_is_no_id_reaches_nothing(ran: dict[str, Any], argument: str) -> None:
    """A message that somebody put into the broker by hand does no more than fail."""
    assert app.tasks[Step.CAPTURE].apply(args=[[argument]]).state == "FAILURE"
    assert "ids" not in ran


def test_sweep_offers_what_is_due(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sweep's task is thin."""
    asked: list[object] = []
    monkeypatch.setattr(maintenance, "runtime", lambda: RUNTIME)
    monkeypatch.setattr(maintenance, "offer_due_rows", lambda *args: asked.append(args))

    assert app.tasks[SWEEP].apply().state == "SUCCESS"
    assert asked == [(RUNTIME, app)]
