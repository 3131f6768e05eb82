"""The newest wins, field by field: every field remembers the instant of the event that set it.

So an older event never overwrites what a newer one said, and any order of arrival comes to the same result.
Events of one instant have a fixed order: a created event first, then updates, credentials, and the deletion;
two of one type are ordered by their content.
"""

from collections.abc import Iterable, Mapping
from copy import copy
from datetime import UTC
from typing import Final

from pydantic import JsonValue

from models import Tenant
from models.columns import Clock, JsonObject
from worker.intake.events import AnyEvent, TenantCreated, TenantDeleted, TenantUpdated

_PROFILE: Final = frozenset({"name", "plan", "metadata"})
_ORDER: Final = {"tenant.created": 0, "tenant.updated": 1, "credential.provided": 2, "tenant.deleted": 3}
_ATTRIBUTES: Final = {"metadata": "metadata_"}
_FORGOTTEN: Final[Mapping[str, JsonValue]] = {"name": None, "metadata": {}}
"""What is erased with the deletion of a tenant, and what stays of it."""


def apply_presence(tenant: Tenant, event: AnyEvent) -> bool:
    """Signed up or deleted, whichever event is newer."""
    moment = moment_of(event)
    if not isinstance(event, TenantCreated | TenantDeleted) or not is_newer(tenant.clock, "presence", moment):
        return False
    removed = isinstance(event, TenantDeleted)
    changed = tenant.is_removed is not removed or not tenant.is_announced
    tenant.is_removed = removed
    tenant.is_announced = True
    tenant.clock = stamped(tenant.clock, ["presence"], moment)
    if removed:
        _forget(tenant, moment)
    return changed


def apply_profile(tenant: Tenant, event: AnyEvent) -> bool:
    """Name, plan and metadata: all of them from a created event, what is present from an updated one.

    Says whether anything changed that syncs are made from.
    """
    if not isinstance(event, TenantCreated | TenantUpdated):
        return False
    sent = event.data.model_fields_set if isinstance(event, TenantUpdated) else _PROFILE
    moment = moment_of(event)
    newer = [n for n in sorted(_PROFILE & sent) if is_newer(tenant.clock, n, moment)]
    if tenant.is_removed and moment <= tenant.clock.get("presence", ""):
        newer = [n for n in newer if n not in _FORGOTTEN]
    before = (tenant.name, tenant.plan)
    for field in newer:
        setattr(tenant, _ATTRIBUTES.get(field, field), getattr(event.data, field))
    tenant.clock = stamped(tenant.clock, newer, moment)
    return (tenant.name, tenant.plan) != before


def _forget(tenant: Tenant, moment: str) -> None:
    """What a customer was called, and what was said about it, goes with the customer.

    What was said after the deletion waits for the signup that it overtook.
    """
    for name, nothing in _FORGOTTEN.items():
        if is_newer(tenant.clock, name, moment):
            setattr(tenant, _ATTRIBUTES.get(name, name), copy(nothing))


def merged(known: JsonObject, newer: Mapping[str, JsonValue]) -> JsonObject:
    """Null goes back to the plan, except for `max_age_days`, where it means no limit."""
    merged = {**known, **newer}
    return {name: value for name, value in merged.items() if value is not None or name == "max_age_days"}


def moment_of(event: AnyEvent) -> str:
    """When an event happened, as a text that sorts as events do: by instant, then type, then content."""
    at = event.timestamp.astimezone(UTC).isoformat(timespec="microseconds")
    return f"{at}/{_ORDER[event.type]}{event.digest[:8]}"


def is_newer(clock: Clock, name: str, moment: str) -> bool:
    return clock.get(name, "") <= moment


def stamped(clock: Clock, names: Iterable[str], moment: str) -> Clock:
    return {**clock, **dict.fromkeys(names, moment)}
