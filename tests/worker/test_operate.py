"""`gangway status` and `gangway send`, as an operator uses them by hand."""

import json
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import fakeredis
import httpx
import pytest
from standardwebhooks.webhooks import Webhook
from typer.testing import CliRunner, Result

from foundation.database import Database, utc_now
from foundation.migrations import upgrade
from models import MIGRATIONS, Attempt, AttemptOutcome, Connection, InboundEvent, Lane, State, Step, Work
from tests.support.rows import a_connection, a_tenant, add, added
from worker import views
from worker.cli import app, tables
from worker.cli import limits as cli_limits
from worker.cli.sending import SendError, local_intake, signed_headers
from worker.cli.tables import age, next_action, plain
from worker.limits import RedisLimits
from worker.queue.history import write_moves
from worker.settings import STACK_FILE, SettingsError, settings
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


def add_tenant(database: Database, external_id: str, state: State, **values: Any) -> Connection:
    tenant = a_tenant(external_id=external_id, name=f"Name of {external_id}")
    add(database, tenant)
    return added(database, tenant, slot="default", state=state, **values)


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

        assert [tenant["external_id"] for tenant in view["tenants"]] == ["c", "b", "a"]
        assert view["tenant_count"] == 3
        assert view["connections_by_state"] == {"failed": 1, "ready": 1, "requested": 1}
        assert view["oldest_waiting"]["external_id"] == "b"

    def test_a_long_list_is_cut_and_says_so(self, stack: Database) -> None:
        """With more tenants than asked for, the figures still count all of them."""
        for number in range(3):
            add_tenant(stack, f"org_{number}", State.READY)

        shown = gangway("status", "--limit", "2")

        assert "2 of 3 tenants; --limit shows more." in shown.output
        assert "Connections: 3 ready." in shown.output

    def test_a_large_tenant_hides_no_other(self, stack: Database) -> None:
        """Many failed connections of one tenant leave room for other tenants that failed after it."""
        add_tenant(stack, "fine", State.READY)
        large = a_tenant(external_id="large")
        add(stack, large, *[a_connection(large, slot=f"s{n}", state=State.FAILED) for n in range(10)])
        add_tenant(stack, "other", State.FAILED)

        view = json.loads(gangway("status", "--json", "--limit", "2").stdout)
        shown = gangway("status").output

        assert [tenant["external_id"] for tenant in view["tenants"]] == ["large", "other"]
        assert "and 5 more" in shown

    def test_figures_are_counted_up_to_a_limit(
        self, stack: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Where the counting ends the figure says so."""
        for module in (views, tables):
            monkeypatch.setattr(module, "COUNTED_AT_MOST", 2)
        for number in range(3):
            add_tenant(stack, f"org_{number}", State.READY)

        shown = gangway("status", "--limit", "1").output

        assert "1 of 2 or more tenants" in shown
        assert "Connections: 2 or more ready." in shown

    def test_a_removed_tenant_without_connections_is_removed(self, stack: Database) -> None:
        """As the API says it."""
        add(stack, a_tenant(external_id="gone", is_removed=True))

        assert json.loads(gangway("status", "gone", "--json").stdout)["state"] == "removed"
        assert "removed" in gangway("status").output

    def test_an_incident_is_told_as_one(self, stack: Database) -> None:
        """A provider that refuses many tenants is one line, which tells how many."""
        for n in range(5):
            refused = {"error_code": "credential_rejected", "refused_at": utc_now(), "ready_at": NOW}
            add_tenant(stack, f"org_{n}", State.DEGRADED, **refused)

        shown = gangway("status").output
        (incident,) = json.loads(gangway("status", "--json").stdout)["incidents"]

        assert "Incident: stripe refuses 5 tenants (credential_rejected)" in shown
        assert (incident["provider"], incident["tenants"]) == ("stripe", 5)

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
            failed = session.get_one(Connection, connection.id)
            write_moves(session, [failed.transition_to(State.FAILED, why="the key was refused")])
            session.get_one(Work, (connection.id, Lane.LIFECYCLE)).want(None, due_at=utc_now())
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

    def test_a_refused_change_is_told_beside_the_state(self, stack: Database) -> None:
        """The sync goes on without the change; why and what to do is said."""
        change = {"code": "stream_immutable", "message": "422", "advice": "Delete it first."}
        add_tenant(stack, "org_1", State.READY, change_problem=change)

        shown = gangway("status", "org_1").output
        view = json.loads(gangway("status", "org_1", "--json").stdout)

        assert "org_1 Name of org_1 is ready" in shown
        assert "last change: stream_immutable: 422" in shown
        assert "what to do: Delete it first." in shown
        assert view["connections"][0]["change_error"] == change

    def test_events_are_told_with_what_became_of_them(self, stack: Database) -> None:
        """The newest first; one that came too late says that it changed nothing, and why."""
        connection = add_tenant(stack, "org_1", State.READY)
        answers = [{"applied": True, "reason": None}, {"applied": False, "reason": "nothing is newer"}, {}]
        for n, answer in enumerate(answers):
            at = NOW + timedelta(minutes=n)
            known = {"source": "app", "message_id": f"msg_{n}", "body_digest": "", "type": "tenant.updated"}
            event = InboundEvent(
                **known, occurred_at=at, received_at=at, tenant_id=connection.tenant_id, answer=answer
            )
            add(stack, event)

        shown = gangway("status", "org_1").output
        events = json.loads(gangway("status", "org_1", "--json").stdout)["last_events"]

        assert [(each["message_id"], each["applied"]) for each in events] == [
            ("msg_2", True),
            ("msg_1", False),
            ("msg_0", True),
        ]
        assert "no: nothing is newer" in shown
        assert shown.index("msg_2") < shown.index("msg_1")

    def test_a_large_tenant_is_cut_and_says_so(
        self, stack: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Some of its connections, and how many there are."""
        monkeypatch.setattr(views, "CONNECTIONS_SHOWN", 2)
        large = a_tenant(external_id="large")
        add(stack, large, *[a_connection(large, state=State.READY) for _ in range(5)])

        shown = gangway("status", "large").output
        view = json.loads(gangway("status", "large", "--json").stdout)

        assert "2 of 5 connections." in shown
        assert (len(view["connections"]), view["connection_count"]) == (2, 5)

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

    def test_it_needs_no_more_than_the_database(
        self, stack: Database, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        """In a shell that knows nothing of the API, the vault and the broker it works all the same."""
        add_tenant(stack, "org_1", State.READY)
        monkeypatch.setenv("GANGWAY_DATA_DIR", str(tmp_path / "elsewhere"))
        url = stack.url.render_as_string(hide_password=False)
        monkeypatch.setenv("GANGWAY_DATABASE_URL", url)

        shown = gangway("status")

        assert shown.exit_code == 0
        assert "org_1" in shown.output
        assert "held back is unknown: GANGWAY_BROKER_URL is not set." in shown.output

    def test_the_stack_is_found_by_its_directory(
        self, stack: Database, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        """`--data-dir` names the stack, as `gangway up` does."""
        add_tenant(stack, "org_1", State.READY)
        monkeypatch.setenv("GANGWAY_DATA_DIR", str(tmp_path / "elsewhere"))

        assert "org_1" in gangway("status", "--data-dir", str(tmp_path)).output

    def test_without_settings_the_missing_one_is_named(self, tmp_path: Path) -> None:
        """Where there is no stack and no setting, only the database's is asked for."""
        with pytest.raises(SettingsError) as caught:
            CliRunner().invoke(
                app, ["status", "--data-dir", str(tmp_path / "elsewhere")], catch_exceptions=False
            )

        assert str(caught.value).splitlines()[1:] == ["  GANGWAY_DATABASE_URL: Field required"]

    def test_customers_cannot_command_the_terminal(self) -> None:
        """Control characters in a name are shown as replacement characters."""
        assert "\x1b" not in plain("red \x1b[31m").plain


class TestLimits:
    """What holds back calls of the Management API, in the words of the overview and for programs."""

    @pytest.fixture
    def redis(self, monkeypatch: pytest.MonkeyPatch) -> fakeredis.FakeRedis:
        redis = fakeredis.FakeRedis()
        monkeypatch.setattr(cli_limits, "redis_client", lambda *_, **__: redis)
        return redis

    @pytest.mark.usefixtures("stack", "redis")
    def test_nothing_is_held_back(self) -> None:
        """A Redis that nobody has used yet."""
        limits = json.loads(gangway("status", "--json").stdout)["limits"]

        assert limits == {
            "breaker": "closed",
            "paused_for_s": 0,
            "tokens": None,
            "unknown_because": None,
        }
        assert "Management API: no call is held back." in gangway("status").output

    @pytest.mark.usefixtures("stack")
    def test_what_is_held_back_is_told(
        self, redis: fakeredis.FakeRedis, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The open breaker, the pause that was asked for, and the bucket that is empty."""
        monkeypatch.setenv("GANGWAY_API_RATE", "0.001")
        monkeypatch.setenv("GANGWAY_API_BURST", "4")
        limits = RedisLimits(redis, rate=0.001, burst=4)
        assert limits.reserve(4).calls == 4
        limits.pause(timedelta(seconds=40))
        redis.hset("gangway:api:breaker", "open_since", "1")

        shown = gangway("status").output
        told = json.loads(gangway("status", "--json").stdout)["limits"]

        assert "it fails for everyone, and single calls try it again; it asked for a pause, 40 s of" in shown
        assert "the calls that GANGWAY_API_RATE allows are used up" in shown
        assert told["breaker"] == "open"
        assert 30 < told["paused_for_s"] <= 40
        assert 0 <= told["tokens"] < 1

    def test_bucket_has_what_ran_into_it_meanwhile(self, redis: fakeredis.FakeRedis) -> None:
        """A bucket that nobody has used for a while is full again; one never used is full."""
        limits = RedisLimits(redis, rate=10, burst=4)
        assert limits.state().tokens == 4
        redis.hset("gangway:api:bucket", mapping={"tokens": "0", "at": str(time.time() - 60)})

        assert limits.state().tokens == 4

    @pytest.mark.parametrize("url", ["redis://127.0.0.1:1/0", "no url"])
    def test_a_redis_that_cannot_be_asked(
        self, stack: Database, monkeypatch: pytest.MonkeyPatch, url: str
    ) -> None:
        """The database is shown all the same; that the limits are not known is said."""
        monkeypatch.setenv("GANGWAY_BROKER_URL", url)
        add_tenant(stack, "org_1", State.READY)

        shown = gangway("status")
        view = json.loads(gangway("status", "--json").stdout)

        assert (shown.exit_code, "org_1" in shown.output) == (0, True)
        assert "whether calls are held back is unknown: Redis cannot be asked" in shown.output
        assert view["limits"]["breaker"] is None
        assert view["tenant_count"] == 1


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

    def test_it_needs_no_more_than_the_secret(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        """A machine that only sends has the secrets of its webhooks, and nothing else of ours."""
        posted = intercept(monkeypatch, httpx.Response(202, json={}))
        monkeypatch.setenv("GANGWAY_DATA_DIR", str(tmp_path / "elsewhere"))
        monkeypatch.setenv("GANGWAY_WEBHOOK_SECRETS", json.dumps({"app": [f"whsec_{'QUFB' * 8}"]}))

        sent = gangway("send", "-", "--url", "https://intake.example", stdin=EVENT)

        assert sent.exit_code == 0
        assert [url for url, _, _ in posted] == ["https://intake.example/webhooks/app"]

    def test_the_stack_is_found_by_its_directory(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        """`--data-dir` gives both the secret and the address."""
        posted = intercept(monkeypatch, httpx.Response(202, json={}))
        monkeypatch.setenv("GANGWAY_DATA_DIR", str(tmp_path / "elsewhere"))

        assert gangway("send", "-", "--data-dir", str(tmp_path), stdin=EVENT).exit_code == 0
        assert [url for url, _, _ in posted] == [f"{local_intake(tmp_path)}/webhooks/app"]

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
