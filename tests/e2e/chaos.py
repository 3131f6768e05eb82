"""A backfill whose upstream changes, while whatever takes part in it is killed at random moments."""

import random
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx
from sqlmodel import col, select

from engine.delivery import pending
from engine.tables import Consumer, Record, Stream
from foundation.database import Database, utc_now
from tests.e2e import histories
from tests.e2e.arrivals import most_in_a_window
from tests.e2e.changing import Upstream
from tests.e2e.harness import Machine, Redis
from tests.e2e.peers import BulkStripe
from tests.e2e.services import Engine

CONSUME: Final = Path(__file__).parents[1] / "engine" / "consume.py"
PAGE: Final = 100
LATENCY_MS: Final = 20
LOOK_EVERY_S: Final = 0.2
ACK_WAIT_MS: Final = 3000
STILL_S: Final = 60.0
LOOKED_AT_AGAIN: Final = 3000
"""So many of the highest places: nothing is committed later than these are passed."""


@dataclass(frozen=True)
class Plan:
    """What is to happen, the same for the same seed."""

    records: int = 50_000
    syncs: int = 5
    kills: int = 30
    """Of the engine's processes. Consumers, and Redis if wanted, are killed besides."""
    kills_within_s: float = 60.0
    changes: int = 600
    workers: int = 3
    seed: int = 1
    kills_redis: bool = False

    @property
    def rate_limit(self) -> dict[str, int]:
        """Slow enough for the backfill to outlast the kills, and even."""
        rate = self.records / self.syncs / PAGE / self.kills_within_s
        interval = next(seconds for seconds in range(1, 3600) if seconds * rate >= 2)
        return {"allowed_requests": int(interval * rate), "interval": interval}

    def events(self) -> list[tuple[float, str]]:
        """What happens when: a change, or a kill and whom it hits."""
        draw = random.Random(self.seed)  # noqa: S311  # repeatable
        processes = ["web", *(f"worker-{number}" for number in range(self.workers))]
        happens = ["change"] * self.changes + [draw.choice(processes) for _ in range(self.kills)]
        happens += ["consumer"] * (self.kills // 3)
        happens += ["redis"] * (self.kills // 6 if self.kills_redis else 0)
        return sorted((draw.uniform(0, self.kills_within_s), what) for what in happens)


@dataclass(frozen=True)
class Outcome:
    """What was seen, and all that was wrong with it."""

    faults: list[str]
    kills: Mapping[str, int]
    records: int
    changes: int
    appended: int
    unfinished_syncs_at_last_kill: int
    backfill_s: float
    recovery_median_s: float
    """From the kill of a worker to the next request of whichever sync had to wait longest for it."""
    recovery_longest_s: float


class World:
    """The engine, a provider and a consumer, and what is seen of them from outside."""

    def __init__(self, machine: Machine, plan: Plan, database_url: str) -> None:
        self._machine, self._plan = machine, plan
        each = plan.records // plan.syncs
        self._keys = [f"sk_test_of_account_{number}" for number in range(plan.syncs)]
        self._stripe = BulkStripe(machine, records=each, latency_ms=LATENCY_MS).start()
        self._upstream = Upstream(self._stripe, self._keys, each, plan.seed)
        redis = Redis(machine).start()
        self.engine = Engine(
            machine, database_url=database_url, broker_url=redis.url, stripe_url=self._stripe.url
        )
        self.engine.workers += [self.engine.add_worker(f"worker-{n}") for n in range(1, plan.workers)]
        self._targets = {"web": self.engine.web, "redis": redis.process}
        self._targets |= {f"worker-{number}": each for number, each in enumerate(self.engine.workers)}
        self._database = Database(database_url)
        self._places = Places(self._database)
        self._seen = machine.home / "seen.jsonl"
        self._completed = dict[str, set[str]]()
        """When each sync said that its backfill was complete, in all the words it ever used."""
        self._deaths = list[tuple[str, float]]()

    def run(self) -> Outcome:
        """Backfill, change and kill as planned, wait until all is calm, and compare."""
        began_at = time.monotonic()
        self._begin()
        self._go_through(self._plan.events())
        unfinished = sum(not moments for moments in self._completed.values())
        self._wait(lambda: all(self._completed.values()), "the backfills are complete")
        backfill_s = time.monotonic() - began_at
        arrivals = self._stripe.requests()
        customers = self._upstream.customers()
        self._wait(lambda: self._is_caught_up(customers), "the stream equals the upstream")
        recoveries = [
            recovery for who, at in self._deaths if "worker" in who for recovery in silences(arrivals, at)
        ]
        return Outcome(
            faults=[*self._places.faults, *self._faults(customers), *self._crowds(arrivals)],
            kills=dict(Counter(who for who, _ in self._deaths)),
            records=self._plan.records,
            changes=self._upstream.versions,
            appended=self._places.last_idx(),
            unfinished_syncs_at_last_kill=unfinished,
            backfill_s=round(backfill_s, 1),
            recovery_median_s=round(statistics.median(recoveries), 1),
            recovery_longest_s=round(max(recoveries), 1),
        )

    def _begin(self) -> None:
        """Everything runs, and the first page has been read."""
        self.engine.start()
        http = self.engine.http
        stream = self._post("/streams", {"slug": "main"})
        self._consumer_id = self._post("/http-consumers", {"stream_id": stream, "ack_wait_ms": ACK_WAIT_MS})
        consume = (sys.executable, CONSUME, http.base_url.copy_with(path=""), self.engine.token)
        command = (*consume, self._consumer_id, self._seen)
        self._targets["consumer"] = self._machine.add("consumer", command).start()
        for key in self._keys:
            self._completed[self._post("/syncs", self._sync_of(stream, key))] = set()
        self._machine.supervised += self._targets.values()
        self._wait(lambda: self._places.highest > 0, "the backfill begins")

    def _post(self, path: str, body: dict[str, object]) -> str:
        return str(self.engine.http.post(path, json=body).raise_for_status().json()["id"])

    def _sync_of(self, stream: str, key: str) -> dict[str, object]:
        return {
            "provider": "stripe",
            "stream_id": stream,
            "name": key,
            "collection_ids": ["stripe:customer"],
            "rate_limit": self._plan.rate_limit,
            "credential": {"properties": {"kind": "stripe_key", "secret": key}},
        }

    def _go_through(self, events: list[tuple[float, str]]) -> None:
        began_at = time.monotonic()
        for at, what in events:
            while (left_s := began_at + at - time.monotonic()) > 0:
                time.sleep(min(left_s, LOOK_EVERY_S))
                self._look()
            if what == "change":
                self._upstream.change()
            else:
                self._deaths.append((what, time.monotonic()))
                self._targets[what].kill()
                self._targets[what].start()

    def _look(self) -> None:
        """Note what has become of the places in the stream, and of the syncs, if the API answers."""
        self._places.look()
        try:
            syncs = self.engine.http.get("/syncs", timeout=2).raise_for_status().json()["data"]
        except httpx.HTTPError:
            return
        for sync in syncs:
            if sync["initial_backfill_completed_at"] is not None:
                self._completed[sync["id"]].add(sync["initial_backfill_completed_at"])

    def _wait(self, holds: Callable[[], bool], what: str) -> None:
        def looked() -> bool:
            self._look()
            return holds()

        self._machine.wait_until(looked, what, STILL_S, moves=self._progress)

    def _progress(self) -> object:
        """What has arrived so far: records in the stream, and what the consumer wrote down."""
        consumed = self._seen.stat().st_size if self._seen.exists() else 0
        return self._places.highest, consumed, sum(map(bool, self._completed.values()))

    def _is_caught_up(self, customers: Mapping[str, object]) -> bool:
        """Whether what was changed is in the stream as it is upstream, and the consumer has had it all."""
        touched = self._upstream.touched
        with self._database.read() as session:
            rows = session.exec(
                select(Record.upstream_id, Record.deleted, Record.data).where(
                    col(Record.upstream_id).in_(touched)
                )
            )
            held = {upstream_id: None if deleted else data for upstream_id, deleted, data in rows}
            consumer = session.exec(select(Consumer)).one()
            left = pending(session, consumer, utc_now())
        is_same = all(held.get(each) == customers.get(each) for each in touched)
        return is_same and left.num_pending == left.num_ack_pending == 0

    def _faults(self, customers: Mapping[str, object]) -> list[str]:
        """Whatever is not as it has to be in the end."""
        seen = list(histories.read_lines(self._seen))
        faults = histories.faults_in(map(histories.version_of, seen))
        faults += [f"consumer: {each}" for each in histories.differences(histories.latest(seen), customers)]
        [stream] = self.engine.http.get("/streams").json()["data"]
        anew = self.engine.read_anew(stream["id"])
        faults += [f"stream: {each}" for each in histories.differences(histories.latest(anew), customers)]
        indices = [record["updated_idx"] for record in anew]
        if indices != sorted(set(indices)):
            faults.append("a new consumer does not get the places in order")
        if len(anew) != len({record["upstream_id"] for record in anew}):
            faults.append("a new consumer gets an object twice")
        if self._places.last_idx() > self._plan.records + self._upstream.versions:
            faults.append(f"{self._places.last_idx()} places for less records and changes")
        if any(len(moments) != 1 for moments in self._completed.values()):
            faults.append(f"completion was told anew: {self._completed}")
        return faults

    def _crowds(self, arrivals: Mapping[str, list[float]]) -> list[str]:
        """Where more requests arrived within an interval than a sync was allowed."""
        allowed, interval = self._plan.rate_limit.values()
        most = {account: most_in_a_window(moments, interval) for account, moments in arrivals.items()}
        if self._plan.kills_redis:  # which is where they are counted
            return []
        return [
            f"{account} was asked {count} times in a window"
            for account, count in most.items()
            if count > allowed
        ]


class Places:
    """The places of the stream, looked at again and again: none may appear below one that was seen."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._known = set[int]()
        self.highest = 0
        self.faults = list[str]()

    def look(self) -> None:
        floor = self.highest - LOOKED_AT_AGAIN
        with self._database.read() as session:
            found = set(session.exec(select(Record.updated_idx).where(Record.updated_idx > floor)))
        late = [idx for idx in found - self._known if floor < idx <= self.highest]
        self.faults += [f"place {idx} appeared after {self.highest}" for idx in late]
        self._known = found
        self.highest = max(found, default=0)

    def last_idx(self) -> int:
        """How many places were ever given out."""
        with self._database.read() as session:
            return session.exec(select(Stream.last_idx)).one()


def silences(arrivals: Mapping[str, list[float]], at: float) -> list[float]:
    """How long after this moment the provider heard from whichever account it did last; if from all."""
    nexts = [next((moment - at for moment in moments if moment > at), None) for moments in arrivals.values()]
    heard = [each for each in nexts if each is not None]
    return [max(heard)] if len(heard) == len(nexts) else []
