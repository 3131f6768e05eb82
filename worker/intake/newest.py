"""The newest wins, field by field: every field remembers the instant of the event that set it.

So an older event never overwrites what a newer one said, and any order of arrival comes to the same result.
"""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Final

from pydantic import JsonValue

from models import Tenant
from models.columns import Clock, JsonObject
from worker.intake.events import AnyEvent, TenantCreated, TenantDeleted, TenantUpdated

_PROFILE: Final = frozenset({"name", "plan", "metadata"})
_ATTRIBUTES: Final = {"metadata": "metadata_"}


def apply_presence(tenant: Tenant, event: AnyEvent) -> bool:
    """Signed up or deleted, whichever event is newer."""
    if not isinstance(event, TenantCreated | TenantDeleted) or not is_newer(
        tenant.clock, "presence", event.timestamp
    ):
        return False
    removed = isinstance(event, TenantDeleted)
    changed = tenant.is_removed is not removed or not tenant.is_announced
    tenant.is_removed = removed
    tenant.is_announced = True
    tenant.clock = stamped(tenant.clock, ["presence"], event.timestamp)
    return changed


def apply_profile(tenant: Tenant, event: AnyEvent) -> bool:
    """Name, plan and metadata: all of them from a created event, what is present from an updated one.

    Says whether anything changed that syncs are made from.
    """
    if not isinstance(event, TenantCreated | TenantUpdated):
        return False
    sent = event.data.model_fields_set if isinstance(event, TenantUpdated) else _PROFILE
    newer = [n for n in sorted(_PROFILE & sent) if is_newer(tenant.clock, n, event.timestamp)]
    before = (tenant.name, tenant.plan)
    for field in newer:
        setattr(tenant, _ATTRIBUTES.get(field, field), getattr(event.data, field))
    tenant.clock = stamped(tenant.clock, newer, event.timestamp)
    return (tenant.name, tenant.plan) != before


def merged(known: JsonObject, newer: Mapping[str, JsonValue]) -> JsonObject:
    """Null goes back to the plan, except for `max_age_days`, where it means no limit."""
    merged = {**known, **newer}
    return {name: value for name, value in merged.items() if value is not None or name == "max_age_days"}


def is_newer(clock: Clock, name: str, at: datetime) -> bool:
    return clock.get(name, "") <= _instant(at)


def stamped(clock: Clock, names: Iterable[str], at: datetime) -> Clock:
    return {**clock, **dict.fromkeys(names, _instant(at))}


def _instant(at: datetime) -> str:
    """Of one width, so that texts compare as instants do."""
    return at.astimezone(UTC).isoformat(timespec="microseconds")
