"""`/v1/streams` and `/v1/http-consumers` (sections 9 and 10)."""

import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from sqlmodel import col, update
from structlog.testing import capture_logs

from engine import delivery
from engine.backfill.reader import Reader
from engine.hints import READ
from engine.tables import Record
from foundation.database import Database, utc_now

CUSTOMERS = "/v1/customers"


@pytest.fixture
def fill(api: httpx.Client, hints: Any, upstream: Any, reader: Reader, sync_body: dict[str, Any]) -> Any:
    """Backfill so many customers into the stream and give its sync."""

    def fill(count: int) -> dict[str, Any]:
        upstream.fill(CUSTOMERS, count)
        body = sync_body | {"collection_ids": ["stripe:customer"], "rate_limit": None}
        sync: dict[str, Any] = api.post("/v1/syncs", json=body).json()
        assert list(reader.read(hints.of(READ)[-1:])) == []
        return sync

    return fill


def consumer(api: httpx.Client, stream: str, **more: Any) -> str:
    answer = api.post("/v1/http-consumers", json={"stream_id": stream} | more)
    assert answer.status_code == 200, answer.text
    return f"/v1/http-consumers/{answer.json()['id']}"


def receive(api: httpx.Client, path: str, **params: int) -> tuple[list[dict[str, Any]], dict[str, int]]:
    answer = api.get(f"{path}/next", params=params)
    assert answer.status_code == 200, answer.text
    return answer.json()["data"], answer.json()["info"]


def tokens(messages: list[dict[str, Any]]) -> dict[str, list[str]]:
    return {"ack_tokens": [message["ack_token"] for message in messages]}


def test_streams(api: httpx.Client) -> None:
    """Section 9.1: a slug is unique in its organisation."""
    created = api.post("/v1/streams", json={"slug": "a"}).json()
    again = api.post("/v1/streams", json={"slug": "a"})
    renamed = api.patch(f"/v1/streams/{created['id']}", json={"slug": "b"})

    assert set(created) == {"id", "slug", "org_id", "created_at", "updated_at"}
    assert again.status_code == 422
    assert again.json()["validation_errors"] == {"slug": ["has already been taken"]}
    assert renamed.json()["slug"] == "b"
    assert [each["id"] for each in api.get("/v1/streams", params={"slug": "b"}).json()["data"]] == [
        created["id"]
    ]
    assert api.delete(f"/v1/streams/{created['id']}").json() == {"id": created["id"], "deleted": True}


def test_defaults_and_update(api: httpx.Client, stream: str) -> None:
    """Section 10.1: the documented defaults, and the older name of the wait."""
    path = consumer(api, stream, ack_wait=5_000)

    made = api.get(path).json()
    updated = api.patch(path, json={"max_ack_pending": 5, "metadata": {"a": 1}}).json()

    assert {
        field: made[field] for field in ("deliver_policy", "ack_wait_ms", "max_deliver", "max_ack_pending")
    } == {
        "deliver_policy": "all",
        "ack_wait_ms": 5_000,
        "max_deliver": -1,
        "max_ack_pending": 1_000,
    }
    assert (updated["max_ack_pending"], updated["metadata"], updated["ack_wait_ms"]) == (5, {"a": 1}, 5_000)
    assert len(api.get("/v1/http-consumers", params={"metadata": '{"a": 1}'}).json()["data"]) == 1
    moved = api.patch(path, json={"stream_id": stream})
    assert moved.json()["validation_errors"] == {"stream_id": ["cannot be changed"]}
    assert api.delete(f"/v1/streams/{stream}").status_code == 422
    assert api.delete(path).status_code == 200


def test_record_shape(api: httpx.Client, stream: str, fill: Any) -> None:
    """Section 9.2, with the sync nested."""
    sync = fill(1)

    [message], info = receive(api, consumer(api, stream))

    record = message["record"]
    assert record["sync"] == {"id": sync["id"], "external_id": "org_1", "metadata": {"custom_property": 42}}
    assert record["collection_id"] == "stripe:customer"
    assert record["provider"] == "stripe"
    assert record["stream_id"] == stream
    assert record["data"] == {"id": "cus_0", "created": 1_700_000_000, "name": "n0"}
    assert record["upstream_id"] == "cus_0"
    assert record["upstream_created_at"] == "2023-11-14T22:13:20Z"
    assert record["upstream_updated_at"] is None
    assert (record["deleted"], record["updated_idx"]) == (False, 1)
    assert info == {"num_pending": 0, "num_ack_pending": 1}


def test_acknowledged_messages_do_not_return(api: httpx.Client, stream: str, fill: Any) -> None:
    """Section 10.3: acknowledged is done, twice is harmless; the rest returns after `ack_wait_ms`."""
    fill(5)
    path = consumer(api, stream, ack_wait_ms=300)
    messages, info = receive(api, path, batch_size=3)
    assert info == {"num_pending": 2, "num_ack_pending": 3}

    for _ in range(2):
        assert api.post(f"{path}/ack", json=tokens(messages[:2])).status_code == 204
    returned = receive(api, path, batch_size=3, wait_for=3_000)[0]

    ids = [message["record"]["upstream_id"] for message in returned]
    assert ids[0] == messages[2]["record"]["upstream_id"]
    assert len(set(ids)) == 3
    assert returned[0]["ack_token"] != messages[2]["ack_token"]


def test_nack_makes_available_at_once(api: httpx.Client, stream: str, fill: Any) -> None:
    """Section 10.3."""
    fill(2)
    path = consumer(api, stream)
    messages, _ = receive(api, path, batch_size=2)

    assert api.post(f"{path}/nack", json=tokens(messages[1:])).status_code == 204
    [again], info = receive(api, path, batch_size=2)

    assert again["record"] == messages[1]["record"]
    assert info == {"num_pending": 0, "num_ack_pending": 2}


@pytest.mark.parametrize("body", [{"ack_tokens": []}, {"ack_tokens": ["nonsense"]}, {"ack_tokens": ["é"]}])
@pytest.mark.parametrize("verb", ["ack", "nack"])
def test_malformed_tokens(api: httpx.Client, stream: str, verb: str, body: dict[str, Any]) -> None:
    """Section 10.3: empty or malformed tokens are 400."""
    assert api.post(f"{consumer(api, stream)}/{verb}", json=body).status_code == 400


@pytest.mark.parametrize(
    "params", [{"batch_size": 0}, {"batch_size": 1_001}, {"wait_for": -1}, {"wait_for": 300_001}]
)
def test_bounds_of_next(api: httpx.Client, stream: str, params: dict[str, int]) -> None:
    assert api.get(f"{consumer(api, stream)}/next", params=params).status_code == 400


def test_next_by_post(api: httpx.Client, stream: str, fill: Any) -> None:
    """Section 10.2: GET or POST, parameters in the query or the body."""
    fill(3)
    path = consumer(api, stream)

    assert len(api.post(f"{path}/next").json()["data"]) == 1
    assert len(api.post(f"{path}/next", json={"batch_size": 2}).json()["data"]) == 2


def test_readers_share_a_consumer(api: httpx.Client, stream: str, fill: Any) -> None:
    """Several readers at once get each message once within `ack_wait_ms`."""
    fill(200)
    path = consumer(api, stream)

    with ThreadPoolExecutor(8) as pool:
        batches = list(pool.map(lambda _: receive(api, path, batch_size=10)[0], range(24)))

    ids = [message["record"]["id"] for batch in batches for message in batch]
    assert len(ids) == len(set(ids)) == 200


def test_max_ack_pending(api: httpx.Client, stream: str, fill: Any) -> None:
    """Section 10.2: with that many out, nothing more comes."""
    fill(5)
    path = consumer(api, stream, max_ack_pending=2)

    first, _ = receive(api, path, batch_size=5)
    second, info = receive(api, path, batch_size=5)
    api.post(f"{path}/ack", json=tokens(first[:1]))
    third, _ = receive(api, path, batch_size=5)

    assert [len(first), len(second), len(third)] == [2, 0, 1]
    assert info == {"num_pending": 3, "num_ack_pending": 2}


def test_max_ack_pending_holds_for_what_comes_again(api: httpx.Client, stream: str, fill: Any) -> None:
    """Contract 10.2: also when it is lowered while more is out."""
    fill(5)
    path = consumer(api, stream)
    api.post(f"{path}/nack", json=tokens(receive(api, path, batch_size=5)[0]))
    api.patch(path, json={"max_ack_pending": 2})

    first, info = receive(api, path, batch_size=5)

    assert (len(first), info) == (2, {"num_pending": 3, "num_ack_pending": 2})


def test_pending_is_counted_so_far(
    api: httpx.Client, stream: str, fill: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What comes again and what is new count together, up to the documented bound."""
    fill(5)
    path = consumer(api, stream)
    api.post(f"{path}/nack", json=tokens(receive(api, path, batch_size=3)[0]))
    monkeypatch.setattr(delivery, "COUNTED_TO", 3)

    assert receive(api, path)[1] == {"num_pending": 3, "num_ack_pending": 1}


def test_max_deliver(api: httpx.Client, stream: str, fill: Any) -> None:
    """After so many deliveries a message is given up."""
    fill(1)
    path = consumer(api, stream, max_deliver=2)

    for expected in (1, 1, 0):
        messages, _ = receive(api, path)
        assert len(messages) == expected
        if messages:
            api.post(f"{path}/nack", json=tokens(messages))


def test_a_changed_record_is_redelivered_as_it_is_now(
    api: httpx.Client, stream: str, fill: Any, upstream: Any, reader: Reader, hints: Any
) -> None:
    """Section 9.2: one entry per record; the old version's token acknowledges nothing any more."""
    sync = fill(3)
    path = consumer(api, stream)
    messages, _ = receive(api, path, batch_size=3)
    api.post(f"{path}/nack", json=tokens(messages))
    upstream.objects[CUSTOMERS][0]["name"] = "changed"
    read_again(api, sync, reader, hints)

    again, info = receive(api, path, batch_size=10)
    assert api.post(f"{path}/ack", json=tokens(messages)).status_code == 204

    names = sorted(message["record"]["data"]["name"] for message in again)
    assert names == ["changed", "n0", "n1"]
    assert info["num_pending"] == 0
    assert receive(api, path, batch_size=10)[1]["num_ack_pending"] == 3


def test_a_changed_record_comes_in_its_new_place_only(
    api: httpx.Client, stream: str, fill: Any, upstream: Any, reader: Reader, hints: Any
) -> None:
    """The newer version of what was refused comes once: acknowledged, it does not return as news."""
    sync = fill(2)
    path = consumer(api, stream)
    messages, _ = receive(api, path)
    api.post(f"{path}/nack", json=tokens(messages))
    upstream.objects[CUSTOMERS][0]["name"] = "changed"
    read_again(api, sync, reader, hints)

    seen = list[str]()
    while batch := receive(api, path)[0]:
        api.post(f"{path}/ack", json=tokens(batch))
        seen.append(batch[0]["record"]["data"]["name"])

    assert seen == ["n0", "changed"]
    assert receive(api, path)[1] == {"num_pending": 0, "num_ack_pending": 0}


@pytest.mark.parametrize(("policy", "expected"), [("all", 3), ("new", 0), ("last", 1), ("1h", 3)])
def test_deliver_policies(api: httpx.Client, stream: str, fill: Any, policy: str, expected: int) -> None:
    """Section 10.1: where a consumer begins, at creation and when the policy changes."""
    fill(3)

    created = consumer(api, stream, deliver_policy=policy)
    changed = consumer(api, stream, deliver_policy="new" if policy == "all" else "all")
    api.patch(changed, json={"deliver_policy": policy})

    for path in (created, changed):
        assert len(receive(api, path, batch_size=10)[0]) == expected


@pytest.mark.parametrize(("aged", "expected"), [(1, 2), (3, 0)])
def test_the_last_hour_ends_an_hour_ago(
    api: httpx.Client, stream: str, fill: Any, database: Database, aged: int, expected: int
) -> None:
    """Contract 10.1: `1h` is what came to the stream within an hour."""
    fill(3)
    old = update(Record).where(col(Record.stream_id) == UUID(stream), col(Record.updated_idx) <= aged)
    with database.write() as session:
        session.exec(old.values(appended_at=utc_now() - timedelta(hours=1, seconds=1)))

    assert len(receive(api, consumer(api, stream, deliver_policy="1h"), batch_size=10)[0]) == expected


def test_the_last_record_is_one_that_is_shown(api: httpx.Client, stream: str, fill: Any) -> None:
    """Contract 10.1: what is left of a deleted sync is not the newest of a stream."""
    fill(2)
    api.delete(f"/v1/syncs/{fill(3)['id']}")

    [message], _ = receive(api, consumer(api, stream, deliver_policy="last"), batch_size=10)

    assert message["record"]["updated_idx"] == 2


@pytest.mark.parametrize(("policy", "expected"), [("all", 3), ("new", 0), ("last", 1)])
def test_reset(api: httpx.Client, stream: str, fill: Any, policy: str, expected: int) -> None:
    """Section 10.1, undocumented there: begin anew where the policy says, whatever was acknowledged."""
    fill(3)
    path = consumer(api, stream)
    messages, _ = receive(api, path, batch_size=3)
    api.post(f"{path}/ack", json=tokens(messages[:1]))
    api.patch(path, json={"deliver_policy": policy})
    receive(api, path, batch_size=3)

    reset = api.post(f"{path}/reset")
    again, info = receive(api, path, batch_size=10)

    assert reset.status_code == 200
    assert reset.json() == api.get(path).json()
    assert len(again) == info["num_ack_pending"] == expected
    assert api.post(f"{path}/ack", json=tokens(messages)).status_code == 204
    assert receive(api, path, batch_size=10)[1]["num_ack_pending"] == expected


def test_list_filters(api: httpx.Client, stream: str) -> None:
    """Section 10.1: `metadata`; `stream_id` and `name` are supersets."""
    consumer(api, stream, name="a", metadata={"plan": {"name": "gold"}, "n": 1})
    consumer(api, stream, name="b")

    def count(**params: Any) -> int:
        return len(api.get("/v1/http-consumers", params=params).json()["data"])

    assert count() == count(stream_id=stream) == 2
    assert count(metadata='{"plan": {"name": "gold"}}') == count(name="a") == 1
    assert count(metadata='{"plan": "gold"}') == count(stream_id=str(uuid4())) == 0


@pytest.mark.parametrize("path", ["/v1/streams", "/v1/http-consumers"])
def test_idempotency_key(api: httpx.Client, stream: str, path: str) -> None:
    """Superset: the same key and body again is the same object, another body is refused."""
    body = {"slug": "once", "stream_id": stream}

    first, again, other = (
        api.post(path, json=each, headers={"Idempotency-Key": "k"})
        for each in (body, body, body | {"slug": "x", "name": "x"})
    )

    assert (first.status_code, again.json(), other.status_code) == (200, first.json(), 422)


def test_deleted_sync_disappears_from_its_stream(api: httpx.Client, stream: str, fill: Any) -> None:
    """Its records are gone for consumers at once, and nobody is told to ask for them again."""
    sync = fill(3)
    path = consumer(api, stream)
    messages, _ = receive(api, path, batch_size=2)
    api.post(f"{path}/nack", json=tokens(messages))

    api.delete(f"/v1/syncs/{sync['id']}")

    assert receive(api, path, batch_size=10) == ([], {"num_pending": 0, "num_ack_pending": 0})
    other = fill(2)
    assert {each["record"]["sync"]["id"] for each in receive(api, path, batch_size=10)[0]} == {other["id"]}


def test_long_poll_returns_when_records_arrive(api: httpx.Client, stream: str, fill: Any) -> None:
    """`wait_for` ends as soon as the batch is full."""
    path = consumer(api, stream)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(receive, api, path, batch_size=2, wait_for=20_000)
        started = time.monotonic()
        fill(2)
        messages, _ = waiting.result()

    assert len(messages) == 2
    assert time.monotonic() - started < 10


def test_long_poll_waits_for_no_more_than_may_be_out(api: httpx.Client, stream: str, fill: Any) -> None:
    """A batch larger than `max_ack_pending` is full when that many are there."""
    fill(3)
    path = consumer(api, stream, max_ack_pending=2)

    assert len(receive(api, path, batch_size=10, wait_for=60_000)[0]) == 2  # or the client's patience ends


def test_who_hangs_up_takes_nothing(api: httpx.Client, stream: str, fill: Any) -> None:
    """Otherwise a killed consumer's last long poll would keep messages from the next until `ack_wait_ms`."""
    path = consumer(api, stream)
    with capture_logs() as logs:
        with pytest.raises(httpx.ReadTimeout):
            api.get(f"{path}/next", params={"wait_for": 20_000}, timeout=0.2)
        deadline = time.monotonic() + 10
        while not any(each.get("status") == 499 for each in logs):
            assert time.monotonic() < deadline
            time.sleep(0.01)
    fill(1)

    assert receive(api, path)[1] == {"num_pending": 0, "num_ack_pending": 1}


def read_again(api: httpx.Client, sync: dict[str, Any], reader: Reader, hints: Any) -> None:
    """Have the collection read once more, by making the sync reach deeper."""
    for days in (36_000, None):
        api.patch(f"/v1/syncs/{sync['id']}", json={"max_age_days": days})
    reader.read(hints.of(READ)[-1:])
