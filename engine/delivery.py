"""Hands a stream's records to a consumer: at least once, compacted, each version to one reader at a time."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Final
from uuid import UUID

from sqlalchemy import ColumnElement, insert
from sqlmodel import Session, and_, col, delete, func, or_, select, update
from sqlmodel.sql.expression import SelectOfScalar

from engine.tables import Consumer, Delivery, Record, Stream, Sync
from foundation.database import new_id

COUNTED_TO: Final = 10_000
"""What is left is told exactly up to here; counting millions would cost every `next` a scan."""
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
            return _newest(session, stream.id)
        case DeliverPolicy.LAST:
            return max(_newest(session, stream.id, _is_to_be_seen()) - 1, 0)
        case DeliverPolicy.LAST_HOUR:
            return _newest(session, stream.id, col(Record.appended_at) < now - timedelta(hours=1))


def can_fill(session: Session, consumer: Consumer, now: datetime, batch_size: int) -> bool:
    """Whether `take` would find a full batch now, or as much as may ever be out at once."""
    enough = min(batch_size, consumer.max_ack_pending)
    if _room(session, consumer, now) < enough:
        return False
    again = _count(session, _due_again(consumer, now), enough)
    return again + _count(session, _new_ids(consumer), enough - again) == enough


def take(session: Session, consumer: Consumer, now: datetime, batch_size: int) -> Sequence[Message]:
    """Hand out what is due again, then what is new. The caller holds the consumer's row."""
    _give_up(session, consumer, now)
    room = min(batch_size, _room(session, consumer, now))
    again = _take_again(session, consumer, now, room)
    return [*again, *_take_new(session, consumer, now, room - len(again))]


def acknowledge(session: Session, consumer: Consumer, tokens: Sequence[UUID]) -> None:
    """Done with these; a token whose message has been handed out anew since is no longer of use.

    Here too the caller holds the consumer's row: who changes what is out takes turns.
    """
    session.exec(delete(Delivery).where(_are(consumer, tokens)))


def refuse(session: Session, consumer: Consumer, tokens: Sequence[UUID]) -> None:
    """Not done with these: they are due again at once."""
    session.exec(update(Delivery).where(_are(consumer, tokens)).values(deadline=AT_ONCE))


def pending(session: Session, consumer: Consumer, now: datetime) -> Pending:
    again = _count(session, _due_again(consumer, now), COUNTED_TO)
    new = _count(session, _new_ids(consumer), COUNTED_TO - again)
    return Pending(again + new, _count(session, _held(consumer, now), COUNTED_TO))


def rewind(
    session: Session, consumer: Consumer, stream: Stream, policy: DeliverPolicy, now: datetime
) -> None:
    """Begin anew under a policy; what was handed out before may come again."""
    session.exec(delete(Delivery).where(_of(consumer)))
    consumer.deliver_policy = policy
    consumer.position = starting_position(session, stream, policy, now)


def _take_again(session: Session, consumer: Consumer, now: datetime, size: int) -> list[Message]:
    """What is erased meanwhile is passed over."""
    statement = (
        select(Delivery, Record, Sync)
        .join(Record, col(Record.id) == Delivery.record_id)
        .join(Sync, col(Sync.id) == Record.sync_id)
        .where(_is_due_again(consumer, now))
        .order_by(col(Delivery.deadline), col(Delivery.updated_idx))
        .limit(size)
        .with_for_update(of=Delivery)
    )
    messages = []
    for delivery, record, sync in session.exec(statement).all():
        delivery.token = new_id()
        delivery.deadline = _deadline(consumer, now)
        delivery.deliver_count += 1
        messages.append(Message(delivery.token, record, sync))
    session.flush()
    return messages


def _take_new(session: Session, consumer: Consumer, now: datetime, size: int) -> list[Message]:
    """The next versions in order. After the last there may be those of removed syncs: they are passed."""
    if size == 0:
        return []
    end = _newest(session, consumer.stream_id)
    statement = (
        select(Record, Sync)
        .join(Sync, col(Sync.id) == Record.sync_id)
        .where(_is_new(consumer))
        .order_by(col(Record.updated_idx))
        .limit(size)
        .execution_options(populate_existing=True)  # what came again a moment ago may have moved since
    )
    rows = session.exec(statement).all()
    last = rows[-1][0].updated_idx if rows else 0
    consumer.position = last if len(rows) == size else max(consumer.position, last, end)
    messages = [Message(new_id(), record, sync) for record, sync in rows]
    _hold(session, consumer, now, messages)
    return messages


def _hold(session: Session, consumer: Consumer, now: datetime, messages: Sequence[Message]) -> None:
    """Note what is handed out; a newer version takes the place of an older one that is still out."""
    if not messages:
        return
    older = col(Delivery.record_id).in_([message.record.id for message in messages])
    session.exec(delete(Delivery).where(_of(consumer), older))
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


def _give_up(session: Session, consumer: Consumer, now: datetime) -> None:
    """What has been handed out as often as allowed is not handed out again."""
    if consumer.max_deliver >= 0:
        is_due = col(Delivery.deadline) <= now
        session.exec(delete(Delivery).where(_of(consumer), is_due, _is_spent(consumer)))


def _new_ids(consumer: Consumer) -> SelectOfScalar[UUID]:
    return (
        select(Record.id)
        .join(Sync, col(Sync.id) == Record.sync_id)
        .where(_is_new(consumer))
        .order_by(col(Record.updated_idx))
    )


def _is_new(consumer: Consumer) -> ColumnElement[bool]:
    return and_(
        col(Record.stream_id) == consumer.stream_id,
        col(Record.updated_idx) > consumer.position,
        _is_to_be_seen(),
    )


def _due_again(consumer: Consumer, now: datetime) -> SelectOfScalar[UUID]:
    return (
        select(Delivery.record_id)
        .join(Record, col(Record.id) == Delivery.record_id)
        .join(Sync, col(Sync.id) == Record.sync_id)
        .where(_is_due_again(consumer, now))
        .order_by(col(Delivery.deadline))
    )


def _is_due_again(consumer: Consumer, now: datetime) -> ColumnElement[bool]:
    """What has been replaced does not come again: the newer version is still to come, in its own place."""
    due = and_(
        _of(consumer),
        col(Delivery.deadline) <= now,
        col(Record.updated_idx) <= consumer.position,
        _is_to_be_seen(),
    )
    return due if consumer.max_deliver < 0 else and_(due, ~_is_spent(consumer))


def _is_to_be_seen() -> ColumnElement[bool]:
    """Of a record's sync: it is there, or has left its records behind."""
    return or_(col(Sync.removed_at).is_(None), col(Sync.keeps_records))


def _is_spent(consumer: Consumer) -> ColumnElement[bool]:
    return col(Delivery.deliver_count) >= consumer.max_deliver


def _held(consumer: Consumer, now: datetime) -> SelectOfScalar[UUID]:
    held = select(Delivery.record_id).where(_of(consumer), col(Delivery.deadline) > now)
    return held.order_by(col(Delivery.deadline))


def _count(session: Session, found: SelectOfScalar[UUID], enough: int) -> int:
    """The statement says an order, so that no database scans a table for the first of many."""
    return session.exec(select(func.count()).select_from(found.limit(enough).subquery())).one()


def _room(session: Session, consumer: Consumer, now: datetime) -> int:
    """How many more may be out at once."""
    return consumer.max_ack_pending - _count(session, _held(consumer, now), consumer.max_ack_pending)


def _of(consumer: Consumer) -> ColumnElement[bool]:
    return col(Delivery.consumer_id) == consumer.id


def _are(consumer: Consumer, tokens: Sequence[UUID]) -> ColumnElement[bool]:
    return and_(_of(consumer), col(Delivery.token).in_(tokens))


def _deadline(consumer: Consumer, now: datetime) -> datetime:
    return now + timedelta(milliseconds=consumer.ack_wait_ms)


def _newest(session: Session, stream_id: UUID, *conditions: ColumnElement[bool]) -> int:
    """The greatest index in a stream, found by walking back from its end."""
    newest = select(Record.updated_idx).where(Record.stream_id == stream_id, *conditions)
    if conditions:
        newest = newest.join(Sync, col(Sync.id) == Record.sync_id)
    return session.exec(newest.order_by(col(Record.updated_idx).desc()).limit(1)).first() or 0
