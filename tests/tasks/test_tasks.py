"""Tasks: every step has one, on a declared queue; each runs once and says what happened."""

import inspect
import pickle
from datetime import timedelta
from typing import Any

import pytest
from celery import Task
from celery.exceptions import Retry
from pydantic import SecretStr

from foundation.queue import MAX_COUNTDOWN_S, VISIBILITY_TIMEOUT_S, Role
from foundation.vault import generate_key
from models import AttemptOutcome, State, Step
from tasks import credential, edge, maintenance, sync, tenant
from tasks.edge import ConnectionsFailedError, TryAgainError
from tests.support.rows import a_claim, a_connection, a_tenant
from worker.app import (
    FOLLOW,
    GROUPS,
    MAINTENANCE,
    POLLING,
    PURGE,
    SPREAD,
    SWEEP,
    app,
    configure,
)
from worker.queue.verdict import Claim, Problem, Verdict
from worker.settings import Settings
from worker.steps.report import Report

RUNTIME = object()
TASKS = {*map(str, Step), FOLLOW, SPREAD, SWEEP, PURGE}
WITH_REPORT = [*map(str, Step), FOLLOW, SPREAD]
BY_THE_CLOCK = [FOLLOW, SWEEP, PURGE]
SECRET = "sk_test_4eC39HqLyjWDarjtT1zdp7dc"


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
    assert (
        {name for name in app.tasks if not name.startswith("celery.")}
        == TASKS
        == {task for group in GROUPS.values() for task in group}
    )


@pytest.mark.parametrize("name", sorted(TASKS))
def test_every_task_has_a_declared_queue_of_its_own(name: str) -> None:
    """No message stands behind those of another task, or in a queue that no worker consumes."""
    declared = {queue.name for queue in app.conf.task_queues}

    assert app.conf.task_routes[name] == {"queue": name}
    assert name in declared == TASKS


def test_polls_stand_behind_no_burst() -> None:
    """What watches syncs has workers of its own, and so has what keeps the service going."""
    assert set(GROUPS[POLLING]) == {Step.POLL, FOLLOW}
    assert set(GROUPS[MAINTENANCE]) == {SWEEP, SPREAD, PURGE}


@pytest.mark.parametrize("name", sorted(TASKS))
def test_tasks_have_no_arguments(name: str) -> None:
    """A message says that there is work, and nothing else: no id, no secret, nothing that could be stale."""
    assert list(inspect.signature(app.tasks[name].run).parameters) == []


@pytest.mark.parametrize("name", sorted(TASKS))
def test_messages_put_in_by_hand_do_no_more_than_fail(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A message with arguments that somebody wrote runs nothing."""
    ran: list[object] = []
    for module in (edge, maintenance):
        monkeypatch.setattr(module, "runtime", lambda: ran.append(1))

    assert app.tasks[name].apply(args=[["1; DROP TABLE tenant"]]).state == "FAILURE"
    assert ran == []


@pytest.mark.parametrize("name", WITH_REPORT)
def test_retries_are_counted_in_the_rows(name: str) -> None:
    """The queue never gives up: when to stop is written in the row."""
    assert app.tasks[name].max_retries is None


@pytest.mark.parametrize("name", sorted(TASKS))
def test_only_work_on_connections_is_shown(name: str) -> None:
    """What runs every moment would fill Flower's history, so it sends no events."""
    assert app.tasks[name].send_events is (name not in BY_THE_CLOCK)


@pytest.mark.parametrize(("entry", "task"), [("sweep", SWEEP), ("purge", PURGE)])
def test_timetable_drops_what_waited_too_long(entry: str, task: str) -> None:
    """Beat asks for the sweep and the purge; messages that piled up are worth no more than the newest."""
    planned = app.conf.beat_schedule[entry]

    assert planned["task"] == task
    assert planned["options"]["expires"] >= max(5, planned["schedule"])


def test_only_sweep_and_purge_are_on_the_timetable() -> None:
    """Everything else is woken by what happens, or by the sweep."""
    assert set(app.conf.beat_schedule) == {"sweep", "purge"}


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What a run was given, what it shall come to, and what was woken."""
    seen: dict[str, Any] = {"report": Report(), "woken": []}

    def run(what: str) -> Any:
        def noted(runtime: object, task_id: str) -> Report:
            seen.update(runtime=runtime, what=what, task_id=task_id)
            report: Report = seen["report"]
            return report

        return noted

    def run_step(runtime: object, step: Step, *, task_id: str) -> Report:
        done: Report = run(step)(runtime, task_id)
        return done

    monkeypatch.setattr(edge, "runtime", lambda: RUNTIME)
    monkeypatch.setattr(edge, "run_step", run_step)
    monkeypatch.setattr(sync, "follow_feed", run(FOLLOW))
    monkeypatch.setattr(tenant, "spread_changes", run(SPREAD))
    monkeypatch.setattr(edge, "wake", lambda _app, task: seen["woken"].append(task))
    return seen


@pytest.fixture
def retried(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The retries that tasks asked the queue for."""
    asked: list[dict[str, Any]] = []

    def retry(_self: Any, **how: Any) -> Retry:
        asked.append(how)
        return Retry(exc=how["exc"], when=how["countdown"])

    monkeypatch.setattr(Task, "retry", retry)
    return asked


@pytest.mark.parametrize("name", WITH_REPORT)
def test_task_runs_once_and_returns_the_summary(ran: dict[str, Any], name: str) -> None:
    """Each task does its own work, under its own id, and Flower shows what came of it."""
    ran["report"].did.update({"created": 48, "adopted": 1})

    done = app.tasks[name].apply(task_id="task-1")

    assert (done.state, done.result) == ("SUCCESS", "48 created, 1 adopted")
    assert (ran["runtime"], ran["what"], ran["task_id"]) == (RUNTIME, name, "task-1")
    assert ran["woken"] == []


def test_nothing_due_says_so(ran: dict[str, Any]) -> None:
    """A doubled or late message ends at once."""
    assert app.tasks[Step.CREATE].apply().result == "nothing was due"


@pytest.mark.parametrize("name", WITH_REPORT)
def test_full_batch_wakes_the_next_run(ran: dict[str, Any], name: str) -> None:
    """Where more may be due, the same task is asked for again."""
    ran["report"].is_full = True

    app.tasks[name].apply()

    assert ran["woken"] == [name]


@pytest.mark.parametrize("wait_s", [0.1, 5, MAX_COUNTDOWN_S])
def test_short_waits_are_retries_of_the_queue(
    ran: dict[str, Any], retried: list[dict[str, Any]], wait_s: float
) -> None:
    """What failed for the moment brings the task back, and Flower shows a retry with the summary."""
    ran["report"].did["to retry: api_unavailable"] = 2
    ran["report"].retry_in = timedelta(seconds=wait_s)

    done = app.tasks[Step.CAPTURE].apply()

    assert done.state == "RETRY"
    ((how),) = retried
    assert how["countdown"] == wait_s
    assert isinstance(how["exc"], TryAgainError)
    assert str(how["exc"]) == "2 to retry: api_unavailable"


@pytest.mark.parametrize("wait_s", [MAX_COUNTDOWN_S + 1, VISIBILITY_TIMEOUT_S, 86_400])
def test_long_waits_live_in_the_rows(
    ran: dict[str, Any], retried: list[dict[str, Any]], wait_s: float
) -> None:
    """A wait beyond the limit is no countdown: the sweep finds the row when it is due."""
    ran["report"].did["parked: api_unavailable"] = 1
    ran["report"].retry_in = timedelta(seconds=wait_s)

    done = app.tasks[Step.CAPTURE].apply()

    assert (done.state, done.result) == ("SUCCESS", "1 parked: api_unavailable")
    assert retried == []


def failed(number: int) -> tuple[Claim, Verdict]:
    """A connection that fails for good, with a message that quotes a secret."""
    owner = a_tenant(external_id=f"org_{number}")
    problem = Problem("api_rejected", f"bad key {SECRET}", "ask the customer")
    verdict = Verdict(
        "failed: api_rejected",
        f"bad key {SECRET}",
        move=State.FAILED,
        problem=problem,
        outcome=AttemptOutcome.PERMANENT,
    )
    return a_claim(a_connection(owner, sealed_credential="k.1"), owner), verdict


def test_failed_connections_fail_the_task(ran: dict[str, Any], retried: list[dict[str, Any]]) -> None:
    """Flower shows who failed, at which provider and why, and never what the provider said."""
    ran["report"].add([failed(1), failed(2)])
    ran["report"].retry_in = timedelta(seconds=5)

    done = app.tasks[Step.CAPTURE].apply()

    assert done.state == "FAILURE"
    assert isinstance(done.result, ConnectionsFailedError)
    told = str(done.result)
    assert told == "org_1 stripe api_rejected; org_2 stripe api_rejected (2 failed: api_rejected)"
    assert SECRET not in told + str(done.traceback)
    assert retried == []


def test_failures_are_named_up_to_a_few(ran: dict[str, Any]) -> None:
    """A message of the broker stays short, however many fail."""
    ran["report"].add([failed(n) for n in range(1, 51)])

    told = str(app.tasks[Step.CAPTURE].apply().result)

    assert told.startswith("org_1 stripe api_rejected; ")
    assert "and 47 more (50 failed: api_rejected)" in told
    assert len(told) < 200


def test_failures_in_a_full_batch_stop_nobody(ran: dict[str, Any]) -> None:
    """The next batch is woken before the task fails."""
    ran["report"].is_full = True
    ran["report"].add([failed(1)])

    app.tasks[Step.CAPTURE].apply()

    assert ran["woken"] == [Step.CAPTURE]


@pytest.mark.parametrize("kind", [ConnectionsFailedError, TryAgainError])
def test_errors_survive_the_journey(kind: type[Exception]) -> None:
    """What a task raises is read by other processes."""
    assert str(pickle.loads(pickle.dumps(kind("1 created")))) == "1 created"  # noqa: S301  # ours


@pytest.mark.parametrize(
    ("task", "function", "arguments"),
    [(SWEEP, "wake_for_due_work", (RUNTIME, app)), (PURGE, "purge_old", (RUNTIME,))],
)
def test_maintenance_is_thin(
    monkeypatch: pytest.MonkeyPatch, task: str, function: str, arguments: tuple[object, ...]
) -> None:
    """The sweep and the purge are done by the worker's own modules."""
    asked: list[object] = []
    monkeypatch.setattr(maintenance, "runtime", lambda: RUNTIME)
    monkeypatch.setattr(maintenance, function, lambda *args: asked.append(args))

    assert app.tasks[task].apply().state == "SUCCESS"
    assert asked == [arguments]


def test_one_module_per_noun() -> None:
    """A task is found in the module of its noun."""
    modules = {"credential": credential, "sync": sync, "tenant": tenant, "maintenance": maintenance}

    assert {name: app.tasks[name].run.__module__ for name in TASKS} == {
        name: modules[name.partition(".")[0]].__name__ for name in TASKS
    }
