"""Logs: one line for each event, for machines or for people, and no secret in any of them."""

import io
import json
import logging
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from foundation.logs import configure_logs, mask_secrets
from foundation.secret_shapes import MASK

STRIPE = "sk_test_4eC39HqLyjWDarjtT1zdp7dc"
RESTRICTED = "rk_live_51H8mXyzABCDEF"
WEBHOOK = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
PASSWORD = "p4ssw0rd-of-redis"


class Output(io.StringIO):
    """Standard output, as a pipe or as a terminal."""

    def __init__(self, *, is_terminal: bool) -> None:
        super().__init__()
        self._is_terminal = is_terminal

    def isatty(self) -> bool:
        return self._is_terminal


@pytest.fixture
def restored_logging() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


@pytest.fixture(params=[False, True], ids=["pipe", "terminal"])
def output(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, restored_logging: None) -> Output:
    output = Output(is_terminal=request.param)
    monkeypatch.setattr(sys, "stdout", output)
    configure_logs("DEBUG", service="test")
    return output


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch, restored_logging: None) -> Output:
    output = Output(is_terminal=False)
    monkeypatch.setattr(sys, "stdout", output)
    configure_logs("INFO", service="test")
    return output


def only_line(output: Output) -> dict[str, Any]:
    (line,) = output.getvalue().splitlines()
    return dict(json.loads(line))


def test_off_a_terminal_each_event_is_one_json_line(lines: Output) -> None:
    """A line carries the event, its keys, the bound context, the service, the level and the time."""
    with structlog.contextvars.bound_contextvars(tenant_id="t-1"):
        structlog.get_logger("worker.x").info("sync.created", attempt=2)

    line = only_line(lines)

    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "event": "sync.created",
        "attempt": 2,
        "tenant_id": "t-1",
        "service": "test",
        "level": "info",
        "logger": "worker.x",
    }


def test_lines_of_libraries_take_the_same_way(lines: Output) -> None:
    """What a library logs in the standard way comes out as the same kind of line, masked as well."""
    logging.getLogger("some.library").warning("token is %s", STRIPE)

    line = only_line(lines)

    assert line["event"] == f"token is {MASK}"
    assert line["logger"] == "some.library"
    assert line["service"] == "test"


def test_multiline_text_stays_one_line(lines: Output) -> None:
    """Nobody can forge a log line with a line break."""
    structlog.get_logger().info("event.refused", source='x"}\n{"event": "forged"}')

    assert only_line(lines)["event"] == "event.refused"


@pytest.mark.parametrize("name", ["httpx", "kombu", "uvicorn.access", "alembic"])
def test_chatter_is_left_out(lines: Output, name: str) -> None:
    """Libraries that log every request are heard from warnings on."""
    logging.getLogger(name).info("GET /")
    assert not lines.getvalue()

    logging.getLogger(name).warning("trouble")
    assert only_line(lines)["event"] == "trouble"


SAYINGS: dict[str, dict[str, Any]] = {
    "stripe key in text": {"reason": f"bad key {STRIPE}, sorry"},
    "restricted key": {"reason": f"{RESTRICTED}"},
    "webhook secret": {"reason": f"({WEBHOOK})"},
    "bearer": {"header": f"Authorization: Bearer {PASSWORD}"},
    "URL": {"broker": f"redis://:{PASSWORD}@127.0.0.1:6379/0"},
    "URL with user": {"database": f"postgresql+psycopg://gangway:{PASSWORD}@db/gangway"},
    "URL whose password has an at": {"database": f"postgresql://gangway:a@{PASSWORD}@db/gangway"},
    "two URLs": {"brokers": f"redis://a:{PASSWORD}@one,redis://b:{PASSWORD}@two"},
    "key names it": {"api_token": PASSWORD},
    "key names it, in capitals": {"GANGWAY_OPERATOR_TOKEN": PASSWORD},
    "key names it, a number": {"client_secret": 123456789},
    "authorization": {"authorization": f"Basic {PASSWORD}"},
    "nested": {"body": {"properties": {"secret": PASSWORD, "name": STRIPE}}},
    "in a list": {"args": ["x", [STRIPE, {"password": PASSWORD}]]},
    "in a tuple": {"args": (STRIPE,)},
    "bytes": {"raw": f"key={STRIPE}".encode()},
    "an exception": {"error": ValueError(f"bad key {STRIPE}")},
    "an exception in a list": {"errors": [ValueError(f"redis://:{PASSWORD}@h")]},
}


@pytest.mark.parametrize("facts", SAYINGS.values(), ids=SAYINGS.keys())
def test_secrets_are_masked(output: Output, facts: dict[str, Any]) -> None:
    """Whatever is logged, under whatever key and however deep: the secret itself is not in the output."""
    structlog.get_logger().warning("something.happened", **facts)

    said = output.getvalue()
    assert "something.happened" in said
    assert MASK in said
    assert not [secret for secret in (STRIPE, RESTRICTED, WEBHOOK, PASSWORD, "123456789") if secret in said]


@pytest.mark.parametrize("by_library", [False, True])
def test_secrets_in_tracebacks_are_masked(output: Output, by_library: bool) -> None:
    """A traceback comes along whole, without the secrets that the error's text quotes or that locals hold."""
    local = STRIPE  # a traceback with local variables would show it
    log: Any = logging.getLogger("library") if by_library else structlog.get_logger()

    try:
        raise ConnectionError(f"cannot reach redis://:{PASSWORD}@127.0.0.1 with {STRIPE}")  # noqa: TRY301
    except ConnectionError:
        log.exception("step.broken")

    said = output.getvalue()
    assert "ConnectionError: cannot reach" in said
    assert "Traceback" in said
    assert PASSWORD not in said
    assert local not in said


ORDINARY: dict[str, Any] = {
    "number": 3,
    "ratio": 0.5,
    "flag": True,
    "nothing": None,
    "text": "stripe:customer",
    "url": "http://127.0.0.1:8000/v1/syncs",
    "mail": "a@b.example",
    "list": ["a", 1, None],
    "map": {"a": {"b": 1}},
}


@pytest.mark.parametrize("key", ORDINARY)
def test_ordinary_values_stay(key: str) -> None:
    """What is no secret is logged as it is."""
    assert mask_secrets(None, "info", {key: ORDINARY[key]}) == {key: ORDINARY[key]}


def test_unset_secret_shows_as_unset() -> None:
    """That a secret is missing is no secret."""
    assert mask_secrets(None, "info", {"api_token": None}) == {"api_token": None}
