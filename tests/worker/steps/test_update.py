"""Update: what differs is sent, and nothing else."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from models import State
from tests.support.remote import Remote
from tests.support.rows import a_claim, a_connection, a_tenant
from worker.errors import PlanError
from worker.management import ManagementApi
from worker.plans import Plans
from worker.queue.verdict import Claim, Verdict
from worker.steps.update import SyncNotFoundError, update
from worker.steps.wanted import CONNECTION_KEY

PLANNED = Plans.load().provider("default", "stripe").collection_ids


def watched(state: State = State.READY, **columns: Any) -> Claim:
    tenant = a_tenant(name="Choam")
    defaults = {"revision": 3, "applied_revision": 2, "slot": "default", "remote_sync_id": "s1"}
    return a_claim(a_connection(tenant, state=state, **defaults | columns), tenant)


def run(claim: Claim, remote: Remote, api: ManagementApi, **sync: Any) -> Verdict:
    marked = {CONNECTION_KEY: str(claim.connection_id)}
    as_planned = {"name": "Choam - stripe", "collection_ids": PLANNED, "metadata": marked}
    remote.add_sync(id="s1", **as_planned | sync)
    return asyncio.run(update(claim, api, Plans.load()))


LIMIT = {"allowed_requests": 5, "interval": 60, "max_concurrent_requests": 0}

DIFFERENCES: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    # overrides of the connection, the sync as it is, and what is sent
    "nothing": ({}, {}, {}),
    "name": ({"name": "Mine"}, {}, {"name": "Mine"}),
    "no name at the API": ({}, {"name": None}, {}),
    "collections": ({"collection_ids": ["stripe:charge"]}, {}, {"collection_ids": ["stripe:charge"]}),
    "collections in another order": ({}, {"collection_ids": list(reversed(PLANNED or []))}, {}),
    "rate limit": ({"rate_limit": LIMIT}, {}, {"rate_limit": LIMIT}),
    "same rate limit": ({"rate_limit": LIMIT}, {"rate_limit": LIMIT | {"extra": 1}}, {}),
    "rate limit of the API's choice": ({}, {"rate_limit": LIMIT}, {}),
    "age": ({"max_age_days": 30}, {}, {"max_age_days": 30}),
    "same age as a float": ({"max_age_days": 30}, {"max_age_days": 30.0}, {}),
    "age no longer limited": ({"max_age_days": None}, {"max_age_days": 30}, {"max_age_days": None}),
    "frequency": ({"sync_frequency": "4h"}, {}, {"sync_frequency": "4h"}),
    "frequency unknown at the API": ({"sync_frequency": "4h"}, {"sync_frequency": None}, {}),
    "disabled": ({"status": "disabled"}, {}, {"status": "disabled"}),
    "enabled again": ({}, {"status": "disabled"}, {"status": "active"}),
}


@pytest.mark.parametrize(("overrides", "sync", "sent"), DIFFERENCES.values(), ids=DIFFERENCES.keys())
def test_what_differs_is_sent(
    remote: Remote,
    api: ManagementApi,
    overrides: dict[str, Any],
    sync: dict[str, Any],
    sent: dict[str, Any],
) -> None:
    """The PATCH holds exactly the fields that differ, and none is sent when nothing does."""
    run(watched(overrides=overrides), remote, api, **sync)

    if sent:
        assert remote.body("PATCH /v1/syncs/s1") == sent
    else:
        assert remote.called() == ["GET /v1/syncs/s1"]


def test_metadata_of_others_is_kept(remote: Remote, api: ManagementApi) -> None:
    """What somebody else noted in the sync's metadata stays; our id is put back where it was lost."""
    claim = watched(overrides={"metadata": {"crm": 7}})

    run(claim, remote, api, metadata={"theirs": True})

    expected = {"theirs": True, "crm": 7, CONNECTION_KEY: str(claim.connection_id)}
    assert remote.body("PATCH") == {"metadata": expected}


def test_revision_is_applied(remote: Remote, api: ManagementApi) -> None:
    """Afterwards the revision that was claimed counts as applied, no trouble is left, and nothing is due."""
    verdict = run(watched(overrides={"name": "Mine"}), remote, api)

    assert verdict.facts == {"applied_revision": 3, "change_problem": None}
    assert verdict.wait is None
    assert verdict.why == "changed name"


@pytest.mark.parametrize(
    ("state", "status", "move"),
    [
        (State.READY, "disabled", State.PAUSED),
        (State.BACKFILLING, "disabled", State.PAUSED),
        (State.DEGRADED, "disabled", State.PAUSED),
        (State.PAUSED, "disabled", None),
        (State.PAUSED, "active", State.BACKFILLING),
        (State.READY, "active", None),
        (State.DEGRADED, "active", None),
    ],
)
def test_status_moves_the_connection(
    remote: Remote, api: ManagementApi, state: State, status: str, move: State | None
) -> None:
    """Disabling pauses, enabling resumes; other changes leave the state to the next poll."""
    assert run(watched(state, overrides={"status": status}), remote, api).move is move


def test_stream_cannot_be_changed(remote: Remote, api: ManagementApi) -> None:
    """Another stream than the sync's is reported with what to do, and nothing is sent for it."""
    verdict = run(watched(overrides={"stream_id": "another"}), remote, api, stream_id="first")

    told = verdict.facts["change_problem"]
    assert isinstance(told, dict)
    assert told["code"] == "stream_immutable"
    assert "tenant.deleted" in told["advice"]
    assert remote.count("PATCH") == 0


def test_vanished_sync_is_tried_again(api: ManagementApi) -> None:
    """A sync that is not found cannot be changed; whether it is gone for good is for the watching to say."""
    with pytest.raises(SyncNotFoundError):
        asyncio.run(update(watched(), api, Plans.load()))


def test_plan_that_is_gone_is_an_error(api: ManagementApi) -> None:
    """A plan that has left the plans file is named."""
    claim = replace(watched(), plan="gold")

    with pytest.raises(PlanError, match="'gold'"):
        asyncio.run(update(claim, api, Plans.load()))
