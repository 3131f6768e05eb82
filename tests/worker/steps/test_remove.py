"""Remove: nothing of a connection stays behind at the API, and nothing of anybody else goes."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
import time_machine

from models import State
from tests.support.remote import Remote, answers
from tests.support.rows import NOW, a_claim, a_connection, a_tenant
from worker.errors import ApiUnavailableError, StillUncertainError
from worker.management import ManagementApi
from worker.queue.verdict import Claim, Verdict
from worker.steps.remove import CredentialKeptError, NotFoundYetError, remove
from worker.steps.wanted import CONNECTION_KEY

SETTLE = timedelta(seconds=60)
Run = Callable[..., Verdict]


@pytest.fixture(autouse=True)
def frozen() -> Any:
    with time_machine.travel(NOW, tick=False) as traveller:
        yield traveller


@pytest.fixture
def run(api: ManagementApi) -> Run:
    def removed(claim: Claim, *, shared: bool = False) -> Verdict:
        async def release(_credential_id: str) -> bool:
            return not shared

        return asyncio.run(remove(claim, api, settle=SETTLE, release=release))

    return removed


def claimed(remote: Remote, *, sync: bool = True, **columns: Any) -> Claim:
    earlier = columns.pop("earlier", None)
    remote.credentials["cred_1"] = {"id": "cred_1"}
    connection = a_connection(a_tenant(), state=State.REMOVING, **columns)
    if sync:
        marked = {CONNECTION_KEY: str(connection.id)}
        connection.remote_sync_id = remote.add_sync(metadata=marked)["id"]
    return a_claim(connection, earlier_create_at=earlier)


def test_sync_and_credential_are_deleted(remote: Remote, run: Run) -> None:
    """First the sync goes, then its credential; what we knew of them is forgotten."""
    verdict = run(claimed(remote))

    assert (remote.syncs, remote.credentials) == ({}, {})
    assert verdict.move is State.REMOVED
    assert verdict.wait is None
    forgotten = {name for name, value in verdict.facts.items() if value is None}
    assert forgotten >= {"remote_sync_id", "remote_stream_id", "remote_credential_id", "create_sent_at"}
    assert forgotten >= {"ready_at", "health", "initial_backfill_completed_at", "backfill_started_at"}


def test_credential_that_arrived_meanwhile_is_not_forgotten(remote: Remote, run: Run) -> None:
    """Whoever signs up again during the removal keeps the new credential."""
    claim = claimed(remote, sealed_credential="k.sealed")

    assert "sealed_credential" not in run(claim).facts


def test_shared_credential_stays(remote: Remote, run: Run) -> None:
    """Imports of one account share a credential: it goes with the last connection that uses it."""
    run(claimed(remote), shared=True)

    assert set(remote.credentials) == {"cred_1"}


def test_strays_go_too(remote: Remote, run: Run) -> None:
    """A sync that a lost create left behind is found by our id and deleted; a stranger's is not."""
    claim = claimed(remote)
    remote.add_sync(metadata={CONNECTION_KEY: str(claim.connection_id)})
    stranger = remote.add_sync(metadata={CONNECTION_KEY: "another"})

    run(claim)

    assert set(remote.syncs) == {stranger["id"]}


def test_credential_whose_import_was_never_answered_goes_too(remote: Remote, run: Run) -> None:
    """An import that was carried out, but whose reply was lost, leaves nothing behind either."""
    claim = claimed(remote, sync=False, remote_credential_id=None, clock={"credential": "2026-01-01"})
    marked = {CONNECTION_KEY: str(claim.connection_id)}
    remote.credentials["cred_lost"] = {"id": "cred_lost", "metadata": marked}

    run(claim)

    assert set(remote.credentials) == {"cred_1"}


def test_uncertain_create_is_waited_for(remote: Remote, run: Run) -> None:
    """While a lost create may still be committed, the removal is not done; its credential stays till then."""
    claim = claimed(remote, sync=False, earlier=NOW - timedelta(seconds=20))

    with pytest.raises(StillUncertainError) as caught:
        run(claim)

    assert caught.value.retry_after_s == pytest.approx(40, abs=5)
    assert set(remote.credentials) == {"cred_1"}


def test_after_the_wait_the_late_sync_goes(remote: Remote, run: Run) -> None:
    """What was committed late is found and deleted once nothing more can come."""
    claim = claimed(remote, sync=False, earlier=NOW - SETTLE)
    remote.add_sync(metadata={CONNECTION_KEY: str(claim.connection_id)})

    run(claim)

    assert remote.syncs == {}


def test_never_created_needs_no_search(remote: Remote, run: Run) -> None:
    """A connection that was captured at most has nothing but its credential to delete."""
    run(claimed(remote, sync=False))

    assert remote.called() == ["DELETE /v1/credentials/cred_1"]


def test_nothing_at_the_api_means_no_call(remote: Remote, run: Run) -> None:
    """A connection that never reached the API is removed without it."""
    connection = a_connection(a_tenant(), state=State.REMOVING, remote_credential_id=None)

    assert run(a_claim(connection)).move is State.REMOVED
    assert remote.requests == []


def test_what_is_already_gone_counts_as_deleted(remote: Remote, run: Run) -> None:
    """A removal that was interrupted can be done again, by a second try that finds nothing either."""
    claim = claimed(remote)
    remote.syncs.clear()
    remote.credentials.clear()

    with pytest.raises(NotFoundYetError):
        run(claim)

    assert run(replace(claim, attempts=2, error_code="removal_unconfirmed")).move is State.REMOVED


@pytest.mark.parametrize("before", [None, "api_unavailable", "create_uncertain"])
@pytest.mark.parametrize("path", ["syncs", "credentials"])
def test_one_answer_that_nothing_is_there_is_not_believed(
    remote: Remote, run: Run, path: str, before: str | None
) -> None:
    """An API that says 404 for a moment, though the object is there, leaves nothing behind."""
    claim = replace(claimed(remote), attempts=5, error_code=before)
    remote.before = answers(404, {"summary": "Not found"}, to=f"DELETE /v1/{path}/")

    with pytest.raises(NotFoundYetError) as caught:
        run(claim)
    remote.before = lambda _request: None
    verdict = run(replace(claim, error_code=caught.value.code))

    assert caught.value.code == "removal_unconfirmed"
    assert verdict.move is State.REMOVED
    assert (remote.syncs, remote.credentials) == ({}, {})


@pytest.mark.parametrize("status", [400, 409, 422])
def test_refused_delete_of_a_credential_is_told(remote: Remote, run: Run, status: int) -> None:
    """A removal is not done while the credential is still there: the refusal says why, and what to do."""
    remote.before = answers(status, {"summary": "in use"}, to="DELETE /v1/credentials")

    with pytest.raises(CredentialKeptError, match="cred_1 was not deleted: in use") as caught:
        run(claimed(remote))

    assert "syncs" in caught.value.advice


@pytest.mark.parametrize("named", ["CRED_1", "cred_1"])
def test_named_credential_is_not_ours_however_it_is_spelled(remote: Remote, run: Run, named: str) -> None:
    """An API may spell an id in its own way; the credential that an event named still stays."""
    run(claimed(remote, overrides={"credential_id": named}))

    assert set(remote.credentials) == {"cred_1"}


def test_imported_credential_goes_though_it_was_named_later(remote: Remote, run: Run) -> None:
    """An operator retried by the id of what an import of ours had made: our mark shows that it is ours."""
    claim = claimed(
        remote, overrides={"credential_id": "cred_1"}, clock={"credential": "2026-01-01T00:00:00+00:00"}
    )
    remote.credentials["cred_1"]["metadata"] = {CONNECTION_KEY: str(claim.connection_id)}

    run(claim)

    assert remote.credentials == {}


def test_trouble_is_tried_again(remote: Remote, run: Run) -> None:
    """A removal is done only when the API says so."""
    remote.before = answers(503, to="DELETE /v1/credentials")

    with pytest.raises(ApiUnavailableError):
        run(claimed(remote))
