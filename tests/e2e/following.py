"""A sync that follows a shop while the consumer, and once the worker, are killed at random moments."""

import json
import random
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.e2e import histories
from tests.e2e.harness import Machine, Process, Redis
from tests.e2e.peers import LocalStripe
from tests.e2e.services import Engine
from tests.e2e.shop import KEY, SERVICES, Shop, shop
from worker.demo.patience import Patience

CONSUME: Final = Path(__file__).parents[1] / "engine" / "consume.py"
ACK_WAIT_MS: Final = 1_000
STILL_S: Final = 60.0
BY_EVENTS: Final = "stripe:customer"
"""localstripe tells of these by events, of all others only in part: those need to be read again."""


@dataclass(frozen=True)
class Plan:
    """What is to happen, the same for the same seed."""

    writes: int = 160
    """Half of them before the backfill is over."""
    kills: int = 4
    """Of the consumer. One of the worker comes on top."""
    seed: int = 1


@dataclass(frozen=True)
class Outcome:
    """What was seen, and all that was wrong with it."""

    faults: list[str]
    writes: int
    objects: Mapping[str, int]
    """Of each collection, in the end."""
    appended: int
    latency_s: float
    """From a change upstream to the consumer."""
    settled_s: float
    """From the last write, and the order to read all again, until the consumer had it."""
    states: list[str]
    health: str


class Following:
    """A shop, the engine that follows it, and a consumer that guards its writes by `updated_idx`."""

    def __init__(self, machine: Machine, plan: Plan, database_url: str) -> None:
        self._machine, self._plan = machine, plan
        self._draw = random.Random(plan.seed)  # noqa: S311  # repeatable
        self._stripe = LocalStripe(machine, customers=30, subscribers=6)
        redis = Redis(machine).start()
        self._engine = Engine(
            machine, database_url=database_url, broker_url=redis.url, stripe_url=self._stripe.url
        )
        self._stripe.start()  # while the engine migrates
        self._seen = machine.home / "seen.jsonl"

    def run(self) -> Outcome:
        """Write while the backfill runs and while changes are watched, read all again, and compare."""
        self._engine.start()
        with shop(self._stripe.url, self._plan.seed) as changing, ThreadPoolExecutor(1) as pool:
            half = self._plan.writes // 2
            writing = pool.submit(changing.change, half)
            stream, sync = self._begin()
            consumer, worker = self._machine.processes["consumer"], self._engine.workers[0]
            self._kill([consumer] * (self._plan.kills // 2), changing, writing)
            self._wait(lambda: self._get(sync)["initial_backfill_completed_at"], "the backfill is complete")
            self._wait(lambda: self._has_heard(changing), "the consumer knows of all that events told")
            latency_s = self._latency(changing)

            writing = pool.submit(changing.change, half)
            self._kill([worker, *[consumer] * (self._plan.kills // 2)], changing, writing)
            self._engine.http.post(f"/syncs/{sync}/backfill").raise_for_status()
            ordered_at = time.monotonic()
            upstream = {each: changing.listed(each) for each in SERVICES}
            faults = self._settle(upstream)
            settled_s = time.monotonic() - ordered_at
        anew = self._engine.read_anew(stream)
        return Outcome(
            faults=[*faults, *(f"read anew: {each}" for each in faults_of(anew, upstream))],
            writes=changing.writes,
            objects={collection_id: len(objects) for collection_id, objects in upstream.items()},
            appended=max(each["updated_idx"] for each in anew),
            latency_s=round(latency_s, 1),
            settled_s=round(settled_s, 1),
            states=[each["state"] for each in self._get(f"{sync}/progress")["data"]],
            health=self._get(sync)["health"]["status"],
        )

    def _begin(self) -> tuple[str, str]:
        """A stream with a sync and a consumer, which reads from now on."""
        stream = self._post("/streams", {"slug": "main"})
        sync = {
            "provider": "stripe",
            "stream_id": stream,
            "name": "Choam Corp",
            "collection_ids": list(SERVICES),
            "sync_frequency": "continuous",
            "credential": {"properties": {"kind": "stripe_key", "secret": KEY}},
        }
        consumer_id = self._post("/http-consumers", {"stream_id": stream, "ack_wait_ms": ACK_WAIT_MS})
        command = (sys.executable, CONSUME, self._engine.url, self._engine.token, consumer_id, self._seen)
        self._machine.add("consumer", command).start()
        return stream, self._post("/syncs", sync)

    def _post(self, path: str, body: Mapping[str, object]) -> str:
        return str(self._engine.http.post(path, json=body).raise_for_status().json()["id"])

    def _get(self, sync: str) -> dict[str, Any]:
        return dict(self._engine.http.get(f"/syncs/{sync}").raise_for_status().json())

    def _wait(self, holds: Callable[[], object], what: str) -> float:
        return self._machine.wait_until(holds, what, STILL_S, moves=self._consumed)

    def _consumed(self) -> int:
        """How much the consumer has written down."""
        return self._seen.stat().st_size if self._seen.exists() else 0

    def _kill(self, victims: list[Process], changing: Shop, writing: Future[None]) -> None:
        """Kill each, and start it again, after so many writes; and wait for the last write."""
        self._draw.shuffle(victims)
        left = range(changing.writes + 1, changing.writes + self._plan.writes // 2)
        for victim, moment in zip(victims, sorted(self._draw.choices(left, k=len(victims))), strict=True):
            self._wait(lambda: writing.done() or changing.writes >= moment, "the shop writes")  # noqa: B023
            victim.kill()
            victim.start()
        writing.result()

    def _held(self) -> dict[str, histories.Record]:
        return histories.latest(histories.read_lines(self._seen)) if self._seen.exists() else {}

    def _has_heard(self, changing: Shop) -> bool:
        """Whether it has every customer as it is, and none that is gone."""
        told = {*changing.customers, *changing.lost}
        held = {name: each for name, each in self._held().items() if name in told}
        listed = changing.listed(BY_EVENTS)
        return not differences(held, {name: each for name, each in listed.items() if name in told})

    def _latency(self, changing: Shop) -> float:
        customer = changing.customers[0]
        changing.rename(customer, "renamed")
        return self._wait(lambda: self._held()[customer]["data"]["name"] == "renamed", "the rename is seen")

    def _settle(self, upstream: Mapping[str, Mapping[str, Any]]) -> list[str]:
        """Wait until the consumer has everything as it is; otherwise what it has not."""
        patience = Patience[int](STILL_S)
        while faults := faults_of(self._held().values(), upstream):
            if patience.is_over(self._consumed()):
                break
            time.sleep(0.1)
        return faults


def faults_of(records: Iterable[histories.Record], upstream: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """How the records differ from what the provider lists, by collection."""
    held = dict[str, dict[str, histories.Record]]()
    for each in records:
        held.setdefault(each["collection_id"], {})[each["upstream_id"]] = each
    return [
        f"{collection_id}: {fault}"
        for collection_id, objects in upstream.items()
        for fault in differences(held.get(collection_id, {}), objects)
    ]


def differences(held: Mapping[str, histories.Record], upstream: Mapping[str, Any]) -> list[str]:
    """The same, as JSON tells objects apart and Python does not: 1, 1.0 and true are three things."""
    spelt = {name: {**each, "data": canonical(each["data"])} for name, each in held.items()}
    return histories.differences(spelt, {name: canonical(each) for name, each in upstream.items()})


def canonical(value: object) -> str:
    return json.dumps(value, sort_keys=True)
