"""The Management API's client: what is sent, what is understood, and what every failure means."""

import asyncio
import json
import pickle
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import httpx
import pytest
import structlog
import time_machine

from tests.support.rows import NOW
from worker.errors import (
    ApiRejectedError,
    ApiTokenError,
    ApiUnavailableError,
    NotFoundError,
    ProvisioningError,
    RateLimitedError,
    TransientError,
    UnusableAnswerError,
)
from worker.management import AsyncManagementApi, Health, ManagementApi, RemoteSync

TOKEN = "canary-token-of-the-api"
BODY: dict[str, Any] = {"a": 1}
Answer = Callable[[httpx.Request], httpx.Response]


def api_with(answer: Answer) -> ManagementApi:
    return ManagementApi("http://api.test/base", TOKEN, transport=httpx.MockTransport(answer))


def answering(status: int = 200, **how: Any) -> ManagementApi:
    return api_with(lambda _request: httpx.Response(status, **how))


OPERATIONS: dict[str, tuple[Callable[[ManagementApi], Any], str, str, Any, Any]] = {
    # the call, its method, its path, its body, and an answer
    "import credential": (lambda a: a.import_credential(BODY), "POST", "credentials", BODY, {"id": "c"}),
    "get credential": (lambda a: a.get_credential("c1"), "GET", "credentials/c1", None, {"id": "c"}),
    "delete credential": (lambda a: a.delete_credential("c1"), "DELETE", "credentials/c1", None, None),
    "create sync": (lambda a: a.create_sync(BODY, idempotency_key="k"), "POST", "syncs", BODY, {"id": "s"}),
    "get sync": (lambda a: a.get_sync("s1"), "GET", "syncs/s1", None, {"id": "s"}),
    "find syncs": (lambda a: a.find_syncs({"k": "v"}), "GET", "syncs", None, {"data": []}),
    "update sync": (lambda a: a.update_sync("s1", BODY), "PATCH", "syncs/s1", BODY, {"id": "s"}),
    "delete sync": (lambda a: a.delete_sync("s1"), "DELETE", "syncs/s1", None, None),
    "list streams": (lambda a: a.list_streams(), "GET", "streams", None, {"data": []}),
    "create stream": (lambda a: a.create_stream("x"), "POST", "streams", {"slug": "x"}, {"id": "t"}),
}
EACH = pytest.mark.parametrize(
    ("call", "method", "path", "body", "answer"), OPERATIONS.values(), ids=OPERATIONS.keys()
)
CALLS = pytest.mark.parametrize("call", [o[0] for o in OPERATIONS.values()], ids=OPERATIONS.keys())


@EACH
@pytest.mark.parametrize("status", [200, 201, 204])
def test_operation(
    call: Callable[[ManagementApi], Any], method: str, path: str, body: Any, answer: Any, status: int
) -> None:
    """Each operation sends what the contract says, with the token, and takes any success."""
    sent: list[httpx.Request] = []

    def take(request: httpx.Request) -> httpx.Response:
        sent.append(request)
        return httpx.Response(status, json=answer) if answer is not None else httpx.Response(status)

    call(api_with(take))

    (request,) = sent
    assert (request.method, request.url.path) == (method, f"/base/v1/{path}")
    assert request.headers["Authorization"] == f"Bearer {TOKEN}"
    assert request.headers["Accept"] == "application/json"
    assert (json.loads(request.content) if request.content else None) == body


def test_metadata_filter_is_json() -> None:
    """The filter of the list is JSON in the query; the idempotency key is a header."""
    sent: list[httpx.Request] = []

    def take(request: httpx.Request) -> httpx.Response:
        sent.append(request)
        return httpx.Response(200, json={"data": []} if request.method == "GET" else {"id": "s"})

    api = api_with(take)

    api.find_syncs({"k": "ä&b"})
    api.create_sync({}, idempotency_key="key-1")

    assert json.loads(sent[0].url.params["metadata"]) == {"k": "ä&b"}
    assert sent[1].headers["Idempotency-Key"] == "key-1"


@pytest.mark.parametrize("object_id", ["../streams", "a/b", "..", ".", "?x=1", "#f", "%2e%2e", "a b", "ä"])
def test_id_cannot_name_another_path(object_id: str) -> None:
    """Whatever an id from outside holds, it stays one segment below its collection."""
    paths: list[bytes] = []

    def take(request: httpx.Request) -> httpx.Response:
        paths.append(request.url.raw_path)
        return httpx.Response(200, json={"id": "x"})

    api_with(take).get_credential(object_id)

    (path,) = paths
    assert path.startswith(b"/base/v1/credentials/")
    assert path.count(b"/") == 4
    assert path.removeprefix(b"/base/v1/credentials/") not in {b"", b".", b".."}
    assert b"?" not in path


TIMESTAMPS = {
    "2023-12-15 01:29:29": datetime(2023, 12, 15, 1, 29, 29, tzinfo=UTC),
    "2024-02-20T02:10:52Z": datetime(2024, 2, 20, 2, 10, 52, tzinfo=UTC),
    "2024-11-10T18:38:00.070453Z": datetime(2024, 11, 10, 18, 38, 0, 70453, tzinfo=UTC),
    "2024-07-28T20:11:43.384315": datetime(2024, 7, 28, 20, 11, 43, 384315, tzinfo=UTC),
    "2024-07-28T20:11:43.384315+00:00": datetime(2024, 7, 28, 20, 11, 43, 384315, tzinfo=UTC),
    "2024-07-28 20:11:43.3+02:00": datetime(2024, 7, 28, 18, 11, 43, 300000, tzinfo=UTC),
    "2024-07-28T20:11:43-0530": datetime(2024, 7, 29, 1, 41, 43, tzinfo=UTC),
}


@pytest.mark.parametrize(("text", "moment"), TIMESTAMPS.items())
def test_every_documented_timestamp_is_understood(text: str, moment: datetime) -> None:
    """Space or T, up to six digits of a second, Z, an offset or nothing: all are instants in UTC."""
    sync = RemoteSync.model_validate({"id": "s", "created_at": text, "initial_backfill_completed_at": text})

    assert sync.initial_backfill_completed_at == sync.created_at == moment
    assert sync.created_at is not None
    assert sync.created_at.utcoffset() == timedelta(0)


@pytest.mark.parametrize("text", ["2024-06-31T00:00:00Z", "yesterday", "", "0001-01-01T00:00:00+14:00"])
def test_impossible_creation_date_does_no_harm(text: str) -> None:
    """There is a June 31 in the documentation: a creation date that cannot be read counts as unknown."""
    assert RemoteSync.model_validate({"id": "s", "created_at": text}).created_at is None


GEN1_PROVIDER = {
    "status": "warn",
    "credential": {"status": "ok"},
    "provider": {"status": "warn", "notes": ["slow", "it is"]},
}
GEN1_CREDENTIAL = {"status": "warn", "credential": {"status": "error", "notes": ["revoked"]}}
HEALTHS: list[tuple[Any, str, str | None, str | None]] = [
    ({"status": "healthy", "sync_id": "s"}, "healthy", None, None),
    ({"status": "ok", "notes": [], "time": "2024-01-01 00:00:00"}, "healthy", None, ""),
    (GEN1_PROVIDER, "warning", "provider", "slow it is"),
    (GEN1_CREDENTIAL, "error", "credential", "revoked"),
    ({"status": "error", "reason": {"part": "credential", "message": "401"}}, "error", "credential", "401"),
    ({"status": "error", "reason": {"part": "moon", "message": 7}}, "error", None, "7"),
    ({"status": "error", "reason": "it broke"}, "error", None, "it broke"),
    ({"status": "ERROR ", "message": "shouting"}, "error", None, "shouting"),
    ({"status": "waiting"}, "waiting", None, None),
    ({"status": 7}, "unknown", None, None),
    ({"status": None}, "unknown", None, None),
    ({}, "unknown", None, None),
    (None, "unreported", None, None),
    ([], "unreported", None, None),
    ("ok", "healthy", None, None),
    ({"status": "x" * 1000}, "x" * 64, None, None),
    ({"status": "error", "reason": "a\x00b\ud800"}, "error", None, "a\ufffdb?"),
]


@pytest.mark.parametrize(("value", "status", "part", "message"), HEALTHS, ids=lambda value: str(value)[:40])
def test_every_shape_of_health_is_understood(
    value: Any, status: str, part: str | None, message: str | None
) -> None:
    """The three documented shapes, both vocabularies, and whatever else an API may say."""
    health = RemoteSync.model_validate({"id": "s", "health": value}).health

    assert (health.status, health.part) == (status, part)
    assert (health.message or None) == (message or None)


def test_only_errors_blame_the_credential() -> None:
    """A warning about a credential is no refusal of it."""
    assert not Health.model_validate({"status": "warn", "credential": {"status": "warn"}}).blames_credential


@pytest.mark.parametrize(
    "shape", [{"id": "s"}, {"data": {"id": "s"}}, [{"id": "s"}], {"data": [{"id": "s"}]}]
)
def test_object_may_be_wrapped(shape: Any) -> None:
    """Bare as documented, wrapped, or as a list of one: the same object."""
    assert answering(json=shape).get_sync("s").id == "s"


@pytest.mark.parametrize("shape", [{"data": [{"id": "t", "slug": "x"}]}, [{"id": "t", "slug": "x"}]])
def test_list_may_be_bare(shape: Any) -> None:
    """A list comes under `data`, or bare."""
    assert [stream.slug for stream in answering(json=shape).list_streams()] == ["x"]


def test_unknown_fields_and_loose_values_do_no_harm() -> None:
    """Undocumented fields are passed over; metadata may be a list; a credential may be embedded."""
    sync = RemoteSync.model_validate(
        {"id": "s", "new": [1], "metadata": [], "credential": {"id": "c9"}, "rate_limit": None}
    )

    assert (sync.metadata, sync.credential_id, sync.status) == ({}, "c9", "active")


def test_find_does_not_trust_the_filter() -> None:
    """An API that ignores the filter returns everything; only what carries the metadata counts."""
    syncs = [{"id": "a", "metadata": {"k": "v", "x": []}}, {"id": "b", "metadata": {"k": "w"}}, {"id": "c"}]

    assert [sync.id for sync in answering(json={"data": syncs}).find_syncs({"k": "v"})] == ["a"]


TRY_LATER = [408, 425, 500, 502, 503, 504, 599]
STATUSES: list[tuple[int, type[ProvisioningError]]] = [
    *((status, ApiUnavailableError) for status in TRY_LATER),
    *((status, ApiRejectedError) for status in (400, 402, 409, 410, 415, 422, 501)),
    (404, NotFoundError),
    (405, UnusableAnswerError),
    (401, ApiTokenError),
    (403, ApiTokenError),
    (429, RateLimitedError),
    *((status, UnusableAnswerError) for status in (301, 302, 303, 307, 308, 304)),
]


@pytest.mark.parametrize(("status", "kind"), STATUSES)
def test_each_status_has_its_error(status: int, kind: type[ProvisioningError]) -> None:
    """Every refusal becomes one of our errors, by what can be done about it."""
    with pytest.raises(ProvisioningError) as caught:
        answering(status, json={"summary": "because"}).create_sync({}, idempotency_key="k")

    assert type(caught.value) is kind
    assert kind is UnusableAnswerError or "because" in str(caught.value)


@pytest.mark.parametrize("status", [*TRY_LATER, 302])
def test_failed_change_may_have_happened(status: int) -> None:
    """After a 5xx nobody knows whether a change was made; a read changes nothing."""
    with pytest.raises(TransientError) as change:
        answering(status).create_sync({}, idempotency_key="k")
    with pytest.raises(TransientError) as read:
        answering(status).get_sync("s")

    assert (change.value.may_have_happened, read.value.may_have_happened) == (True, False)


@pytest.mark.parametrize("status", [401, 403, 429])
def test_refused_change_has_not_happened(status: int) -> None:
    """What was refused at the door was not done."""
    with pytest.raises(TransientError) as caught:
        answering(status).create_sync({}, idempotency_key="k")

    assert not caught.value.may_have_happened


BREAKS: list[tuple[type[httpx.RequestError], bool]] = [
    (httpx.ConnectError, False),
    (httpx.ConnectTimeout, False),
    (httpx.PoolTimeout, False),
    (httpx.ReadTimeout, True),
    (httpx.ReadError, True),
    (httpx.WriteTimeout, True),
    (httpx.WriteError, True),
    (httpx.CloseError, True),
    (httpx.RemoteProtocolError, True),
    (httpx.LocalProtocolError, True),
    (httpx.ProxyError, True),
    (httpx.DecodingError, True),
]


@pytest.mark.parametrize(("kind", "may_have_happened"), BREAKS)
def test_broken_connection_is_transient(kind: type[httpx.RequestError], may_have_happened: bool) -> None:
    """Every way a connection breaks is worth another try, and says whether the request may have arrived."""

    def broken(request: httpx.Request) -> httpx.Response:
        raise kind(f"with {TOKEN}", request=request)

    with pytest.raises(ApiUnavailableError) as caught:
        api_with(broken).create_sync({}, idempotency_key="k")

    assert caught.value.may_have_happened is may_have_happened
    assert TOKEN not in str(caught.value)


UNUSABLE = {
    "no JSON": {"content": b"<html>"},
    "empty": {"content": b""},
    "null": {"json": None},
    "a text": {"json": "ok"},
    "no id": {"json": {"name": "x"}},
    "an empty id": {"json": {"id": ""}},
    "an id of another kind": {"json": {"id": ["s"]}},
    "an endless id": {"json": {"id": "x" * 65}},
    "a list of two": {"json": [{"id": "a"}, {"id": "b"}]},
    "not UTF-8": {"content": b"\xff\xfe{}"},
    "deep": {"content": b"[" * 100_000},
    "an impossible completion": {"json": {"id": "s", "initial_backfill_completed_at": "June 31"}},
}


@pytest.mark.parametrize("how", UNUSABLE.values(), ids=UNUSABLE.keys())
def test_success_that_is_not_understood(how: dict[str, Any]) -> None:
    """A success without the promised body is worth another try; it may have happened; it is not quoted."""
    with pytest.raises(UnusableAnswerError) as caught:
        answering(**how).create_sync({}, idempotency_key="k")

    assert caught.value.may_have_happened


def test_gone_counts_as_deleted() -> None:
    """Deleting what is not there is done."""
    answering(404).delete_sync("s")
    answering(404).delete_credential("c")


ERROR_BODIES: list[tuple[Any, str]] = [
    ({"json": {"summary": "bad", "validation_errors": {"name": ["short", "odd"]}}}, "bad (name: short, odd)"),
    ({"json": {"summary": "bad", "validation_errors": {"a": {"b": ["c"]}}}}, "bad (a: b: c)"),
    ({"json": {"summary": "bad", "validation_errors": []}}, "bad"),
    ({"json": {"summary": None}}, "Unprocessable Entity"),
    ({"json": ["bad"]}, "Unprocessable Entity"),
    ({"content": b"<html>"}, "Unprocessable Entity"),
    ({"content": b"[" * 100_000}, "Unprocessable Entity"),
]


@pytest.mark.parametrize(("how", "said"), ERROR_BODIES, ids=lambda value: str(value)[:30])
def test_reasons_are_read_from_any_body(how: Any, said: str) -> None:
    """The summary and the reasons by field, nested or not; without them, the status speaks."""
    with pytest.raises(ApiRejectedError) as caught:
        answering(422, **how).get_sync("s")

    assert str(caught.value) == said


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("30", 30.0),
        ("0", 0.0),
        ("1.5", 1.5),
        ("-5", 0.0),
        (format_datetime(NOW + timedelta(seconds=90), usegmt=True), 90.0),
        (format_datetime(NOW - timedelta(seconds=90), usegmt=True), 0.0),
        ("soon", None),
        ("", None),
        ("nan", None),
        ("inf", None),
        ("1e999", None),
        ("Mon, 99 Foo 2026 00:00:00 GMT", None),
        (None, None),
    ],
)
@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_is_read_in_both_forms(status: int, header: str | None, seconds: float | None) -> None:
    """Seconds or a date; what is neither counts as absent."""
    headers = {"Retry-After": header} if header is not None else {}

    with time_machine.travel(NOW, tick=False), pytest.raises(TransientError) as caught:
        answering(status, headers=headers).get_sync("s")

    assert caught.value.retry_after_s == (pytest.approx(seconds, abs=1) if seconds is not None else None)


@CALLS
def test_token_is_in_no_error_and_no_representation(call: Callable[[ManagementApi], Any]) -> None:
    """Neither the client nor its errors show the token."""
    api = answering(500)

    with pytest.raises(TransientError) as caught:
        call(api)

    assert TOKEN not in f"{api!r} {caught.value!r} {caught.value} {caught.value.args}"


def test_request_id_comes_from_the_log_context() -> None:
    """The correlation id that log lines carry goes along with each request, and only while it is bound."""
    seen: list[str | None] = []

    def take(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers.get("X-Request-Id"))
        return httpx.Response(200, json={"id": "s"})

    api = api_with(take)
    with structlog.contextvars.bound_contextvars(correlation_id="abc"):
        api.get_sync("s")
    with structlog.contextvars.bound_contextvars(correlation_id=None):
        api.get_sync("s")
    api.get_sync("s")

    assert seen == ["abc", None, None]


def test_many_are_read_at_once_and_fail_alone() -> None:
    """The async face reads each sync once, and gives for each the sync or its own error."""
    asked: list[str] = []

    async def answer(request: httpx.Request) -> httpx.Response:
        sync_id = request.url.path.rsplit("/", 1)[1]
        asked.append(sync_id)
        if sync_id == "broken":
            raise httpx.ReadTimeout("slow", request=request)
        return httpx.Response(404) if sync_id == "gone" else httpx.Response(200, json={"id": sync_id})

    async def read() -> dict[str, RemoteSync | ProvisioningError]:
        async with AsyncManagementApi("http://api.test", TOKEN, transport=httpx.MockTransport(answer)) as api:
            return await api.get_syncs(["a", "gone", "broken", "a", *(str(n) for n in range(100))])

    found = asyncio.run(read())

    assert isinstance(found["a"], RemoteSync)
    assert isinstance(found["gone"], NotFoundError)
    assert isinstance(found["broken"], ApiUnavailableError)
    assert len(found) == len(asked) == 103


def test_list_is_read_as_far_as_asked() -> None:
    """Of a long list only the syncs that are due are read; one that is odd does not matter then."""
    syncs = [{"id": "a"}, {"id": "b", "metadata": "odd"}, "odd", {"id": ["odd"]}]

    async def read() -> dict[str, RemoteSync]:
        transport = httpx.MockTransport(lambda _request: httpx.Response(200, json={"data": syncs}))
        async with AsyncManagementApi("http://api.test", TOKEN, transport=transport) as api:
            return await api.list_syncs(stream_id="t", only={"a", "z"})

    assert list(asyncio.run(read())) == ["a"]


@pytest.mark.parametrize(("status", "kind"), STATUSES)
def test_errors_survive_a_journey(status: int, kind: type[ProvisioningError]) -> None:
    """Errors cross process boundaries with everything they say."""
    with pytest.raises(ProvisioningError) as caught:
        answering(status, json={"summary": "x", "validation_errors": {"a": ["b"]}}).get_sync("s")

    back = pickle.loads(pickle.dumps(caught.value))  # noqa: S301  # ours

    assert type(back) is kind
    assert str(back) == str(caught.value)
    assert vars(back) == vars(caught.value)
