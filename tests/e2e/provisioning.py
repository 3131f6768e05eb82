"""Customers who sign up while the workers are killed at random moments: never twice, never lost."""

import random
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from typing import Final, Self

from tests.e2e.harness import Machine, Process
from tests.e2e.services import Stranger

SETTLE_S: Final = 3
PHASES: Final = ("credentials", "ready", "polls", "syncs")
"""Each wave's workers die when the first of the wave have come so far."""


@dataclass(frozen=True)
class Plan:
    """What is to happen, the same for the same seed."""

    customers: int = 50
    """In each of the waves."""
    seed: int = 20
    lease_s: float = 10.0
    phases: tuple[str, ...] = PHASES


@dataclass(frozen=True)
class Outcome:
    """What was seen from outside."""

    customers: int
    lost: int
    doubled: int
    ready_at_kills: list[int]
    kills_midway: int
    """When some of those who had signed up were not ready."""
    ready_after_s: float
    """From the last restart until the last customer was ready."""


@dataclass(frozen=True)
class Provisioning:
    """A whole service, whose processes are doubled, on an API that needs 20 ms for an answer."""

    stranger: Stranger
    workers: list[Process]
    plan: Plan

    @classmethod
    def on(cls, machine: Machine, plan: Plan, *api_options: str, database_url: str = "") -> Self:
        """Everything runs."""
        times = ("--latency-ms", "20", "--backfill-min-s", "0.3", "--backfill-max-s", "1")
        stranger = Stranger.on(
            machine,
            *times,
            *("--seed", str(plan.seed)),
            *api_options,
            database_url=database_url,
            create_settle_s=str(SETTLE_S),
            parked_retry_s="5",
            lease_s=f"{plan.lease_s:g}",
        )
        workers = [stranger.gangway.add_worker(f"worker-{number}") for number in range(2)]
        stranger.start(*workers, stranger.gangway.add_beat("second-beat"))
        return cls(stranger, workers, plan)

    def kill_in_every_phase(self) -> Outcome:
        """Sign waves of customers up, kill all workers in a phase of each, and wait for everyone."""
        draw = random.Random(self.plan.seed)  # noqa: S311  # repeatable
        connections, ready_at_kills = list[str](), list[int]()
        waves = {phase: customers(f"killed_{phase}", self.plan.customers) for phase in self.plan.phases}
        with ThreadPoolExecutor(1) as pool:
            for phase, wave in waves.items():
                before = self.progress()[phase]
                signing_up = pool.submit(self.stranger.gangway.sign_up, wave)
                self._wait_for_more(phase, before)
                time.sleep(draw.uniform(0, 0.1))
                for worker in self.workers:
                    worker.signal(signal.SIGKILL)
                connections += signing_up.result()
                ready_at_kills.append(self.progress()["ready"])
                for worker in self.workers:
                    worker.kill()
                    worker.start()
        took = self.stranger.gangway.wait_until_done(list(chain.from_iterable(waves.values())))
        return self._outcome(connections, ready_at_kills, took)

    def progress(self) -> dict[str, int]:
        """How far all customers have come, as the API and the status tell it."""
        stats = self.stranger.api.stats()
        ready = sum(tenant["state"] == "ready" for tenant in self.stranger.gangway.tenants().values())
        polls = stats["requests"].get("GET /v1/syncs", 0)
        return {
            "credentials": stats["credentials"],
            "syncs": stats["syncs"],
            "polls": polls,
            "ready": ready,
        }

    def _wait_for_more(self, phase: str, before: int) -> None:
        self.stranger.machine.wait_until(lambda: self.progress()[phase] > before, f"more {phase}")

    def _outcome(self, connections: list[str], ready_at_kills: list[int], took: float) -> Outcome:
        stats = self.stranger.api.stats()
        ever, now = stats["max_syncs_by"], stats["syncs_by"]
        return Outcome(
            customers=len(connections),
            lost=sum(now.get(connection, 0) != 1 for connection in connections),
            doubled=sum(ever.get(connection, 0) > 1 for connection in connections),
            ready_at_kills=ready_at_kills,
            kills_midway=sum(
                ready < self.plan.customers * number for number, ready in enumerate(ready_at_kills, 1)
            ),
            ready_after_s=round(took, 1),
        )


def customers(name: str, count: int) -> list[str]:
    return [f"{name}_{number}" for number in range(count)]
