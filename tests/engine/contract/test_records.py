"""`/v1/streams` and the records in them (section 9)."""

from collections.abc import Callable
from typing import Any
from uuid import UUID

import httpx
import pytest

from engine.tables import Stream
from foundation.database import Database
from tests.engine.consuming import consumer, receive, tokens

CUSTOMERS = "/v1/customers"


def test_streams(api: httpx.Client, other: httpx.Client) -> None:
    """Section 9.1: a slug is unique in its organisation."""
    created = api.post("/v1/streams", json={"slug": "a"}).json()
    again = api.post("/v1/streams", json={"slug": "a"})
    renamed = api.patch(f"/v1/streams/{created['id']}", json={"slug": "b"})

    assert set(created) == {"id", "slug", "org_id", "created_at", "updated_at"}
    assert again.status_code == 422
    assert again.json()["validation_errors"] == {"slug": ["has already been taken"]}
    assert renamed.json()["slug"] == "b"
    assert api.get("/v1/streams", params={"slug": "b"}).json() == {"data": [renamed.json()]}
    assert other.post("/v1/streams", json={"slug": "b"}).status_code == 200


@pytest.mark.parametrize("method", ["POST", "PATCH"])
@pytest.mark.parametrize("body", [{}, {"slug": ""}, {"slug": None}])
def test_a_stream_has_a_slug(api: httpx.Client, stream: str, method: str, body: dict[str, Any]) -> None:
    """Section 9.1: it is required."""
    path = "/v1/streams" if method == "POST" else f"/v1/streams/{stream}"

    answer = api.request(method, path, json=body)

    assert (answer.status_code, set(answer.json()["validation_errors"])) == (422, {"slug"})


def test_record_shape(api: httpx.Client, stream: str, fill: Any) -> None:
    """Sections 9.2 and 14, row 13: with the sync nested, its metadata and `external_id` in it."""
    sync = fill(1)

    [message], info = receive(api, consumer(api, stream))

    record = message["record"]
    assert set(message) == {"ack_token", "record"}
    assert record | {"id": ..., "inserted_at": ...} == {
        "id": ...,
        "collection_id": "stripe:customer",
        "provider": "stripe",
        "stream_id": stream,
        "sync": {"id": sync["id"], "external_id": "org_1", "metadata": {"custom_property": 42}},
        "data": {"id": "cus_0", "created": 1_700_000_000, "name": "n0"},
        "deleted": False,
        "updated_idx": 1,
        "upstream_id": "cus_0",
        "upstream_created_at": "2023-11-14T22:13:20Z",
        "upstream_updated_at": None,
        "inserted_at": ...,
    }
    assert info == {"num_pending": 0, "num_ack_pending": 1}


def test_updates_and_deletes_are_appended(
    api: httpx.Client, stream: str, fill: Any, upstream: Any, read: Any, a_minute_later: Any
) -> None:
    """Sections 9.2 and 12: under the same id with a higher `updated_idx`, a delete with its flag; no more."""
    sync = fill(3)
    path = consumer(api, stream)
    before, _ = receive(api, path, batch_size=10)
    api.post(f"{path}/ack", json=tokens(before))
    upstream.objects[CUSTOMERS] = [
        each | {"name": "changed"} if each["id"] == "cus_0" else each
        for each in upstream.objects[CUSTOMERS]
        if each["id"] != "cus_1"
    ]
    a_minute_later()

    api.post(f"/v1/syncs/{sync['id']}/backfill")
    read()
    after, info = receive(api, path, batch_size=10)

    known = {each["record"]["upstream_id"]: each["record"] for each in before}
    records = {each["record"]["upstream_id"]: each["record"] for each in after}
    assert {name: each["deleted"] for name, each in records.items()} == {"cus_0": False, "cus_1": True}
    assert records["cus_0"]["data"]["name"] == "changed"
    assert {each["id"] for each in records.values()} == {known["cus_0"]["id"], known["cus_1"]["id"]}
    assert sorted(each["updated_idx"] for each in records.values()) == [4, 5]
    assert info == {"num_pending": 0, "num_ack_pending": 2}


def test_a_stream_is_compacted(
    api: httpx.Client, stream: str, fill: Any, upstream: Any, read: Callable[[], None]
) -> None:
    """Section 9.2: at most one entry per record, as it is now, for those who come late or receive again."""
    sync = fill(3)
    path = consumer(api, stream)
    messages, _ = receive(api, path, batch_size=3)
    api.post(f"{path}/nack", json=tokens(messages))
    upstream.objects[CUSTOMERS][0]["name"] = "changed"
    api.post(f"/v1/syncs/{sync['id']}/backfill")
    read()

    again, info = receive(api, path, batch_size=10)
    late, _ = receive(api, consumer(api, stream), batch_size=10)

    for batch in (again, late):
        assert sorted(each["record"]["data"]["name"] for each in batch) == ["changed", "n0", "n1"]
    assert info == {"num_pending": 0, "num_ack_pending": 3}
    assert api.post(f"{path}/ack", json=tokens(messages)).status_code == 204
    assert receive(api, path, batch_size=10)[1]["num_ack_pending"] == 3, "old tokens acknowledge old versions"


def test_a_changed_record_comes_in_its_new_place_only(
    api: httpx.Client, stream: str, fill: Any, upstream: Any, read: Callable[[], None]
) -> None:
    """Section 9.2: the newer version of what was refused comes once: acknowledged, it is no news."""
    sync = fill(2)
    path = consumer(api, stream)
    messages, _ = receive(api, path)
    api.post(f"{path}/nack", json=tokens(messages))
    upstream.objects[CUSTOMERS][0]["name"] = "changed"
    api.post(f"/v1/syncs/{sync['id']}/backfill")
    read()

    seen = list[str]()
    while batch := receive(api, path)[0]:
        api.post(f"{path}/ack", json=tokens(batch))
        seen.append(batch[0]["record"]["data"]["name"])

    assert seen == ["n0", "changed"]
    assert receive(api, path)[1] == {"num_pending": 0, "num_ack_pending": 0}


def test_indices_need_64_bits(api: httpx.Client, stream: str, fill: Any, database: Database) -> None:
    """Section 9.2: more than two thousand million have been seen."""
    with database.write() as session:
        row = session.get_one(Stream, UUID(stream))
        row.last_idx = 2_600_000_000
        session.add(row)
    fill(1)

    [message], _ = receive(api, consumer(api, stream))

    assert message["record"]["updated_idx"] == 2_600_000_001


def test_every_consumer_sees_every_record(api: httpx.Client, stream: str, fill: Any) -> None:
    """Section 9.1: whichever of the stream's syncs it is of; and nothing of another stream."""
    fill(2)
    fill(3)
    elsewhere = api.post("/v1/streams", json={"slug": "elsewhere"}).json()["id"]

    seen = [receive(api, consumer(api, each), batch_size=10)[0] for each in (stream, stream, elsewhere)]

    assert [len(batch) for batch in seen] == [5, 5, 0]
    assert seen[0][0]["record"] == seen[1][0]["record"]


def test_deleted_sync_disappears_from_its_stream(api: httpx.Client, stream: str, fill: Any) -> None:
    """Section 2.6: its records are gone for consumers at once, and nobody is told to ask for them again."""
    sync = fill(3)
    path = consumer(api, stream)
    messages, _ = receive(api, path, batch_size=2)
    api.post(f"{path}/nack", json=tokens(messages))

    api.delete(f"/v1/syncs/{sync['id']}")

    assert receive(api, path, batch_size=10) == ([], {"num_pending": 0, "num_ack_pending": 0})
    other = fill(2)
    assert {each["record"]["sync"]["id"] for each in receive(api, path, batch_size=10)[0]} == {other["id"]}
