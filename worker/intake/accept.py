"""Accepting a message: inbox, tenant and connections change together, in one transaction, or not at all."""

import json
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import quote
from uuid import UUID

from sqlalchemy import Insert
from sqlalchemy.dialects import postgresql, sqlite
from sqlmodel import Session, col, select

from foundation.database import new_id, utc_now
from foundation.vault import Vault
from models import Connection, InboundEvent, State, Step, Tenant, tenant_state
from models.columns import JsonObject
from worker.errors import PlanError
from worker.intake.events import (
    REUSED_ID,
    AnyEvent,
    ConnectionWish,
    Credential,
    InvalidEventError,
    TenantCreated,
    TenantDeleted,
    TenantProfile,
)
from worker.intake.newest import apply_presence, apply_profile, is_newer, merged, moment_of, stamped
from worker.plans import Plans
from worker.rows.locks import in_lock_order
from worker.rows.record import HINT_GRACE
from worker.rows.wishes import heed


@dataclass(frozen=True, slots=True)
class Accepted:
    """The answer to a message, and the rows to look at now."""

    answer: JsonObject
    due: list[tuple[Step, UUID]]
    is_repeated: bool = False


@dataclass(frozen=True, slots=True)
class Message:
    """A verified message: from where, under which id, and what it says."""

    source: str
    id: str
    body_digest: str
    event: AnyEvent
    correlation_id: str | None = None


@dataclass(frozen=True)
class Intake:
    """Turns verified messages into rows."""

    vault: Vault
    plans: Plans

    def accept(self, session: Session, message: Message) -> Accepted:
        """Store what the event says. The same message again gets the first answer again."""
        event = message.event
        tenant = _tenant(session, event.data.external_id)
        known = _known_answer(session, message)
        if known is not None:
            return Accepted(known, due=[], is_repeated=True)
        self._check_plan(tenant, event)
        connections = self._apply(session, tenant, event, message.correlation_id)
        stored = InboundEvent(
            source=message.source,
            message_id=message.id,
            body_digest=message.body_digest,
            type=event.type,
            occurred_at=event.timestamp,
            tenant_id=tenant.id,
        )
        stored.answer = _answer(stored, tenant, connections)
        session.add(stored)
        session.flush()
        return Accepted(stored.answer, due=_due(connections))

    def _check_plan(self, tenant: Tenant, event: AnyEvent) -> None:
        """Refuse a plan or a provider that the plans file does not have."""
        if isinstance(event, TenantDeleted):
            return
        names_plan = isinstance(event, TenantCreated) or "plan" in event.data.model_fields_set
        if not names_plan and not tenant.is_announced:
            return  # it overtook the signup, which will name the plan
        self._check_providers(event.data, event.data.plan if names_plan else tenant.plan)

    def _check_providers(self, profile: TenantProfile, plan: str) -> None:
        if plan not in self.plans.plans:
            names = ", ".join(sorted(self.plans.plans))
            raise InvalidEventError({"data.plan": [f"there is no plan {plan!r}; there are: {names}"]})
        fields: dict[str, list[str]] = {}
        for index, wish in enumerate(profile.connections):
            try:
                self.plans.provider(plan, wish.provider)
            except PlanError as exc:
                names = ", ".join(sorted(self.plans.plans[plan].providers))
                fields[f"data.connections.{index}.provider"] = [f"{exc}; it has: {names}"]
        if fields:
            raise InvalidEventError(fields)

    def _apply(
        self, session: Session, tenant: Tenant, event: AnyEvent, correlation_id: str | None
    ) -> list[Connection]:
        now = utc_now()
        known = {(c.provider, c.slot): c for c in _connections(session, tenant)}
        changed = apply_presence(tenant, event) | apply_profile(tenant, event)
        with_credential = set()
        for wish in () if isinstance(event, TenantDeleted) else event.data.connections:
            connection = known.get((wish.provider, wish.slot))
            if connection is None:
                connection = Connection(tenant_id=tenant.id, provider=wish.provider, slot=wish.slot)
                known[wish.provider, wish.slot] = connection
                session.add(connection)
            if self._apply_wish(tenant, connection, wish, moment_of(event)):
                with_credential.add(connection.id)
            connection.correlation_id = correlation_id
        tenant.updated_at = now
        session.flush()  # history rows refer to connections
        for connection in known.values():
            connection.revision += changed
            given = connection.id in with_credential
            session.add_all(heed(tenant, connection, now=now, credential_given=given))
            if _is_due(connection, now):
                connection.hinted_until = now + HINT_GRACE
        return list(known.values())

    def _apply_wish(self, tenant: Tenant, connection: Connection, wish: ConnectionWish, moment: str) -> bool:
        """Apply what is newer than what is known; says whether a credential came along."""
        newer = {
            name: value
            for name, value in wish.overrides().items()
            if name != "credential_id" and is_newer(connection.clock, name, moment)
        }
        credential_given = (wish.credential or wish.credential_id) is not None and is_newer(
            connection.clock, "credential", moment
        )
        stamps = [*newer, *(["credential"] if credential_given else [])]
        if not stamps:
            return False
        overrides = merged(connection.overrides, newer)
        if credential_given:
            overrides.pop("credential_id", None)
            if wish.credential_id is not None:
                overrides["credential_id"] = wish.credential_id
            connection.sealed_credential = self._sealed(tenant, wish.credential)
        connection.overrides = overrides
        connection.clock = stamped(connection.clock, stamps, moment)
        connection.revision += 1
        return credential_given

    def _sealed(self, tenant: Tenant, credential: Credential | None) -> str | None:
        if credential is None:
            return None
        secret = json.dumps(credential.model_dump(mode="json", exclude_none=True)).encode()
        return self.vault.seal(secret, context=str(tenant.id))


def _tenant(session: Session, external_id: str) -> Tenant:
    """The tenant's row, locked; made in one statement if it is new: two messages may both try."""
    values = Tenant(id=new_id(), external_id=external_id, plan="default").model_dump()
    values["metadata"] = values.pop("metadata_")
    session.execute(_insert_once(session, values))
    mine = select(Tenant).where(col(Tenant.external_id) == external_id)
    # not the strongest lock: history rows that workers write meanwhile refer to this row
    return session.exec(mine.with_for_update(key_share=True)).one()


def _insert_once(session: Session, values: dict[str, object]) -> Insert:
    table = Tenant.__table__  # type: ignore[attr-defined]  # SQLModel does not declare it
    if session.get_bind().dialect.name == "postgresql":
        return postgresql.insert(table).values(values).on_conflict_do_nothing(index_elements=["external_id"])
    return sqlite.insert(table).values(values).on_conflict_do_nothing(index_elements=["external_id"])


def _known_answer(session: Session, message: Message) -> JsonObject | None:
    known = session.exec(
        select(InboundEvent).where(
            col(InboundEvent.source) == message.source, col(InboundEvent.message_id) == message.id
        )
    ).first()
    if known is None:
        return None
    if known.body_digest != message.body_digest:
        raise InvalidEventError({"webhook-id": [REUSED_ID]})
    return known.answer


def _connections(session: Session, tenant: Tenant) -> list[Connection]:
    mine = select(Connection).where(col(Connection.tenant_id) == tenant.id)
    locked = session.exec(in_lock_order(session, mine).with_for_update(of=Connection))
    return sorted(locked, key=lambda connection: connection.created_at)


def _answer(message: InboundEvent, tenant: Tenant, connections: list[Connection]) -> JsonObject:
    return {
        "event_id": str(message.id),
        "tenant": tenant.external_id,
        "state": state_of(tenant, connections),
        "connections": [
            {"id": str(c.id), "provider": c.provider, "slot": c.slot, "state": c.state} for c in connections
        ],
        "status_url": f"/v1/tenants/{quote(tenant.external_id, safe='')}",
    }


def state_of(tenant: Tenant, connections: list[Connection]) -> str:
    """What a tenant's connections add up to; one without connections is told by its own presence."""
    if not connections and tenant.is_removed:
        return State.REMOVED
    return tenant_state([c.state for c in connections])


def _due(connections: list[Connection]) -> list[tuple[Step, UUID]]:
    now = utc_now()
    return [(c.next_step, c.id) for c in connections if c.next_step is not None and _is_due(c, now)]


def _is_due(connection: Connection, now: datetime) -> bool:
    return connection.due_at is not None and connection.due_at <= now and not connection.is_leased(now)
