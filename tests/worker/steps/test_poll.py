"""Reading many syncs with few requests: lists where they pay, single reads elsewhere, nothing twice."""

import asyncio
from collections.abc import Sequence
from typing import Any

import httpx
import pytest

from models import State
from tests.support.remote import Remote, answers, breaks
from tests.support.rows import a_claim, a_connection, a_tenant
from worker.errors import ApiUnavailableError, NotFoundError, RateLimitedError
from worker.management import ManagementApi, RemoteSync
from worker.queue.verdict import Claim
from worker.steps.poll import LIST_AT_LEAST, LIST_AT_MOST, LISTED_PER_GET, StreamSizes, pays, read_syncs

LIST = "GET /v1/syncs"


def watched(remote: Remote, number: int, stream_id: str = "stream_1") -> list[Claim]:
    claims = []
    for _ in range(number):
        connection = a_connection(a_tenant(), state=State.READY, remote_stream_id=stream_id)
        remote.add_sync(id=connection.remote_sync_id, stream_id=stream_id)
        claims.append(a_claim(connection))
    return claims


def batches(claims: Sequence[Claim], api: ManagementApi, sizes: StreamSizes | None = None) -> list[Any]:
    async def read() -> list[Any]:
        return [answers async for answers in read_syncs(claims, sizes or StreamSizes(), api)]

    return asyncio.run(read())


def read(claims: Sequence[Claim], api: ManagementApi, sizes: StreamSizes | None = None) -> dict[str, Any]:
    """What was read of each sync; each must have been answered once."""
    answered = [each for answers in batches(claims, api, sizes) for each in answers]
    found = {str(claim.remote_sync_id): read for claim, read in answered}
    assert len(answered) == len(found) == len(claims)
    return found


def gets(remote: Remote) -> int:
    return remote.count(LIST + "/")


def lists(remote: Remote) -> int:
    return remote.called().count(LIST)


def test_many_of_one_stream_are_read_with_one_list(remote: Remote, api: ManagementApi) -> None:
    """When enough of a stream's syncs are due, one list replaces the single reads."""
    claims = watched(remote, 6)

    found = read(claims, api)

    assert remote.called() == [LIST]
    assert all(isinstance(sync, RemoteSync) for sync in found.values())


def test_few_are_read_one_by_one(remote: Remote, api: ManagementApi) -> None:
    """A few syncs are not worth a list."""
    read(watched(remote, LIST_AT_LEAST - 1), api)

    assert (lists(remote), gets(remote)) == (0, LIST_AT_LEAST - 1)


def test_each_stream_is_weighed_for_itself(remote: Remote, api: ManagementApi) -> None:
    """A list of one stream tells nothing of another."""
    claims = [*watched(remote, 6, "a"), *watched(remote, 2, "b")]

    read(claims, api)

    assert (lists(remote), gets(remote)) == (1, 2)


@pytest.mark.parametrize(
    ("due", "size", "is_listed"),
    [
        (4, 4, False),
        (5, None, True),
        (5, 5 * LISTED_PER_GET, True),
        (5, 5 * LISTED_PER_GET + 1, False),
        (1_000, LIST_AT_MOST, True),
        (1_000, LIST_AT_MOST + 1, False),
    ],
)
def test_list_has_to_pay(due: int, size: int | None, is_listed: bool) -> None:
    """A list is read where it is cheaper than the single reads that it replaces."""
    assert pays(due, size) is is_listed


def test_pages_are_read_to_the_end(remote: Remote, api: ManagementApi) -> None:
    """An API that has pages is asked for one after the other."""
    remote.page_size = 4
    claims = watched(remote, 10)

    read(claims, api)

    assert (lists(remote), gets(remote)) == (3, 0)


def test_reading_stops_when_everything_is_found(remote: Remote, api: ManagementApi) -> None:
    """Pages that can hold nothing that is due are not asked for."""
    remote.page_size = 10
    claims = watched(remote, 5)
    watched(remote, 50)

    read(claims, api)

    assert lists(remote) == 1


def test_huge_stream_is_not_read_for_a_few(remote: Remote, api: ManagementApi) -> None:
    """A stream of unknown size is listed no further than pays; the rest is read one by one."""
    remote.page_size = 100
    watched(remote, 1_000)
    claims = watched(remote, 5)
    sizes = StreamSizes()

    read(claims, api, sizes)
    first = (lists(remote), gets(remote))
    read(claims, api, sizes)

    assert first == (2, 5)
    assert (lists(remote), gets(remote)) == (2, 10)


def test_what_a_list_lacks_is_asked_for_by_its_id(remote: Remote, api: ManagementApi) -> None:
    """A sync that is missing in a list counts as gone only when the API says so itself."""
    claims = watched(remote, 7)
    moved, gone = (str(claim.remote_sync_id) for claim in claims[:2])
    remote.change(moved, stream_id="another")
    remote.remove(gone)

    found = read(claims, api)

    assert isinstance(found[moved], RemoteSync)
    assert isinstance(found[gone], NotFoundError)
    assert gets(remote) == 2


@pytest.mark.parametrize(
    ("trouble", "kind"),
    [
        (answers(429, headers={"Retry-After": "30"}, to=LIST), RateLimitedError),
        (answers(503, to=LIST), ApiUnavailableError),
        (breaks(httpx.ReadTimeout, to=LIST), ApiUnavailableError),
    ],
)
def test_list_that_fails_leads_to_no_single_reads(
    remote: Remote, api: ManagementApi, trouble: Any, kind: type[Exception]
) -> None:
    """A limit or an outage is answered with one request, not with one more for each connection."""
    remote.before = trouble

    found = read(watched(remote, 250), api)

    assert remote.called() == [LIST]
    assert {type(each) for each in found.values()} == {kind}


def only_as_list(trouble: Any) -> Any:
    return lambda request: trouble(request) if request.url.path == "/v1/syncs" else None


def test_list_that_cannot_be_read_is_done_without(remote: Remote, api: ManagementApi) -> None:
    """A list that is too long, or none: each sync is read by itself, and the list is not asked for again."""
    claims = watched(remote, 6)
    remote.before = only_as_list(answers(200, {"data": "?"}))
    sizes = StreamSizes()

    first, second = read(claims, api, sizes), read(claims, api, sizes)

    assert (lists(remote), gets(remote)) == (1, 12)
    assert all(isinstance(each, RemoteSync) for each in [*first.values(), *second.values()])


def test_answers_come_as_they_arrive() -> None:
    """A read that hangs holds up no other."""
    is_seen = asyncio.Event()

    async def answer(request: httpx.Request) -> httpx.Response:
        sync_id = request.url.path.rsplit("/", 1)[1]
        if sync_id == "slow":
            await is_seen.wait()
        return httpx.Response(200, json={"id": sync_id})

    claims = [
        a_claim(a_connection(a_tenant(), state=State.READY, remote_sync_id=sync_id))
        for sync_id in ("slow", "quick")
    ]

    async def order() -> list[str]:
        api = ManagementApi("http://api.test", "a-token", transport=httpx.MockTransport(answer))
        seen = []
        async for answered in read_syncs(claims, StreamSizes(), api):
            seen += [str(claim.remote_sync_id) for claim, _ in answered]
            is_seen.set()
        return seen

    assert asyncio.run(order()) == ["quick", "slow"]


def test_api_that_refuses_pages_is_read_whole(remote: Remote, api: ManagementApi) -> None:
    """An API that does not know `limit` and says so is asked without it, from then on at once."""
    remote.before = lambda r: (
        httpx.Response(422, json={"summary": "limit?"}) if "limit" in r.url.params else None
    )
    claims = watched(remote, 6)

    read(claims, api)
    read(claims, api)

    assert (lists(remote), gets(remote)) == (3, 0)


def test_refusal_of_another_cause_keeps_the_pages(remote: Remote, api: ManagementApi) -> None:
    """A list that is refused with and without pages says nothing about pages."""
    claims = watched(remote, 6)
    remote.before = answers(422, {"summary": "no such stream"}, to=LIST)
    read(claims, api)
    remote.before = lambda _request: None

    read(claims, api)

    assert remote.requests[-1].url.params["limit"] == "1000"
