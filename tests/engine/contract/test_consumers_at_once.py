"""Many readers and writers of one stream at once: what holds in every order (sections 9.2 and 10)."""

import random
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any, Final, NamedTuple
from uuid import UUID

import httpx
import pytest
from sqlmodel import select

from engine.backfill.append import Arrival, Target, append, find_known
from engine.delivery import take
from engine.providers.records import UpstreamRecord, gone
from engine.purge import erase_removed
from engine.tables import Consumer, Record, Sync
from foundation.database import Database, new_id, utc_now

ACK_WAIT_S: Final = 0.3
MAX_ACK_PENDING: Final = 25
MAX_DELIVER: Final = 2
SYNCS: Final = 3
OBJECTS: Final = 12
"""Of each sync: few, so that most writes replace what a reader has in its hands."""
WRITES: Final = 40
GIVE_UP_AFTER_S: Final = 30.0


class Call(NamedTuple):
    """When a request was sent and when its answer was there; what it did happened in between."""

    sent_at: float
    answered_at: float


@dataclass(frozen=True, slots=True)
class Handout:
    """One message that a reader was given."""

    call: Call
    token: str
    record: dict[str, Any]

    @property
    def version(self) -> tuple[str, int]:
        return self.record["id"], self.record["updated_idx"]


@dataclass
class Reader:
    """Reads through a consumer as a careless program does: takes, acknowledges, refuses and forgets."""

    api: httpx.Client
    path: str
    draw: random.Random
    handouts: list[Handout] = field(default_factory=list)
    acks: dict[str, Call] = field(default_factory=dict)
    nacks: dict[str, Call] = field(default_factory=dict)
    infos: list[dict[str, int]] = field(default_factory=list)

    def take(self, batch_size: int, wait_for: int = 0) -> list[Handout]:
        call, answer = self._timed(
            lambda: self.api.get(f"{self.path}/next", params={"batch_size": batch_size, "wait_for": wait_for})
        )
        assert answer.status_code == 200, answer.text
        self.infos.append(answer.json()["info"])
        taken = [Handout(call, each["ack_token"], each["record"]) for each in answer.json()["data"]]
        self.handouts += taken
        return taken

    def settle(self, verb: str, handouts: list[Handout]) -> None:
        if not handouts:
            return
        tokens = [each.token for each in handouts]
        call, answer = self._timed(lambda: self.api.post(f"{self.path}/{verb}", json={"ack_tokens": tokens}))
        assert answer.status_code == 204, answer.text
        calls = self.acks if verb == "ack" else self.nacks
        for token in tokens:
            calls.setdefault(token, call)

    def be_careless(self) -> None:
        taken = self.take(self.draw.randint(1, 10), self.draw.choice([0, 0, 60]))
        fates = {each.token: self.draw.choice(["ack", "ack", "ack", "nack", "forget"]) for each in taken}
        for verb in ("nack", "ack"):
            self.settle(verb, [each for each in taken if fates[each.token] == verb])
        if self.draw.random() < 0.3:
            self.settle("ack", self.draw.sample(self.handouts, min(len(self.handouts), 10)))

    def drain(self) -> None:
        """Take and acknowledge until nothing is left, not even what was forgotten before."""
        give_up_at = time.monotonic() + GIVE_UP_AFTER_S
        while self.take(batch_size=10, wait_for=20) or any(self.infos[-1].values()):
            self.settle("ack", [each for each in self.handouts[-10:] if each.token not in self.acks])
            assert time.monotonic() < give_up_at, self.infos[-1]

    @staticmethod
    def _timed(request: Callable[[], httpx.Response]) -> tuple[Call, httpx.Response]:
        sent_at = time.monotonic()
        answer = request()
        return Call(sent_at, time.monotonic()), answer


def seeded(*seed: int) -> random.Random:
    return random.Random(str(seed))  # noqa: S311  # chance, not secrets


def write(database: Database, sync_id: UUID, stream_id: UUID, draw: random.Random) -> None:
    """Bring new versions of a sync's objects, and deletes, as readings do."""
    target = Target(stream_id, sync_id, "stripe:customer", new_id(), is_pass=True)
    for number in range(WRITES):
        names = draw.sample([f"cus_{each}" for each in range(OBJECTS)], draw.randint(1, 4))
        arrivals = [
            Arrival(gone(name) if draw.random() < 0.2 else _object(name, number), utc_now()) for name in names
        ]
        with database.write() as session:
            append(session, target, arrivals, find_known(session, target, names), utc_now())
        time.sleep(draw.random() * 0.01)


def _object(name: str, version: int) -> UpstreamRecord:
    return UpstreamRecord(name, {"id": name, "version": version}, str(version), None, None)


@pytest.fixture
def syncs(api: httpx.Client, sync_body: dict[str, Any]) -> list[UUID]:
    """Several syncs that write into one stream."""
    bodies = (sync_body | {"name": f"Sync {number}"} for number in range(SYNCS))
    return [UUID(api.post("/v1/syncs", json=body).json()["id"]) for body in bodies]


@pytest.fixture
def reader(api: httpx.Client, stream: str) -> Callable[..., Reader]:
    def reader(seed: int, **more: int) -> Reader:
        body = {"stream_id": stream, "ack_wait_ms": int(ACK_WAIT_S * 1_000)} | more
        created = api.post("/v1/http-consumers", json=body).json()
        return Reader(api, f"/v1/http-consumers/{created['id']}", seeded(seed))

    return reader


@pytest.mark.parametrize("seed", [1])
def test_many_readers_and_writers(
    api: httpx.Client, database: Database, stream: str, syncs: list[UUID], reader: Any, seed: int
) -> None:
    """Nothing is lost, nothing current is in two hands, nothing acknowledged returns, order is kept."""
    shared = reader(seed, max_ack_pending=MAX_ACK_PENDING)
    group = [shared, *(Reader(api, shared.path, seeded(seed, each)) for each in (1, 2))]
    tail = reader(seed, ack_wait_ms=60_000)
    impatient = reader(seed, max_deliver=MAX_DELIVER)
    resets, is_over = list[Call](), threading.Event()

    def keep_on(work: Callable[[], object]) -> None:
        while not is_over.is_set():
            work()

    def begin_anew() -> None:
        for _ in range(3):
            time.sleep(0.2)
            resets.append(Reader._timed(lambda: api.post(f"{shared.path}/reset"))[0])

    with ThreadPoolExecutor(16) as pool:
        reading = [
            *(pool.submit(keep_on, each.be_careless) for each in (*group, impatient)),
            pool.submit(keep_on, lambda: tail.settle("ack", tail.take(7))),
        ]
        writing = [
            pool.submit(write, database, each, UUID(stream), seeded(seed, number))
            for number, each in enumerate(syncs)
        ]
        resetting = pool.submit(begin_anew)
        try:
            for each in (*writing, resetting):
                each.result()
            removed_at = _remove(api, database, syncs[0])
        finally:
            is_over.set()
        for each in reading:
            each.result()
    for each in (shared, tail, impatient):
        each.drain()

    held = _records(database, stream)
    handed_out = [handout for each in (*group, tail, impatient) for handout in each.handouts]
    assert _of_sync(handed_out, syncs[0], since=removed_at) == []
    assert {each.sync_id for each in held} == set(syncs[1:])
    assert _latest([handout for each in group for handout in each.handouts], syncs[0]) == _states(held)
    assert _latest(tail.handouts, syncs[0]) == _states(held)
    assert list(_disorder(handed_out)) == []
    order = [each.record["updated_idx"] for each in tail.handouts]
    assert order == sorted(set(order))
    assert list(_in_two_hands(group, resets)) == []
    assert list(_returned(group, resets)) == []
    assert max(Counter(each.version for each in impatient.handouts).values()) <= MAX_DELIVER
    assert max(info["num_ack_pending"] for each in group for info in each.infos) <= MAX_ACK_PENDING


@pytest.mark.timeout(20)
def test_a_record_moves_while_it_is_handed_out(
    database: Database, stream: str, syncs: list[UUID], reader: Any
) -> None:
    """On PostgreSQL neither waits for the other, and what has moved comes as it is now."""
    if database.is_sqlite:
        return  # who writes there is alone
    target = Target(UUID(stream), syncs[0], "stripe:customer", new_id(), is_pass=True)
    consumer_id = UUID(reader(0).path.rpartition("/")[2])
    _put(database, target, version=1)
    with database.write() as session:
        consumer = session.get_one(Consumer, consumer_id)
        [before] = take(session, consumer, utc_now(), 10)
        assert (before.record.updated_idx, before.record.data["version"]) == (1, 1)
        _put(database, target, version=2)
        [after] = take(session, consumer, utc_now(), 10)

    assert (after.record.updated_idx, after.record.data["version"]) == (2, 2)


def _put(database: Database, target: Target, version: int) -> None:
    arrival = Arrival(_object("cus_0", version), utc_now())
    with database.write() as session:
        append(session, target, [arrival], find_known(session, target, ["cus_0"]), utc_now())


def _remove(api: httpx.Client, database: Database, sync_id: UUID) -> float:
    """Delete a sync while all read; says since when it is gone."""
    assert api.delete(f"/v1/syncs/{sync_id}").status_code == 200
    removed_at = time.monotonic()
    time.sleep(0.1)
    erase_removed(database)
    return removed_at


def _records(database: Database, stream: str) -> list[Record]:
    with database.read() as session:
        statement = select(Record).join(Sync).where(Record.stream_id == UUID(stream), Sync.removed_at == None)  # noqa: E711
        return list(session.exec(statement).all())


def _states(records: list[Record]) -> dict[str, tuple[int, Any]]:
    return {str(each.id): (each.updated_idx, _state(each.deleted, each.data)) for each in records}


def _latest(handouts: list[Handout], removed: UUID) -> dict[str, tuple[int, Any]]:
    """What a program holds that applies a record only if its `updated_idx` is greater than the one it has."""
    held: dict[str, tuple[int, Any]] = {}
    for each in handouts:
        record = each.record
        if record["sync"]["id"] != str(removed) and held.get(record["id"], (-1,))[0] < record["updated_idx"]:
            held[record["id"]] = (record["updated_idx"], _state(record["deleted"], record["data"]))
    return held


def _state(deleted: bool, data: dict[str, Any]) -> Any:
    return "deleted" if deleted else data


def _of_sync(handouts: list[Handout], sync_id: UUID, since: float) -> list[Handout]:
    return [
        each for each in handouts if each.call.sent_at > since and each.record["sync"]["id"] == str(sync_id)
    ]


def _disorder(handouts: list[Handout]) -> Iterator[Any]:
    """Versions of one object whose indices are not in the order in which they were written."""
    seen: dict[str, dict[int, Any]] = defaultdict(dict)
    for each in handouts:
        if not each.record["deleted"]:
            seen[each.record["id"]][each.record["updated_idx"]] = each.record["data"]["version"]
    for versions in seen.values():
        written = [versions[idx] for idx in sorted(versions)]
        if written != sorted(set(written)):
            yield versions


def _in_two_hands(group: list[Reader], resets: list[Call]) -> Iterator[Any]:
    """One version with two readers, though nothing can have released it between."""
    nacks = {token: call for each in group for token, call in each.nacks.items()}

    def may_follow(first: Handout, second: Handout) -> bool:
        until = second.call.answered_at
        has_expired = until >= first.call.sent_at + ACK_WAIT_S
        is_refused = first.token in nacks and nacks[first.token].sent_at < until
        return has_expired or is_refused or _reset_within(resets, first.call.sent_at, until)

    for handouts in _by_version(group).values():
        for one, other in combinations(handouts, 2):
            if not may_follow(one, other) and not may_follow(other, one):
                yield one, other


def _returned(group: list[Reader], resets: list[Call]) -> Iterator[Any]:
    """A version handed out although it had been acknowledged in time."""
    refused = {token for each in group for token in each.nacks}
    acks = {token: call for each in group for token, call in each.acks.items() if token not in refused}
    for handouts in _by_version(group).values():
        for done in handouts:
            ack = acks.get(done.token)
            if ack is None or ack.answered_at >= done.call.sent_at + ACK_WAIT_S:
                continue
            for other in handouts:
                is_later = other.call.sent_at > ack.answered_at
                if is_later and not _reset_within(resets, done.call.sent_at, other.call.answered_at):
                    yield done, ack, other


def _reset_within(resets: list[Call], start: float, end: float) -> bool:
    return any(each.answered_at > start and each.sent_at < end for each in resets)


def _by_version(group: list[Reader]) -> dict[tuple[str, int], list[Handout]]:
    found = defaultdict(list)
    for reader in group:
        for each in reader.handouts:
            found[each.version].append(each)
    return found
