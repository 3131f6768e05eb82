"""`gangway status` and `gangway send`, as an operator uses them by hand."""

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from standardwebhooks.webhooks import Webhook
from typer.testing import CliRunner, Result

from foundation.database import Database, utc_now
from foundation.migrations import upgrade
from models import MIGRATIONS, Attempt, AttemptOutcome, Connection, State, Step, Tenant
from worker.cli import app
from worker.cli.sending import SendError, local_intake, signed_headers
from worker.cli.tables import age, next_action, plain
from worker.queue.history import write_moves
from worker.settings import STACK_FILE, settings
from worker.stack.configuration import configure
from worker.stack.envfile import write_env_file
from worker.stack.ports import DEFAULT_PORTS
from worker.stack.scope import Scope

NOW = datetime(2026, 1, 1, tzinfo=UTC)
EVENT = b'{"type": "tenant.created"}'


@pytest.fixture
def stack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Database]:
    """The database of a stack that is down; `gangway` finds it by the data directory."""
    scope = Scope(worker=True, engine=True, redis=True)
    config = configure(tmp_path, scope, environment={}, remembered={}, ports=DEFAULT_PORTS)
    write_env_file(tmp_path / STACK_FILE, config.kept)
    monkeypatch.setenv("GANGWAY_DATA_DIR", str(tmp_path))
    settings.cache_clear()
    database = Database(config.value_of("GANGWAY_DATABASE_URL"))
    upgrade(database, MIGRATIONS)
    yield database
    database.dispose()
    settings.cache_clear()


def gangway(*arguments: str, stdin: bytes | None = None) -> Result:
    return CliRunner().invoke(app, list(arguments), input=stdin)


def add_tenant(database: Database, external_id: str, state: State, **values: object) -> Connection:
    tenant = Tenant(external_id=external_id, name=f"Name of {external_id}", plan="default")
    connection = Connection(tenant_id=tenant.id, provider="stripe", state=state, **values)
    with database.write() as session:
        session.add(tenant)
        session.flush()
        session.add(connection)
    return connection


@pytest.mark.usefixtures("stack")
class TestStatus:
    """How things stand, without a broker or any process."""

    def test_nobody_yet(self) -> None:
        """An empty database is not an error."""
        shown = gangway("status")

        assert shown.exit_code == 0
        assert "Connections: none yet." in shown.output

    def test_trouble_comes_first(self, stack: Database) -> None:
        """Tenants that need a person are listed before those that wait, and those before the rest."""
        for external_id, state in [("a", State.READY), ("b", State.REQUESTED), ("c", State.FAILED)]:
            add_tenant(stack, external_id, state)

        view = json.loads(gangway("status", "--json").stdout)

        assert [tenant["external_id"] for tenant in view["data"]] == ["c", "b", "a"]
        assert view["connections_by_state"] == {"failed": 1, "ready": 1, "requested": 1}
        assert view["oldest_waiting"]["external_id"] == "b"

    def test_a_long_list_is_cut_and_says_so(self, stack: Database) -> None:
        """With more tenants than asked for, the figures still count all of them."""
        for number in range(3):
            add_tenant(stack, f"org_{number}", State.READY)

        shown = gangway("status", "--limit", "2")

        assert "2 of 3 tenants; --limit shows more." in shown.output
        assert "Connections: 3 ready." in shown.output

    def test_one_tenant_in_detail(self, stack: Database) -> None:
        """Its error, what to do, what happens next, its history and its last attempts."""
        connection = add_tenant(
            stack,
            "org_1",
            State.REQUESTED,
            error_code="credential_rejected",
            error_message="401",
            error_advice="Ask the customer for a working key.",
        )
        with stack.write() as session:
            session.add(connection)
            write_moves(session, [connection.transition_to(State.FAILED, why="the key was refused")])
            session.add(
                Attempt(
                    connection_id=connection.id,
                    tenant_id=connection.tenant_id,
                    step=Step.CAPTURE,
                    number=1,
                    started_at=utc_now(),
                    outcome=AttemptOutcome.PERMANENT,
                    error_code="credential_rejected",
                )
            )

        shown = gangway("status", "org_1").output
        view = json.loads(gangway("status", "org_1", "--json").stdout)

        assert "what to do: Ask the customer for a working key." in shown
        assert "next: nothing, until an event arrives" in shown
        assert view["state"] == "failed"
        assert [(move["from_state"], move["to_state"]) for move in view["history"]] == [
            ("requested", "failed")
        ]
        assert view["last_attempts"][0]["outcome"] == "permanent"

    def test_an_unknown_tenant_is_an_error(self) -> None:
        """The exit status tells a script, the sentence a person."""
        shown = gangway("status", "nobody")

        assert shown.exit_code == 1
        assert "no tenant has the external_id 'nobody'" in shown.output

    def test_a_database_without_tables_is_explained(self, tmp_path: Path, stack: Database) -> None:
        """Before the first migration the answer is what to run, not a traceback."""
        stack.dispose()
        (tmp_path / "gangway.db").unlink()

        shown = gangway("status")

        assert shown.exit_code == 1
        assert "Has `gangway migrate` or `gangway up` been run?" in shown.output

    def test_customers_cannot_command_the_terminal(self) -> None:
        """Control characters in a name are shown as replacement characters."""
        assert "\x1b" not in plain("red \x1b[31m").plain


@pytest.mark.parametrize(
    ("span", "words"),
    [
        (timedelta(seconds=-5), "0 s"),
        (timedelta(seconds=90), "90 s"),
        (timedelta(minutes=30), "30 min"),
        (timedelta(hours=5), "5 h"),
        (timedelta(days=9), "9 d"),
    ],
)
def test_ages_are_told_at_a_glance(span: timedelta, words: str) -> None:
    """One number and one unit."""
    assert age(span) == words


@pytest.mark.parametrize(
    ("step", "due_at", "words"),
    [
        (None, None, "nothing, until an event arrives"),
        ("sync.poll", None, "sync.poll, not scheduled"),
        ("sync.poll", NOW - timedelta(seconds=1), "sync.poll now"),
        ("sync.poll", NOW + timedelta(seconds=30), "sync.poll in 30 s"),
    ],
)
def test_the_next_action_is_told(step: str | None, due_at: datetime | None, words: str) -> None:
    """What happens next and when."""
    assert next_action(step, due_at, NOW) == words


@pytest.mark.usefixtures("stack")
class TestSend:
    """An event signed and posted like a webhook sender would."""

    def test_the_signature_is_a_standard_one(self) -> None:
        """The library that the intake verifies with accepts it."""
        secret = settings().webhook_secrets["app"][0].get_secret_value()

        headers = signed_headers(EVENT, secret, "msg_1")

        assert Webhook(secret).verify(EVENT, headers) == json.loads(EVENT)

    def test_it_goes_to_this_machines_intake(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Without --url the event goes where the stack of the data directory listens."""
        posted = intercept(monkeypatch, httpx.Response(202, json={"state": "provisioning"}))
        event = tmp_path / "event.json"
        event.write_bytes(EVENT)

        sent = gangway("send", str(event), "--id", "msg_1")

        assert sent.exit_code == 0
        assert json.loads(sent.stdout) == {"state": "provisioning"}
        assert posted == [(f"{local_intake()}/webhooks/app", EVENT, "msg_1")]

    def test_a_refusal_is_a_failure(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The answer is printed all the same, and the exit status is not 0."""
        intercept(monkeypatch, httpx.Response(422, json={"summary": "Validation failed"}))

        sent = gangway("send", "-", stdin=EVENT)

        assert sent.exit_code == 1
        assert "Validation failed" in sent.output
        assert "the intake answered 422" in sent.output

    def test_an_unknown_source_is_named(self) -> None:
        """The message lists the sources that have a secret."""
        sent = gangway("send", "-", "--source", "clerk", stdin=EVENT)

        assert sent.exit_code == 1
        assert "no webhook secret for source 'clerk'; GANGWAY_WEBHOOK_SECRETS has app" in sent.output

    def test_nobody_listening_is_explained(self) -> None:
        """A refused connection says which URL and what to check."""
        sent = gangway("send", "-", "--url", "http://127.0.0.1:1", stdin=EVENT)

        assert sent.exit_code == 1
        assert "http://127.0.0.1:1/webhooks/app" in sent.output
        assert "Is the intake up" in sent.output

    def test_a_missing_file_is_named(self) -> None:
        """The message is the path and why."""
        sent = gangway("send", "nowhere.json")

        assert sent.exit_code == 1
        assert "nowhere.json: No such file or directory" in sent.output

    def test_bytes_that_are_no_text_are_refused(self) -> None:
        """A signature is over text, so the event has to be UTF-8."""
        with pytest.raises(SendError, match="not UTF-8"):
            signed_headers(b"\xff", "whsec_AAAA", "msg_1")


def intercept(monkeypatch: pytest.MonkeyPatch, answer: httpx.Response) -> list[tuple[str, bytes, str]]:
    posted: list[tuple[str, bytes, str]] = []

    def post(url: str, *, content: bytes, headers: dict[str, str], **_: object) -> httpx.Response:
        posted.append((url, content, headers["webhook-id"]))
        return answer

    monkeypatch.setattr(httpx, "post", post)
    return posted


def test_the_example_is_a_valid_event(example: Callable[[], bytes]) -> None:
    """The file that the documentation sends is accepted by the intake's own rules, with no live key."""
    from worker.intake.events import TenantCreated, parse

    event = parse(example())

    assert isinstance(event, TenantCreated)
    assert b"sk_test_example" in example()


@pytest.fixture
def example() -> Callable[[], bytes]:
    return (Path(__file__).parents[2] / "examples" / "tenant-created.json").read_bytes
