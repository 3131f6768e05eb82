"""`/v1/http-consumers` (section 10)."""

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
from engine.tables import Record
from foundation.database import Database, utc_now
from tests.engine.consuming import consumer, receive, tokens


def test_defaults(api: httpx.Client, stream: str) -> None:
    """Section 10.1: a body with nothing but the stream will do."""
    made = api.get(consumer(api, stream)).json()

    defaults = {
        "deliver_policy": "all",
        "ack_wait_ms": 30_000,
        "max_deliver": -1,
        "max_ack_pending": 1_000,
        "name": None,
        "metadata": {},
    }
    assert {field: made[field] for field in defaults} == defaults
    assert made["stream_id"] == stream


@pytest.mark.parametrize(
    ("body", "reason"),
    [({}, "Field required"), ({"stream_id": str(uuid4())}, "Not found: no stream matching the given id")],
    ids=["without", "unknown"],
)
def test_a_consumer_needs_a_stream(api: httpx.Client, body: dict[str, str], reason: str) -> None:
    """Section 10.1: `stream_id` is required."""
    answer = api.post("/v1/http-consumers", json=body)

    assert (answer.status_code, answer.json()["validation_errors"]) == (422, {"stream_id": [reason]})


def test_update(api: httpx.Client, stream: str) -> None:
    """Section 10.1: what is given changes, never the stream; and the older name of the wait."""
    path = consumer(api, stream, ack_wait=5_000)
    made = api.get(path).json()
    change = {"ack_wait_ms": 7, "max_deliver": 3, "max_ack_pending": 5, "name": "n", "metadata": {"a": 1}}

    updated = api.patch(path, json=change).json()

    assert made["ack_wait_ms"] == 5_000
    assert updated == made | change | {"updated_at": updated["updated_at"]} == api.get(path).json()
    moved = api.patch(path, json={"stream_id": stream})
    assert moved.json()["validation_errors"] == {"stream_id": ["cannot be changed"]}
    assert api.delete(f"/v1/streams/{stream}").status_code == 422
    assert api.delete(path).status_code == 200


def test_acknowledged_messages_do_not_return(api: httpx.Client, stream: str, fill: Any) -> None:
    """Sections 10.3 and 14, row 18: acknowledged is done; the rest returns after `ack_wait_ms`."""
    fill(5)
    path = consumer(api, stream, ack_wait_ms=300)
    messages, info = receive(api, path, batch_size=3)
    assert info == {"num_pending": 2, "num_ack_pending": 3}

    for _ in range(2):
        answer = api.post(f"{path}/ack", json=tokens(messages[:2]))
        assert (answer.status_code, answer.content) == (204, b"")
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


@pytest.mark.parametrize("verb", ["ack", "nack"])
def test_tokens_are_required(api: httpx.Client, stream: str, verb: str) -> None:
    """Section 10.3."""
    answer = api.post(f"{consumer(api, stream)}/{verb}", json={})

    assert (answer.status_code, answer.json()["validation_errors"]) == (
        422,
        {"ack_tokens": ["Field required"]},
    )


@pytest.mark.parametrize(
    "params", [{"batch_size": 0}, {"batch_size": 1_001}, {"wait_for": -1}, {"wait_for": 300_001}]
)
def test_bounds_of_next(api: httpx.Client, stream: str, params: dict[str, int]) -> None:
    """Section 10.2: from one to a thousand messages, for up to five minutes."""
    assert api.get(f"{consumer(api, stream)}/next", params=params).status_code == 400


def test_next_by_default(api: httpx.Client, stream: str, fill: Any) -> None:
    """Sections 10.2 and 14, row 13: one message, at once, and how many more there are."""
    fill(2)
    path = consumer(api, stream)

    answers = [api.get(f"{path}/next").json() for _ in range(3)]

    assert [len(each["data"]) for each in answers] == [1, 1, 0]
    assert all(set(each) == {"data", "info"} for each in answers)
    assert [each["info"] for each in answers] == [
        {"num_pending": 1, "num_ack_pending": 1},
        {"num_pending": 0, "num_ack_pending": 2},
        {"num_pending": 0, "num_ack_pending": 2},
    ]


def test_next_by_post(api: httpx.Client, stream: str, fill: Any) -> None:
    """Section 10.2: GET or POST, parameters in the query or the body."""
    fill(3)
    path = consumer(api, stream)

    assert len(api.post(f"{path}/next").json()["data"]) == 1
    assert len(api.post(f"{path}/next", json={"batch_size": 2}).json()["data"]) == 2


def test_readers_share_a_consumer(api: httpx.Client, stream: str, fill: Any) -> None:
    """Section 10.2: several readers at once get each message once within `ack_wait_ms`."""
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
    """Section 10.2: also when it is lowered while more is out."""
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
    """Section 10.1: after so many deliveries a message is given up."""
    fill(1)
    path = consumer(api, stream, max_deliver=2)

    for expected in (1, 1, 0):
        messages, _ = receive(api, path)
        assert len(messages) == expected
        if messages:
            api.post(f"{path}/nack", json=tokens(messages))


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
    """Section 10.1: `1h` is what came to the stream within an hour."""
    fill(3)
    old = update(Record).where(col(Record.stream_id) == UUID(stream), col(Record.updated_idx) <= aged)
    with database.write() as session:
        session.exec(old.values(appended_at=utc_now() - timedelta(hours=1, seconds=1)))

    assert len(receive(api, consumer(api, stream, deliver_policy="1h"), batch_size=10)[0]) == expected


def test_the_last_record_is_one_that_is_shown(api: httpx.Client, stream: str, fill: Any) -> None:
    """Section 10.1: what is left of a deleted sync is not the newest of a stream."""
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


def test_long_poll_returns_when_records_arrive(api: httpx.Client, stream: str, fill: Any) -> None:
    """Section 10.2: `wait_for` ends as soon as the batch is full."""
    path = consumer(api, stream)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(receive, api, path, batch_size=2, wait_for=20_000)
        started = time.monotonic()
        fill(2)
        messages, _ = waiting.result()

    assert len(messages) == 2
    assert time.monotonic() - started < 10


def test_long_poll_ends_when_time_is_up(api: httpx.Client, stream: str, fill: Any) -> None:
    """Section 10.2: `wait_for` is in milliseconds; what there is then is the answer."""
    fill(1)
    path = consumer(api, stream)
    started = time.monotonic()

    messages, _ = receive(api, path, batch_size=2, wait_for=200)

    assert len(messages) == 1
    assert 0.2 <= time.monotonic() - started < 10


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
