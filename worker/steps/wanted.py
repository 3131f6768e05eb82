"""From what is wanted to what is sent: the body of a create, and the changes that an existing sync lacks."""

from collections.abc import Mapping

from pydantic import JsonValue

from worker.management import RemoteSync
from worker.management.shapes import RemoteRateLimit
from worker.plans import Plans, RateLimit, WantedSync, wanted_sync
from worker.queue.verdict import Claim

CONNECTION_KEY = "gangway_connection_id"
"""The key in a remote object's metadata under which our connection id travels."""


def marker(claim: Claim) -> dict[str, JsonValue]:
    """By this a sync is recognised as this connection's, whatever became of the request that made it."""
    return {CONNECTION_KEY: str(claim.connection_id)}


def wanted_of(claim: Claim, plans: Plans) -> WantedSync:
    """What the plan and the events together want of this connection's sync."""
    return wanted_sync(
        plans.provider(claim.plan, claim.provider),
        claim.overrides,
        tenant=claim.tenant_name or claim.external_id,
        provider=claim.provider,
        slot=claim.slot,
    )


def create_body(claim: Claim, wanted: WantedSync, stream_id: str) -> dict[str, JsonValue]:
    """The body of `POST /v1/syncs` (contract 2.2)."""
    body: dict[str, JsonValue] = {
        "provider": claim.provider,
        "stream_id": stream_id,
        "name": wanted.name,
        "collection_ids": list(wanted.collection_ids),
        "credential_id": claim.remote_credential_id,
        "sync_frequency": wanted.sync_frequency,
        "metadata": wanted.metadata | marker(claim),
        "external_id": claim.external_id,
    }
    if wanted.max_age_days is not None:
        body["max_age_days"] = wanted.max_age_days
    if wanted.rate_limit is not None:
        body["rate_limit"] = wanted.rate_limit.model_dump()
    return body


def changes(claim: Claim, wanted: WantedSync, remote: RemoteSync) -> dict[str, JsonValue]:
    """The body of `PATCH /v1/syncs/{id}` (contract 2.5); empty when the sync is as wanted."""
    changed: dict[str, JsonValue] = {}
    if remote.name is not None and remote.name != wanted.name:
        changed["name"] = wanted.name
    if set(remote.collection_ids) != set(wanted.collection_ids):
        changed["collection_ids"] = list(wanted.collection_ids)
    if wanted.rate_limit is not None and not _same_limit(remote.rate_limit, wanted.rate_limit):
        changed["rate_limit"] = wanted.rate_limit.model_dump()
    if remote.max_age_days != wanted.max_age_days:
        changed["max_age_days"] = wanted.max_age_days
    if remote.sync_frequency is not None and remote.sync_frequency != wanted.sync_frequency:
        changed["sync_frequency"] = wanted.sync_frequency
    if remote.status != wanted.status:
        changed["status"] = wanted.status
    metadata = wanted.metadata | marker(claim)
    if not _contains(remote.metadata, metadata):
        changed["metadata"] = dict(remote.metadata) | metadata
    return changed


def _same_limit(remote: RemoteRateLimit | None, wanted: RateLimit) -> bool:
    return remote is not None and remote.model_dump() == wanted.model_dump()


def _contains(whole: Mapping[str, JsonValue], part: Mapping[str, JsonValue]) -> bool:
    return all(key in whole and whole[key] == value for key, value in part.items())
