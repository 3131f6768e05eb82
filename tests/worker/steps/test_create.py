"""Create: exactly one sync for each connection, whatever became of earlier requests."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import httpx
import pytest
import time_machine

from models import State
from tests.support.remote import Remote, answers, breaks
from tests.support.rows import NOW, a_claim, a_connection, a_tenant
from worker.errors import (
    ApiRejectedError,
    ApiUnavailableError,
    InternalError,
    NotFoundError,
    PlanError,
    RateLimitedError,
    StillUncertainError,
)
from worker.management import ManagementApi
from worker.management.client import MAX_CALLS
from worker.plans import Plans
from worker.queue.claims import ClaimLostError
from worker.queue.verdict import Claim, Verdict
from worker.steps.create import (
    INTENT_HOLDS_S,
    Creating,
    SyncMissingError,
    create,
    facts_after_error,
)
from worker.steps.streams import Streams
from worker.steps.wanted import CONNECTION_KEY, wanted_of

SETTLE = timedelta(seconds=60)
CREATE = "POST /v1/syncs"


@pytest.fixture(autouse=True)
def frozen() -> Any:
    with time_machine.travel(NOW, tick=False) as traveller:
        yield traveller


@pytest.fixture
def noted() -> list[Claim]:
    return []


def creating(api: ManagementApi, noted: list[Claim] | None = None) -> Creating:
    async def note(claim: Claim) -> None:
        if noted is not None:
            noted.append(claim)

    return Creating(api, Plans.load(), Streams(api), settle=SETTLE, note_intent=note)


@pytest.fixture
def run(api: ManagementApi, noted: list[Claim]) -> Callable[[Claim], Verdict]:
    how = creating(api, noted)
    return lambda claim: asyncio.run(create(claim, how))


def claimed(**columns: Any) -> Claim:
    """A captured connection; `earlier` is when an earlier try may have sent a create."""
    earlier = columns.pop("earlier", None)
    tenant = a_tenant(external_id="org_1", name="Choam Corp")
    connection = a_connection(tenant, state=State.CAPTURED, slot="default", **columns)
    return a_claim(connection, tenant, earlier_create_at=earlier)


def ours(claim: Claim, **values: Any) -> dict[str, Any]:
    """A sync at the API that carries our connection's id."""
    return {"metadata": {CONNECTION_KEY: str(claim.connection_id)}, **as_planned(), **values}


def as_planned() -> dict[str, Any]:
    plan = Plans.load().provider("default", "stripe")
    return {"name": "Choam Corp - stripe", "collection_ids": plan.collection_ids}


def test_first_try_creates_without_looking(remote: Remote, run: Callable[[Claim], Verdict]) -> None:
    """A connection that was never sent is created with one request beyond the stream's."""
    claim = claimed()

    verdict = run(claim)

    assert remote.called() == ["GET /v1/streams", "POST /v1/streams", CREATE]
    (sync,) = remote.syncs.values()
    assert verdict.move is State.BACKFILLING
    assert verdict.facts["remote_sync_id"] == sync["id"]
    assert verdict.facts["applied_revision"] == claim.revision
    started_at = verdict.facts["backfill_started_at"]
    assert isinstance(started_at, datetime)
    assert started_at - NOW < timedelta(seconds=5)


def test_create_says_what_the_plan_wants(remote: Remote, run: Callable[[Claim], Verdict]) -> None:
    """The body names the customer, the plan's collections, the credential, and our own id."""
    claim = claimed(overrides={"metadata": {"crm": 7, CONNECTION_KEY: "forged"}})

    run(claim)

    (stream_id,) = remote.streams
    assert remote.body(CREATE) == {
        "provider": "stripe",
        "stream_id": stream_id,
        **as_planned(),
        "credential_id": "cred_1",
        "sync_frequency": "continuous",
        "metadata": {"crm": 7, CONNECTION_KEY: str(claim.connection_id)},
        "external_id": "org_1",
    }
    assert remote.requests[-1].headers["Idempotency-Key"] == f"{claim.connection_id}.1"


def test_lost_answer_is_adopted(remote: Remote, run: Callable[[Claim], Verdict], noted: list[Claim]) -> None:
    """After a create whose answer was lost, the sync it made is found by our id and taken over."""
    claim = claimed(earlier=NOW - timedelta(seconds=1))
    sync = remote.add_sync(**ours(claim))

    verdict = run(claim)

    assert verdict.facts["remote_sync_id"] == sync["id"]
    assert remote.called() == ["GET /v1/syncs"]
    assert noted == []


def test_late_commit_is_waited_for(remote: Remote, run: Callable[[Claim], Verdict]) -> None:
    """While an earlier create may still be committed, finding nothing proves nothing."""
    claim = claimed(earlier=NOW - timedelta(seconds=20))

    with pytest.raises(StillUncertainError) as caught:
        run(claim)

    assert caught.value.retry_after_s == pytest.approx(40, abs=5)
    assert remote.count(CREATE) == 0


def test_after_the_wait_it_is_created(
    remote: Remote, run: Callable[[Claim], Verdict], noted: list[Claim]
) -> None:
    """Once the earlier create cannot come true any more another one is sent, noted before it is."""
    claim = claimed(earlier=NOW - SETTLE)
    remote.before = lambda request: assert_noted(request, noted)

    run(claim)

    assert len(remote.syncs) == 1
    assert len(noted) == 1


def assert_noted(request: httpx.Request, noted: list[Claim]) -> None:
    assert noted or request.url.path != "/v1/syncs" or request.method != "POST"


@pytest.mark.parametrize(
    "claim",
    [
        lambda: claimed(earlier=NOW - SETTLE),
        lambda: replace(claimed(), claimed_s=time.monotonic() - 2 * INTENT_HOLDS_S),
    ],
    ids=["a second try", "a first try, frozen since it was claimed"],
)
def test_lost_claim_creates_nothing(remote: Remote, api: ManagementApi, claim: Callable[[], Claim]) -> None:
    """Where the intent cannot be noted, since another worker holds the row, nothing is sent."""

    async def lost(_claim: Claim) -> None:
        raise ClaimLostError("another worker holds this connection")

    with pytest.raises(ClaimLostError):
        asyncio.run(create(claim(), replace(creating(api), note_intent=lost)))

    assert remote.count(CREATE) == 0


def test_duplicates_are_removed_and_the_oldest_stays(remote: Remote, run: Callable[[Claim], Verdict]) -> None:
    """Of several syncs with our id the oldest is adopted and the others deleted."""
    claim = claimed(earlier=NOW)
    young = remote.add_sync(**ours(claim, created_at="2026-01-03 00:00:00"))
    old = remote.add_sync(**ours(claim, created_at="2026-01-01T00:00:00Z"))
    middle = remote.add_sync(**ours(claim, created_at="2026-01-02T00:00:00.5+00:00"))
    stranger = remote.add_sync(metadata={CONNECTION_KEY: "another-connection"})

    verdict = run(claim)

    assert verdict.facts["remote_sync_id"] == old["id"]
    assert set(remote.syncs) == {old["id"], stranger["id"]}
    assert {young["id"], middle["id"]}.isdisjoint(remote.syncs)


def test_filter_that_is_ignored_does_no_harm(remote: Remote, run: Callable[[Claim], Verdict]) -> None:
    """An API that lists everything, whatever the filter, costs no stranger's sync."""
    claim = claimed(earlier=NOW - SETTLE)
    strangers = [remote.add_sync(metadata={"a": []}), remote.add_sync(), remote.add_sync(metadata=[])]
    remote.before = lambda request: (
        httpx.Response(200, json={"data": list(remote.syncs.values())})
        if f"{request.method} {request.url.path}" == "GET /v1/syncs"
        else None
    )

    run(claim)

    assert {sync["id"] for sync in strangers} < set(remote.syncs)
    assert len(remote.syncs) == 4


def test_sync_with_another_credential_is_replaced(remote: Remote, run: Callable[[Claim], Verdict]) -> None:
    """A sync's credential cannot be changed, so a new credential means a new sync in its place."""
    claim = claimed(remote_sync_id="known", remote_credential_id="cred_new")
    old = remote.add_sync(**ours(claim, id="known", credential_id="cred_old"))

    verdict = run(claim)

    (sync,) = remote.syncs.values()
    assert sync["id"] != old["id"]
    assert verdict.facts["remote_sync_id"] == sync["id"]
    assert sync["credential_id"] == "cred_new"


def test_credential_refreshed_in_place_keeps_the_sync(
    remote: Remote, run: Callable[[Claim], Verdict]
) -> None:
    """A new secret for the same credential needs no new sync, and its backfill goes on."""
    started = NOW - timedelta(days=3)
    claim = claimed(remote_sync_id="known", backfill_started_at=started)
    remote.add_sync(**ours(claim, id="known"))

    verdict = run(claim)

    assert verdict.facts["remote_sync_id"] == "known"
    assert verdict.facts["backfill_started_at"] == started
    assert remote.called() == ["GET /v1/syncs"]


@pytest.mark.parametrize("found_by_mark", [True, False])
def test_known_sync_counts_without_its_mark(
    remote: Remote, run: Callable[[Claim], Verdict], found_by_mark: bool
) -> None:
    """Another tool replaced the sync's metadata: it is still ours, and stays the only one."""
    claim = claimed(remote_sync_id="known", revision=2)
    remote.add_sync(**ours(claim, id="known", metadata={"crm": 7}))
    if found_by_mark:
        remote.add_sync(**ours(claim, id="surplus"))

    verdict = run(claim)

    assert set(remote.syncs) == {"known"}
    assert verdict.facts["remote_sync_id"] == "known"
    assert verdict.facts["applied_revision"] == 1, "the mark is still to be put back"


def test_unmarked_sync_of_the_old_credential_is_replaced(
    remote: Remote, run: Callable[[Claim], Verdict]
) -> None:
    """With a new credential the known sync goes, also when its mark is gone: no orphan stays behind."""
    claim = claimed(remote_sync_id="known", remote_credential_id="cred_new")
    remote.add_sync(**ours(claim, id="known", credential_id="cred_old", metadata={"crm": 7}))

    verdict = run(claim)

    assert set(remote.syncs) == {verdict.facts["remote_sync_id"]} != {"known"}


@pytest.mark.parametrize("skew", [timedelta(hours=-1), timedelta(hours=1)])
def test_settling_does_not_depend_on_the_hosts_clock(
    remote: Remote, run: Callable[[Claim], Verdict], skew: timedelta
) -> None:
    """How long ago an earlier create was sent is told by the database's clock alone."""
    claim = claimed(earlier=NOW - timedelta(seconds=20))

    with time_machine.travel(NOW + skew, tick=False), pytest.raises(StillUncertainError) as caught:
        run(claim)

    assert caught.value.retry_after_s == pytest.approx(40, abs=5)
    assert remote.count(CREATE) == 0


def test_vanished_sync_is_created_again(remote: Remote, run: Callable[[Claim], Verdict]) -> None:
    """A sync that somebody deleted at the API is replaced when the customer sends a credential again."""
    verdict = run(replace(claimed(remote_sync_id="deleted"), error_code="sync_missing"))

    (sync,) = remote.syncs.values()
    assert verdict.facts["remote_sync_id"] == sync["id"]


@pytest.mark.parametrize("before", [None, "api_unavailable", "create_uncertain"])
def test_one_missing_answer_makes_no_second_sync(
    remote: Remote, run: Callable[[Claim], Verdict], before: str | None
) -> None:
    """An API that says 404 for a moment about the sync that we know is asked again before it is believed."""
    known = remote.add_sync(metadata={})
    claim = replace(claimed(remote_sync_id=known["id"]), attempts=5, error_code=before)
    remote.before = answers(404, {"summary": "Not found"}, to="GET /v1/syncs/")

    with pytest.raises(SyncMissingError):
        run(claim)
    remote.before = lambda _request: None
    verdict = run(replace(claim, error_code="sync_missing"))

    assert (verdict.did, list(remote.syncs)) == ("adopted", [known["id"]])


def test_intent_is_renewed_when_the_request_has_its_turn(
    remote: Remote, noted: list[Claim], monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long a create waits for a slot, its intent is as old as its request."""
    is_free, order = asyncio.Event(), list[str]()

    async def answer(request: httpx.Request) -> httpx.Response:
        if request.method == "GET" and request.url.path.startswith("/v1/syncs/"):
            await is_free.wait()
        return remote(request)

    async def crowded() -> None:
        api = ManagementApi("http://api.test", "a-token", transport=httpx.MockTransport(answer))
        how = creating(api, noted)
        claim = claimed()
        await how.streams.id_for(wanted_of(claim, how.plans))
        busy = [asyncio.create_task(api.get_sync("other")) for _ in range(MAX_CALLS)]
        await asyncio.sleep(0)
        late = asyncio.create_task(create(claim, how))
        await asyncio.sleep(0)
        monkeypatch.setattr("worker.steps.create.INTENT_HOLDS_S", 0.0)  # the time has passed in the queue
        order.append(f"{len(noted)} noted while it waits")
        is_free.set()
        await late
        await asyncio.gather(*busy, return_exceptions=True)

    asyncio.run(crowded())

    assert order == ["0 noted while it waits"]
    assert len(noted) == 1


def test_second_send_renews_the_intent_too(remote: Remote, api: ManagementApi, noted: list[Claim]) -> None:
    """A create that is sent again to another stream is as fresh an intent as the first."""
    how = creating(api, noted)
    asyncio.run(create(claimed(), how))
    remote.streams.clear()
    refused = answers(404, {"summary": "Not found: no stream"}, to=CREATE)
    remote.before = lambda request: refused(request) if remote.count(CREATE) == 2 else None

    asyncio.run(create(claimed(earlier=NOW - SETTLE), how))

    assert remote.count(CREATE) == 3
    assert len(noted) == 2


def test_success_leaves_nothing_uncertain(remote: Remote, run: Callable[[Claim], Verdict]) -> None:
    """A create that was answered is certain: the next one, for a new credential, need not wait for it."""
    assert run(claimed()).facts["create_sent_at"] is None


def test_what_a_create_cannot_say_is_left_to_an_update(
    remote: Remote, run: Callable[[Claim], Verdict]
) -> None:
    """A sync that shall be disabled is created, recorded as outdated, and changed by the next step."""
    claim = claimed(overrides={"status": "disabled"})

    verdict = run(claim)

    assert remote.count("PATCH") == 0
    assert verdict.facts["applied_revision"] == claim.revision - 1


def test_sync_that_is_as_wanted_ends_the_problem_of_a_change(
    remote: Remote, run: Callable[[Claim], Verdict]
) -> None:
    """What a change was refused for is over once a sync is found, or made, as everyone wants it."""
    claim = claimed(earlier=NOW - timedelta(seconds=1))
    remote.add_sync(**ours(claim))

    adopted, created = run(claim), run(claimed())

    assert adopted.facts["change_problem"] is created.facts["change_problem"] is None


def test_adopted_sync_that_differs_is_outdated(remote: Remote, run: Callable[[Claim], Verdict]) -> None:
    """What changed since the lost create was sent reaches the adopted sync by an update."""
    claim = claimed(earlier=NOW, revision=4)
    remote.add_sync(**ours(claim, name="an older name"))

    verdict = run(claim)

    assert remote.count("PATCH") == 0
    assert verdict.facts["applied_revision"] == 3


CERTAIN = [
    RateLimitedError("429"),
    ApiRejectedError(422, "no"),
    NotFoundError(404, "no"),
    PlanError("no"),
    ApiUnavailableError("no connection", may_have_happened=False),
]
UNCERTAIN = [
    ApiUnavailableError("timeout", may_have_happened=True),
    InternalError("KeyError"),
    StillUncertainError("wait"),
]


@pytest.mark.parametrize("earlier", [None, NOW])
@pytest.mark.parametrize("error", CERTAIN, ids=repr)
def test_certain_refusal_takes_the_intent_back(error: Any, earlier: datetime | None) -> None:
    """What was surely not carried out leaves behind only what was uncertain before."""
    assert facts_after_error(claimed(earlier=earlier), error) == {"create_sent_at": earlier}


@pytest.mark.parametrize("error", UNCERTAIN, ids=repr)
def test_uncertain_outcome_keeps_the_intent(error: Any) -> None:
    """What may have been carried out is looked for next time."""
    assert facts_after_error(claimed(), error) == {}


def test_deleted_stream_is_looked_up_again(remote: Remote, api: ManagementApi) -> None:
    """When the stream was deleted and is another one now, the create is sent once more, to that one."""
    how = creating(api)
    asyncio.run(create(claimed(), how))
    remote.streams.clear()
    remote.before = lambda request: (
        answers(404, {"summary": "Not found: no stream"})(request)
        if request.method == "POST"
        and request.url.path == "/v1/syncs"
        and not any(stream.encode() in request.content for stream in remote.streams)
        else None
    )

    verdict = asyncio.run(create(claimed(), how))

    (stream_id,) = remote.streams
    assert remote.body(CREATE)["stream_id"] == stream_id
    assert verdict.move is State.BACKFILLING


def test_refused_create_is_refused_once(remote: Remote, run: Callable[[Claim], Verdict]) -> None:
    """A 404 that has another cause than the stream is not sent again and again."""
    remote.before = answers(404, {"summary": "Not found: no credential"}, to=CREATE)

    with pytest.raises(NotFoundError):
        run(claimed())

    assert remote.count(CREATE) == 1


def test_stream_is_looked_up_once_for_many(remote: Remote, run: Callable[[Claim], Verdict]) -> None:
    """Connections of one plan share the answer to which stream its slug means."""
    for _ in range(5):
        run(claimed())

    assert remote.count("GET /v1/streams") == 1
    assert remote.count("POST /v1/streams") == 1


def test_stream_made_meanwhile_is_used(remote: Remote, run: Callable[[Claim], Verdict]) -> None:
    """When somebody else creates the stream at the same moment, theirs is taken."""

    def taken(request: httpx.Request) -> httpx.Response | None:
        if f"{request.method} {request.url.path}" == "POST /v1/streams":
            remote.streams["theirs"] = {"id": "theirs", "slug": "customers"}
            return httpx.Response(422, json={"summary": "Validation failed"})
        return None

    remote.before = taken

    run(claimed())

    assert remote.body(CREATE)["stream_id"] == "theirs"


def test_named_stream_is_taken_as_it_is(remote: Remote, run: Callable[[Claim], Verdict]) -> None:
    """A `stream_id` from an event needs no lookup."""
    run(claimed(overrides={"stream_id": "stream_9"}))

    assert remote.called() == [CREATE]
    assert remote.body(CREATE)["stream_id"] == "stream_9"


def test_trouble_while_looking_for_the_stream_is_certain(
    remote: Remote, run: Callable[[Claim], Verdict]
) -> None:
    """A GET that times out did nothing, so the create that was to follow need not be waited for."""
    remote.before = breaks(httpx.ReadTimeout, to="GET /v1/streams")
    claim = claimed()

    with pytest.raises(ApiUnavailableError) as caught:
        run(claim)

    assert facts_after_error(claim, caught.value) == {"create_sent_at": None}
