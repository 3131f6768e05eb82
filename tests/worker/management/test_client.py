"""The Management API's client: what is sent, what is understood, and what every failure means."""

import asyncio
import itertools
import json
import pickle
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any, TypeVar

import httpx
import pytest
import time_machine

from tests.support.remote import at_once
from tests.support.rows import NOW
from worker.errors import (
    ApiRejectedError,
    ApiTokenError,
    ApiUnavailableError,
    NotFoundError,
    PausedError,
    ProvisioningError,
    RateLimitedError,
    TransientError,
    UnusableAnswerError,
)
from worker.management import Health, ManagementApi, RemoteSync
from worker.management.client import MAX_CALLS
from worker.management.context import CallTally, on_behalf_of

TOKEN = "canary-token-of-the-api"
BODY: dict[str, Any] = {"a": 1}
Answer = Callable[[httpx.Request], httpx.Response]
T = TypeVar("T")
Operation = Callable[[ManagementApi], Coroutine[Any, Any, Any]]


def api_with(answer: Answer) -> ManagementApi:
    return ManagementApi("http://api.test/base", TOKEN, transport=httpx.MockTransport(answer))


def answering(status: int = 200, **how: Any) -> ManagementApi:
    return api_with(lambda _request: httpx.Response(status, **how))


def done(call: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(call)


OPERATIONS: dict[str, tuple[Operation, str, str, Any, Any]] = {
    # the call, its method, its path, its body, and an answer
    "import credential": (lambda a: a.import_credential(BODY), "POST", "credentials", BODY, {"id": "c"}),
    "get credential": (lambda a: a.get_credential("c1"), "GET", "credentials/c1", None, {"id": "c"}),
    "delete credential": (lambda a: a.delete_credential("c1"), "DELETE", "credentials/c1", None, None),
    "create sync": (
        lambda a: a.create_sync(BODY, idempotency_key="k", before=at_once),
        "POST",
        "syncs",
        BODY,
        {"id": "s"},
    ),
    "get sync": (lambda a: a.get_sync("s1"), "GET", "syncs/s1", None, {"id": "s"}),
    "find syncs": (lambda a: a.find_syncs({"k": "v"}), "GET", "syncs", None, {"data": []}),
    "find credentials": (lambda a: a.find_credentials({"k": "v"}), "GET", "credentials", None, {"data": []}),
    "list syncs": (
        lambda a: a.list_syncs(stream_id="t", only={"s"}, at_most=9),
        "GET",
        "syncs",
        None,
        {"data": []},
    ),
    "changed syncs": (lambda a: a.changed_syncs("c"), "GET", "syncs", None, {"data": []}),
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
def test_operation(call: Operation, method: str, path: str, body: Any, answer: Any, status: int) -> None:
    """Each operation sends what the contract says, with the token, and takes any success."""
    sent: list[httpx.Request] = []

    def take(request: httpx.Request) -> httpx.Response:
        sent.append(request)
        return httpx.Response(status, json=answer) if answer is not None else httpx.Response(status)

    done(call(api_with(take)))

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

    done(api.find_syncs({"k": "ä&b"}))
    done(api.create_sync({}, idempotency_key="key-1", before=at_once))

    assert json.loads(sent[0].url.params["metadata"]) == {"k": "ä&b"}
    assert sent[1].headers["Idempotency-Key"] == "key-1"


@pytest.mark.parametrize("object_id", ["../streams", "a/b", "..", ".", "?x=1", "#f", "%2e%2e", "a b", "ä"])
def test_id_cannot_name_another_path(object_id: str) -> None:
    """Whatever an id from outside holds, it stays one segment below its collection."""
    paths: list[bytes] = []

    def take(request: httpx.Request) -> httpx.Response:
        paths.append(request.url.raw_path)
        return httpx.Response(200, json={"id": "x"})

    done(api_with(take).get_credential(object_id))

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
    assert done(answering(json=shape).get_sync("s")).id == "s"


@pytest.mark.parametrize("shape", [{"data": [{"id": "t", "slug": "x"}]}, [{"id": "t", "slug": "x"}]])
def test_list_may_be_bare(shape: Any) -> None:
    """A list comes under `data`, or bare."""
    assert [stream.slug for stream in done(answering(json=shape).list_streams())] == ["x"]


def test_unknown_fields_and_loose_values_do_no_harm() -> None:
    """Undocumented fields are passed over; metadata may be a list; a credential may be embedded."""
    sync = RemoteSync.model_validate(
        {"id": "s", "new": [1], "metadata": [], "credential": {"id": "c9"}, "rate_limit": None}
    )

    assert (sync.metadata, sync.credential_id, sync.status) == ({}, "c9", "active")


def test_find_does_not_trust_the_filter() -> None:
    """An API that ignores the filter returns everything; only what carries the metadata counts."""
    syncs = [{"id": "a", "metadata": {"k": "v", "x": []}}, {"id": "b", "metadata": {"k": "w"}}, {"id": "c"}]

    assert [sync.id for sync in done(answering(json={"data": syncs}).find_syncs({"k": "v"}))] == ["a"]


TRY_LATER = [408, 425, 500, 501, 502, 503, 504, 599]
STATUSES: list[tuple[int, type[ProvisioningError]]] = [
    *((status, ApiUnavailableError) for status in TRY_LATER),
    *((status, ApiRejectedError) for status in (400, 402, 407, 409, 410, 413, 415, 422)),
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
        done(
            answering(status, json={"summary": "because"}).create_sync(
                {}, idempotency_key="k", before=at_once
            )
        )

    assert type(caught.value) is kind
    assert kind is UnusableAnswerError or "because" in str(caught.value)


@pytest.mark.parametrize("status", [*TRY_LATER, 302])
def test_failed_change_may_have_happened(status: int) -> None:
    """After a 5xx nobody knows whether a change was made; a read changes nothing."""
    with pytest.raises(TransientError) as change:
        done(answering(status).create_sync({}, idempotency_key="k", before=at_once))
    with pytest.raises(TransientError) as read:
        done(answering(status).get_sync("s"))

    assert (change.value.may_have_happened, read.value.may_have_happened) == (True, False)


@pytest.mark.parametrize("status", [401, 403, 429])
def test_refused_change_has_not_happened(status: int) -> None:
    """What was refused at the door was not done."""
    with pytest.raises(TransientError) as caught:
        done(answering(status).create_sync({}, idempotency_key="k", before=at_once))

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
    (httpx.LocalProtocolError, False),
    (httpx.UnsupportedProtocol, False),
    (httpx.ProxyError, True),
    (httpx.DecodingError, True),
]


@pytest.mark.parametrize(("kind", "may_have_happened"), BREAKS)
def test_broken_connection_is_transient(kind: type[httpx.RequestError], may_have_happened: bool) -> None:
    """Every way a connection breaks is worth another try, and says whether the request may have arrived."""

    def broken(request: httpx.Request) -> httpx.Response:
        raise kind(f"with {TOKEN}", request=request)

    with pytest.raises(ApiUnavailableError) as caught:
        done(api_with(broken).create_sync({}, idempotency_key="k", before=at_once))

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
        done(answering(**how).create_sync({}, idempotency_key="k", before=at_once))

    assert caught.value.may_have_happened


@pytest.mark.parametrize("delete", [ManagementApi.delete_sync, ManagementApi.delete_credential])
def test_delete_tells_whether_anything_was_there(delete: Callable[..., Any]) -> None:
    """Deleting what is not there is no error; whether it is believed is the caller's business."""
    assert done(delete(answering(204), "s")) is True
    assert done(delete(answering(404, json={"summary": "Not found"}), "s")) is False


def test_create_has_its_turn_before_what_must_be_done_first() -> None:
    """What must be done directly before a create is done when a slot is free, however long that took."""
    order: list[str] = []
    is_free = asyncio.Event()

    async def hold(_request: httpx.Request) -> httpx.Response:
        await is_free.wait()
        return httpx.Response(200, json={"id": "s"})

    async def before() -> None:
        order.append("before")

    async def all_at_once() -> None:
        api = api_with(hold)  # type: ignore[arg-type]  # httpx takes a coroutine function too
        others = [asyncio.create_task(api.get_sync("s")) for _ in range(MAX_CALLS)]
        await asyncio.sleep(0)
        late = asyncio.create_task(api.create_sync({}, idempotency_key="k", before=before))
        for _ in range(20):
            await asyncio.sleep(0)
        order.append("free")
        is_free.set()
        await asyncio.gather(late, *others)

    done(all_at_once())

    assert order == ["free", "before"]


ODD: dict[str, Any] = {"id": "odd", "initial_backfill_completed_at": "2026-06-31 00:00:00", "metadata": {}}
FINE: dict[str, Any] = {"id": "fine", "metadata": {"k": "v"}}


def test_odd_item_spoils_no_list() -> None:
    """One sync that cannot be read is left out; all others of the list are there."""
    api = answering(json={"data": [ODD, FINE]})

    found, size = done(api.list_syncs(stream_id="t", only={"odd", "fine"}, at_most=9))

    assert (set(found), size) == ({"fine"}, 2)
    assert [sync.id for sync in done(api.find_syncs({"k": "v"}))] == ["fine"]


@pytest.mark.parametrize("find", [ManagementApi.find_syncs, ManagementApi.find_credentials])
def test_odd_item_with_the_mark_is_not_passed_over(find: Callable[..., Any]) -> None:
    """A search that cannot read what it looks for has not found nothing."""
    api = answering(json={"data": [{"id": "", "metadata": {"k": "v", "more": 1}}, FINE]})

    with pytest.raises(UnusableAnswerError):
        done(find(api, {"k": "v"}))


def test_feed_names_what_it_showed_oddly() -> None:
    """The rest of the page counts, and the odd one is to be asked for."""
    page = done(
        answering(json={"data": [ODD, FINE], "next_cursor": "c2", "has_more": False}).changed_syncs("c1")
    )

    assert page is not None
    assert ([sync.id for sync in page.changed], page.unread) == (["fine"], ("odd",))


def answer_id(value: object) -> str:
    return str(value)[:30]


FOREIGN: list[dict[str, Any]] = [
    {"content": b"<html>blocked</html>", "headers": {"Content-Type": "text/html"}},
    {"content": b""},
    {"json": {"message": "no Route matched with those values"}},
    {"json": {"summary": None}},
    {"json": {"summary": ["bad"]}},
    {"json": ["bad"]},
    {"content": b"[" * 100_000},
]


@pytest.mark.parametrize("status", [400, 402, 404, 405, 407, 409, 410, 413, 414, 421, 422, 431, 451])
@pytest.mark.parametrize("how", FOREIGN, ids=answer_id)
def test_refusal_in_other_words_than_the_contracts_is_no_verdict(status: int, how: dict[str, Any]) -> None:
    """A firewall, a proxy or an ingress that refuses says nothing about a customer: it may pass."""
    with pytest.raises(UnusableAnswerError) as caught:
        done(answering(status, **how).create_sync({}, idempotency_key="k", before=at_once))

    assert caught.value.may_have_happened


def test_missing_page_of_an_ingress_deletes_nothing() -> None:
    """A 404 that is not the API's does not count as deleted."""
    with pytest.raises(UnusableAnswerError):
        done(answering(404, content=b"default backend - 404").delete_sync("s"))


ERROR_BODIES: list[tuple[Any, str]] = [
    ({"json": {"summary": "bad", "validation_errors": {"name": ["short", "odd"]}}}, "bad (name: short, odd)"),
    ({"json": {"summary": "bad", "validation_errors": {"a": {"b": ["c"]}}}}, "bad (a: b: c)"),
    ({"json": {"summary": "bad", "validation_errors": []}}, "bad"),
    ({"json": {"summary": ""}}, "no reason given"),
]


@pytest.mark.parametrize(("how", "said"), ERROR_BODIES, ids=lambda value: str(value)[:30])
def test_reasons_are_read_from_any_body(how: Any, said: str) -> None:
    """The summary and the reasons by field, nested or not."""
    with pytest.raises(ApiRejectedError) as caught:
        done(answering(422, **how).get_sync("s"))

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
        done(answering(status, headers=headers).get_sync("s"))

    assert caught.value.retry_after_s == (pytest.approx(seconds, abs=1) if seconds is not None else None)


@CALLS
def test_token_is_in_no_error_and_no_representation(call: Operation) -> None:
    """Neither the client nor its errors show the token."""
    api = answering(500)

    with pytest.raises(TransientError) as caught:
        done(call(api))

    assert TOKEN not in f"{api!r} {caught.value!r} {caught.value} {caught.value.args}"


def test_request_id_travels_with_the_calls_of_a_run() -> None:
    """The correlation id of a run goes along with each of its requests, and with no other."""
    seen: list[str | None] = []

    def take(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers.get("X-Request-Id"))
        return httpx.Response(200, json={"id": "s"})

    api, tally = api_with(take), CallTally()
    with on_behalf_of(tally, "abc"):
        done(api.get_sync("s"))
    with on_behalf_of(tally):
        done(api.get_sync("s"))
    done(api.get_sync("s"))

    assert seen == ["abc", None, None]
    assert tally.calls == 2


def test_limited_run_sends_nothing_more() -> None:
    """After a 429 the calls of the same run are not sent; those of others are."""
    sent: list[str] = []

    def take(request: httpx.Request) -> httpx.Response:
        sent.append(request.url.path)
        return httpx.Response(429, headers={"Retry-After": "30"})

    api, tally = api_with(take), CallTally()
    with on_behalf_of(tally):
        with pytest.raises(RateLimitedError):
            done(api.get_sync("a"))
        with pytest.raises(PausedError) as paused:
            done(api.get_sync("b"))
    with pytest.raises(RateLimitedError):
        done(api.get_sync("c"))

    assert [path[-1] for path in sent] == ["a", "c"]
    assert tally.calls == 1
    assert 30 <= paused.value.retry_after_s <= 33  # type: ignore[operator]


def test_calls_at_once_are_bounded() -> None:
    """However much is to be done, one process has so many requests under way; each answer is its own."""
    under_way, most = 0, 0

    async def answer(request: httpx.Request) -> httpx.Response:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0.001)
        under_way -= 1
        sync_id = request.url.path.rsplit("/", 1)[1]
        if sync_id == "broken":
            raise httpx.ReadTimeout("slow", request=request)
        return httpx.Response(200, json={"id": sync_id})

    async def read() -> list[Any]:
        api = api_with(answer)  # type: ignore[arg-type]
        ids = ["broken", *(str(n) for n in range(200))]
        return await asyncio.gather(*(api.get_sync(each) for each in ids), return_exceptions=True)

    broken, *found = done(read())

    assert most == MAX_CALLS
    assert isinstance(broken, ApiUnavailableError)
    assert [sync.id for sync in found] == [str(n) for n in range(200)]


def test_list_is_read_as_far_as_asked() -> None:
    """Of a long list only the syncs that are due are read; one that is odd does not matter then."""
    syncs = [{"id": "a"}, {"id": "b", "metadata": "odd"}, "odd", {"id": ["odd"]}]
    api = answering(json={"data": syncs})

    found, size = done(api.list_syncs(stream_id="t", only={"a", "z"}, at_most=100))

    assert list(found) == ["a"]
    assert size == 4


def in_pages(*pages: list[Any]) -> ManagementApi:
    """An API that has pages whether they are asked for or not."""

    def take(request: httpx.Request) -> httpx.Response:
        number = int(request.url.params.get("cursor", "0"))
        following = str(number + 1) if number + 1 < len(pages) else None
        return httpx.Response(200, json={"data": pages[number], "next_cursor": following})

    return api_with(take)


def test_what_is_looked_for_is_found_on_every_page() -> None:
    """A sync on the second page that was not found would be created again."""
    marked = {"id": "mine", "metadata": {"k": "v"}}
    api = in_pages([{"id": "a"}], [marked], [{"id": "b"}])

    assert [sync.id for sync in done(api.find_syncs({"k": "v"}))] == ["mine"]
    assert [credential.id for credential in done(api.find_credentials({"k": "v"}))] == ["mine"]


def test_list_that_does_not_end_is_given_up() -> None:
    """An API whose every page names another one is not followed for ever."""
    cursors = itertools.count()
    api = api_with(lambda _r: httpx.Response(200, json={"data": [], "next_cursor": str(next(cursors))}))

    with pytest.raises(UnusableAnswerError, match="does not end"):
        done(api.find_syncs({"k": "v"}))


def test_page_of_the_feed_is_read() -> None:
    """Changed and deleted syncs, the cursor to go on from, and whether there is more."""
    deleted = {"id": "gone", "deleted_at": "2026-01-01T00:00:00Z"}
    api = answering(json={"data": [{"id": "a"}, deleted], "next_cursor": "c2", "has_more": True})

    page = done(api.changed_syncs("c1"))

    assert page is not None
    assert ([sync.id for sync in page.changed], [sync.id for sync in page.deleted]) == (["a"], ["gone"])
    assert (page.next_cursor, page.has_more) == ("c2", True)


@pytest.mark.parametrize("body", [{"data": [{"id": "a"}]}, [{"id": "a"}], {"data": [], "next_cursor": None}])
def test_plain_list_is_no_feed(body: Any) -> None:
    """An API without the feed ignores the parameter and lists everything."""
    assert done(answering(json=body).changed_syncs(None)) is None


@pytest.mark.parametrize(("status", "kind"), STATUSES)
def test_errors_survive_a_journey(status: int, kind: type[ProvisioningError]) -> None:
    """Errors cross process boundaries with everything they say."""
    with pytest.raises(ProvisioningError) as caught:
        done(answering(status, json={"summary": "x", "validation_errors": {"a": ["b"]}}).get_sync("s"))

    back = pickle.loads(pickle.dumps(caught.value))  # noqa: S301  # ours

    assert type(back) is kind
    assert str(back) == str(caught.value)
    assert vars(back) == vars(caught.value)
