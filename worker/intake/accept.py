"""Accepting messages: inbox, tenants, connections and work change in one transaction, or not at all."""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final
from urllib.parse import quote
from uuid import UUID

from sqlalchemy import Table, insert
from sqlmodel import Session

from foundation.database import new_id
from foundation.vault import Vault
from models import Connection, InboundEvent, Move, State, Step, Tenant
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
    TenantUpdated,
)
from worker.intake.load import (
    Known,
    Tenants,
    known_messages,
    locked_connections,
    locked_tenants,
)
from worker.intake.newest import apply_presence, apply_profile, is_newer, merged, moment_of, stamped
from worker.plans import Plans
from worker.queue.desired import apply_desired
from worker.queue.history import write_moves
from worker.queue.want import want_work
from worker.tenants import state_of, states_of, with_more_connections_than

NIL: Final = UUID(int=0)
_events: Final[Table] = InboundEvent.__table__  # type: ignore[attr-defined]  # SQLModel does not declare it
APPLIED_AT_ONCE: Final = 50
"""A tenant with more connections than this has its own changes applied to them in the background."""
UNANNOUNCED: Final = "kept until tenant.created arrives for this external_id"
STALE: Final = "nothing in it is newer than what is known"


@dataclass(frozen=True, slots=True)
class Accepted:
    """The answer to a message, and the steps that workers should be woken for."""

    answer: JsonObject
    due: frozenset[Step] = frozenset()
    is_repeated: bool = False


@dataclass(frozen=True, slots=True)
class Message:
    """A verified message: from where, under which id, and what it says."""

    source: str
    id: str
    body_digest: str
    event: AnyEvent
    correlation_id: str | None = None

    @property
    def identity(self) -> tuple[str, str]:
        return self.source, self.id

    @property
    def connections(self) -> int:
        """How many connections it names."""
        return len(_wishes(self.event))


Outcome = Accepted | InvalidEventError


@dataclass(frozen=True)
class Intake:
    """Turns verified messages into rows."""

    vault: Vault
    plans: Plans

    def accept(self, session: Session, message: Message, *, now: datetime) -> Accepted:
        """Store one message; raises `InvalidEventError` if it is refused."""
        (outcome,) = self.accept_all(session, [message], now=now)
        if isinstance(outcome, InvalidEventError):
            raise outcome
        return outcome

    def accept_all(self, session: Session, messages: Sequence[Message], *, now: datetime) -> list[Outcome]:
        """Store what the messages say. The same message again gets the first answer again."""
        group = _Group.load(session, messages, self, now)
        pending = [group.apply(message) for message in messages]
        due = group.finish()
        states = group.states()
        outcomes = [group.outcome(each, states, due) for each in pending]
        group.keep([each for each in pending if isinstance(each, _Applied)])
        return outcomes

    def check_plan(self, tenant: Tenant, event: AnyEvent) -> None:
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

    def sealed(self, connection_id: UUID, credential: Credential | None) -> str | None:
        if credential is None:
            return None
        secret = json.dumps(credential.model_dump(mode="json", exclude_none=True)).encode()
        return self.vault.seal(secret, context=str(connection_id))


@dataclass(slots=True)
class _Applied:
    """A message whose changes are in the session, and what its answer needs."""

    event_id: UUID
    message: Message
    tenant: Tenant
    concerned: list[Connection]
    is_news: bool
    stored: Known


@dataclass
class _Group:
    """Messages that share a transaction, and the rows that they concern."""

    session: Session
    intake: Intake
    now: datetime
    tenants: Tenants
    messages: dict[tuple[str, str], Known]
    connections: dict[UUID, dict[tuple[str, str], Connection]]
    spreading: set[UUID]
    """Tenants with so many connections that a change of theirs is applied in the background."""
    new: set[UUID] = field(default_factory=set)
    changed: dict[UUID, Connection] = field(default_factory=dict)
    """Connections of which something else is wanted now."""
    used: set[UUID] = field(default_factory=set)
    moves: list[Move] = field(default_factory=list)

    @classmethod
    def load(cls, session: Session, messages: Sequence[Message], intake: Intake, now: datetime) -> "_Group":
        tenants = locked_tenants(session, [m.event.data.external_id for m in messages], now=now)
        known = known_messages(session, {m.identity for m in messages})
        old = {
            tenant.external_id: tenant.id
            for tenant in tenants.by_external_id.values()
            if tenant.id not in tenants.new
        }
        about_old = [m for m in messages if m.event.data.external_id in old and m.identity not in known]
        whole = {old[m.event.data.external_id] for m in about_old if _concerns_all(m.event)}
        many = with_more_connections_than(session, APPLIED_AT_ONCE, whole)
        named = {
            (old[m.event.data.external_id], wish.provider, wish.slot)
            for m in about_old
            for wish in _wishes(m.event)
        }
        connections: dict[UUID, dict[tuple[str, str], Connection]] = {}
        for connection in locked_connections(session, named, whole - many):
            mine = connections.setdefault(connection.tenant_id, {})
            mine[connection.provider, connection.slot] = connection
        return cls(session, intake, now, tenants, known, connections, many)

    def apply(self, message: Message) -> "_Applied | Known | InvalidEventError":
        """Change the rows as the message says, or say why not."""
        tenant = self.tenants.by_external_id[message.event.data.external_id]
        known = self.messages.get(message.identity)
        if known is not None:
            return _repeated(known, message)
        try:
            self.intake.check_plan(tenant, message.event)
        except InvalidEventError as exc:
            return exc
        self.used.add(tenant.id)
        concerned, is_news = self._change(tenant, message)
        stored = self.messages[message.identity] = Known(message.body_digest, {})
        return _Applied(new_id(), message, tenant, concerned, is_news, stored)

    def finish(self) -> frozenset[Step]:
        """Write everything, and make due what follows from it."""
        for tenant in self.tenants.by_external_id.values():
            if tenant.id in self.tenants.new and tenant.id not in self.used:
                self.session.delete(tenant)  # all of its messages were refused
        self.session.flush()
        write_moves(self.session, self.moves)
        due = want_work(
            self.session,
            list(self.changed.values()),
            new=self.new,
            new_tenants=self.tenants.new,
            now=self.now,
        )
        self.session.flush()
        return frozenset(due)

    def states(self) -> Mapping[UUID, set[State]]:
        """The states that each tenant's connections are in."""
        found: dict[UUID, set[State]] = {}
        for connection in self.changed.values():
            found.setdefault(connection.tenant_id, set()).add(connection.state)
        return found | states_of(self.session, self.used - self.tenants.new)

    def outcome(
        self,
        applied: "_Applied | Known | InvalidEventError",
        states: Mapping[UUID, set[State]],
        due: frozenset[Step],
    ) -> Outcome:
        if isinstance(applied, InvalidEventError):
            return applied
        if isinstance(applied, Known):
            return Accepted(applied.answer, is_repeated=True)
        return Accepted(self._answer(applied, states), due)

    def keep(self, applied: Sequence[_Applied]) -> None:
        """Store the messages with their answers."""
        rows = [
            {
                "id": each.event_id,
                "source": each.message.source,
                "message_id": each.message.id,
                "body_digest": each.message.body_digest,
                "type": each.message.event.type,
                "occurred_at": each.message.event.timestamp,
                "received_at": self.now,
                "tenant_id": each.tenant.id,
                "answer": each.stored.answer,
            }
            for each in applied
        ]
        if rows:
            self.session.connection().execute(insert(_events), rows)

    def _answer(self, applied: _Applied, states: Mapping[UUID, set[State]]) -> JsonObject:
        """The answer to a message, kept for its repetitions."""
        tenant = applied.tenant
        applied.stored.answer = {
            "event_id": str(applied.event_id),
            "tenant": tenant.external_id,
            "state": state_of(tenant, states.get(tenant.id, set())),
            "connections": [
                {"id": str(c.id), "provider": c.provider, "slot": c.slot, "state": c.state}
                for c in sorted(applied.concerned, key=lambda c: c.created_at)
            ],
            "status_url": f"/v1/tenants/{quote(tenant.external_id, safe='')}",
            "applied": applied.is_news,
            "reason": _reason(applied),
        }
        return applied.stored.answer

    def _change(self, tenant: Tenant, message: Message) -> tuple[list[Connection], bool]:
        """Apply what is newer than what is known; returns the connections concerned, and if it is news."""
        event = message.event
        moment = moment_of(event)
        before = _profile(tenant)
        is_wide = apply_presence(tenant, event) | apply_profile(tenant, event)
        is_news = _profile(tenant) != before
        mine = self.connections.setdefault(tenant.id, {})
        changed = {c.id: c for c in mine.values()} if is_wide else {}
        named, with_credential = {}, set()
        for wish in _wishes(event):
            known = mine.get((wish.provider, wish.slot))
            connection = known or self._new_connection(tenant, wish)
            newer, is_credential = self._apply_wish(connection, wish, moment)
            if is_credential:
                with_credential.add(connection.id)
            if newer or known is None:
                connection.correlation_id = message.correlation_id
                changed[connection.id] = connection
                is_news = True
            named[connection.id] = connection
        if is_news:
            tenant.updated_at = self.now
        if is_wide and tenant.id in self.spreading:
            tenant.spread_after = NIL
        for connection in changed.values():
            connection.revision += is_wide
            given = connection.id in with_credential
            self.moves += apply_desired(tenant, connection, credential_given=given)
        self.changed |= changed
        return list((changed | named).values()), is_news

    def _new_connection(self, tenant: Tenant, wish: ConnectionWish) -> Connection:
        connection = Connection(
            id=new_id(),
            tenant_id=tenant.id,
            provider=wish.provider,
            slot=wish.slot,
            overrides={},
            clock={},
            created_at=self.now,
            updated_at=self.now,
        )
        self.connections[tenant.id][wish.provider, wish.slot] = connection
        self.new.add(connection.id)
        self.session.add(connection)
        return connection

    def _apply_wish(self, connection: Connection, wish: ConnectionWish, moment: str) -> tuple[bool, bool]:
        """Apply what is newer than what is known; says whether anything was, and whether a credential was."""
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
            return False, False
        overrides = merged(connection.overrides, newer)
        if credential_given:
            overrides.pop("credential_id", None)
            if wish.credential_id is not None:
                overrides["credential_id"] = wish.credential_id
            connection.sealed_credential = self.intake.sealed(connection.id, wish.credential)
        connection.overrides = overrides
        connection.updated_at = self.now
        connection.clock = stamped(connection.clock, stamps, moment)
        connection.revision += 1
        return True, credential_given


def _reason(applied: _Applied) -> str | None:
    if not applied.is_news:
        return STALE
    return None if applied.tenant.is_announced else UNANNOUNCED


def _repeated(known: Known, message: Message) -> Known | InvalidEventError:
    if known.body_digest != message.body_digest:
        return InvalidEventError({"webhook-id": [REUSED_ID]})
    return known


def _wishes(event: AnyEvent) -> Collection[ConnectionWish]:
    return () if isinstance(event, TenantDeleted) else event.data.connections


def _concerns_all(event: AnyEvent) -> bool:
    """Whether it may change what is wanted of every connection of the tenant."""
    if isinstance(event, TenantUpdated):
        return not event.data.model_fields_set.isdisjoint({"name", "plan"})
    return isinstance(event, TenantCreated | TenantDeleted)


def _profile(tenant: Tenant) -> tuple[object, ...]:
    return (
        tenant.name,
        tenant.plan,
        tenant.metadata_,
        tenant.is_announced,
        tenant.is_removed,
        tuple(sorted(tenant.clock.items())),
    )
