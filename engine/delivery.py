"""Hands a stream's records to a consumer: at least once, compacted, each version to one reader at a time."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Final
from uuid import UUID

from sqlalchemy import ColumnElement, insert
from sqlmodel import Session, and_, col, delete, func, or_, select, update
from sqlmodel.sql.expression import Select

from engine.tables import Consumer, Delivery, Record, Stream, Sync
from foundation.database import new_id

COUNTED_TO: Final = 10_000
"""`num_pending` is exact up to here; an exact count of millions would cost every `next` a scan."""
AT_ONCE: Final = datetime(1970, 1, 1, tzinfo=UTC)


class DeliverPolicy(StrEnum):
    """Where a consumer begins (contract 10.1)."""

    ALL = "all"
    NEW = "new"
    LAST = "last"
    LAST_HOUR = "1h"


@dataclass(frozen=True, slots=True)
class Message:
    """One record handed out."""

    token: UUID
    record: Record
    sync: Sync


@dataclass(frozen=True, slots=True)
class Pending:
    """How much is left: not yet handed out, and handed out but not acknowledged."""

    num_pending: int
    num_ack_pending: int


def starting_position(session: Session, stream: Stream, policy: DeliverPolicy, now: datetime) -> int:
    """The index after which a new consumer starts to read."""
    match policy:
        case DeliverPolicy.ALL:
            return 0
        case DeliverPolicy.NEW:
            return _newest(session, stream)
        case DeliverPolicy.LAST:
            return max(_newest(session, stream) - 1, 0)
        case DeliverPolicy.LAST_HOUR:
            recent = select(func.min(Record.updated_idx)).where(
                Record.stream_id == stream.id, Record.appended_at >= now - timedelta(hours=1)
            )
            first: int | None = session.exec(recent).one()
            return _newest(session, stream) if first is None else first - 1


def available(session: Session, consumer: Consumer, now: datetime, enough: int) -> int:
    """How many messages `take` would find now, counted no further than is enough."""
    again = _count(session, _due_again(consumer, now), enough)
    room = _room(session, consumer, now)
    return again + (min(_count_new(session, consumer, enough), room) if again < enough else 0)


def take(session: Session, consumer: Consumer, now: datetime, batch_size: int) -> Sequence[Message]:
    """Hand out what is due again, then what is new. The caller holds the consumer's row."""
    _give_up(session, consumer, now)
    again = _take_again(session, consumer, now, batch_size)
    room = min(batch_size - len(again), _room(session, consumer, now))
    return [*again, *(_take_new(session, consumer, now, room) if room > 0 else [])]


def acknowledge(session: Session, consumer: Consumer, tokens: Sequence[UUID]) -> None:
    """Done with these; a token whose message has been handed out anew since is no longer of use."""
    session.exec(delete(Delivery).where(_are(consumer, tokens)))


def refuse(session: Session, consumer: Consumer, tokens: Sequence[UUID]) -> None:
    """Not done with these: they are due again at once."""
    session.exec(update(Delivery).where(_are(consumer, tokens)).values(deadline=AT_ONCE))


def pending(session: Session, consumer: Consumer, now: datetime) -> Pending:
    again = _count(session, _due_again(consumer, now), COUNTED_TO)
    held = _count(session, and_(_of(consumer), col(Delivery.deadline) > now), COUNTED_TO)
    return Pending(again + _count_new(session, consumer, COUNTED_TO), held)


def rewind(
    session: Session, consumer: Consumer, stream: Stream, policy: DeliverPolicy, now: datetime
) -> None:
    """Begin anew under a policy; what was handed out before may come again."""
    session.exec(delete(Delivery).where(_of(consumer)))
    consumer.deliver_policy = policy
    consumer.position = starting_position(session, stream, policy, now)


def _take_again(session: Session, consumer: Consumer, now: datetime, size: int) -> list[Message]:
    statement = (
        select(Delivery, Record, Sync)
        .join(Record, col(Record.id) == Delivery.record_id)
        .join(Sync, col(Sync.id) == Record.sync_id)
        .where(_due_again(consumer, now), _is_to_be_seen())
        .order_by(col(Delivery.deadline), col(Delivery.updated_idx))
        .limit(size)
    )
    messages = []
    for delivery, record, sync in session.exec(statement).all():
        delivery.token, delivery.updated_idx = new_id(), record.updated_idx
        delivery.deadline = _deadline(consumer, now)
        delivery.deliver_count += 1
        messages.append(Message(delivery.token, record, sync))
    session.flush()
    return messages


def _take_new(session: Session, consumer: Consumer, now: datetime, size: int) -> list[Message]:
    """The next versions in order; one that was handed out again already, being current, is passed."""
    rows = session.exec(_new(consumer).order_by(col(Record.updated_idx)).limit(size)).all()
    if not rows:
        return []
    consumer.position = rows[-1][0].updated_idx
    known = _versions_held(session, consumer, [record.id for record, _ in rows])
    fresh = [(record, sync) for record, sync in rows if known.get(record.id, -1) < record.updated_idx]
    messages = [Message(new_id(), record, sync) for record, sync in fresh]
    _hold(session, consumer, now, messages, replacing=[m.record.id for m in messages if m.record.id in known])
    return messages


def _hold(
    session: Session,
    consumer: Consumer,
    now: datetime,
    messages: Sequence[Message],
    replacing: Sequence[UUID],
) -> None:
    """Note what is handed out; a newer version takes the place of an older one that is still out."""
    if replacing:
        session.exec(delete(Delivery).where(_of(consumer), col(Delivery.record_id).in_(replacing)))
    if not messages:
        return
    deadline = _deadline(consumer, now)
    rows = [
        {
            "consumer_id": consumer.id,
            "record_id": message.record.id,
            "token": message.token,
            "updated_idx": message.record.updated_idx,
            "deadline": deadline,
            "deliver_count": 1,
        }
        for message in messages
    ]
    session.exec(insert(Delivery), params=rows)


def _versions_held(session: Session, consumer: Consumer, record_ids: Sequence[UUID]) -> dict[UUID, int]:
    statement = select(Delivery.record_id, Delivery.updated_idx).where(
        _of(consumer), col(Delivery.record_id).in_(record_ids)
    )
    return dict(session.exec(statement).all())


def _give_up(session: Session, consumer: Consumer, now: datetime) -> None:
    """What has been handed out as often as allowed is not handed out again."""
    if consumer.max_deliver >= 0:
        spent = col(Delivery.deliver_count) >= consumer.max_deliver
        session.exec(delete(Delivery).where(_of(consumer), col(Delivery.deadline) <= now, spent))


def _new(consumer: Consumer) -> Select[Record, Sync]:
    return (
        select(Record, Sync)
        .join(Sync, col(Sync.id) == Record.sync_id)
        .where(
            Record.stream_id == consumer.stream_id,
            Record.updated_idx > consumer.position,
            _is_to_be_seen(),
        )
    )


def _count_new(session: Session, consumer: Consumer, enough: int) -> int:
    found = _new(consumer).with_only_columns(col(Record.id)).limit(enough).subquery()
    return session.exec(select(func.count()).select_from(found)).one()


def _count(session: Session, condition: ColumnElement[bool], enough: int) -> int:
    found = select(Delivery.record_id).where(condition).limit(enough).subquery()
    return session.exec(select(func.count()).select_from(found)).one()


def _room(session: Session, consumer: Consumer, now: datetime) -> int:
    """How many more may be out at once."""
    out = _count(session, and_(_of(consumer), col(Delivery.deadline) > now), consumer.max_ack_pending)
    return consumer.max_ack_pending - out


def _due_again(consumer: Consumer, now: datetime) -> ColumnElement[bool]:
    due = and_(_of(consumer), col(Delivery.deadline) <= now)
    if consumer.max_deliver < 0:
        return due
    return and_(due, col(Delivery.deliver_count) < consumer.max_deliver)


def _is_to_be_seen() -> ColumnElement[bool]:
    """Of a record's sync: it is there, or has left its records behind."""
    return or_(col(Sync.removed_at).is_(None), col(Sync.keeps_records))


def _of(consumer: Consumer) -> ColumnElement[bool]:
    return col(Delivery.consumer_id) == consumer.id


def _are(consumer: Consumer, tokens: Sequence[UUID]) -> ColumnElement[bool]:
    return and_(_of(consumer), col(Delivery.token).in_(tokens))


def _deadline(consumer: Consumer, now: datetime) -> datetime:
    return now + timedelta(milliseconds=consumer.ack_wait_ms)


def _newest(session: Session, stream: Stream) -> int:
    return session.exec(select(func.max(Record.updated_idx)).where(Record.stream_id == stream.id)).one() or 0
