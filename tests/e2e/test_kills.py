"""Workers that are killed, replies that are lost, a broker that forgets: never twice, never lost.

Two workers and two beats run throughout, as every process may be doubled.
"""

import logging
import random
import time
from collections.abc import Iterator
from itertools import chain, pairwise

import pytest
import redis

from tests.e2e.conftest import NewMachine
from tests.e2e.harness import Process
from tests.e2e.services import Stranger

pytestmark = pytest.mark.e2e
log = logging.getLogger(__name__)  # --log-cli-level=INFO shows the figures

SEED = 20
KILLS = 4
SETTLE_S = 3
RETRY_AFTER_S = 1
STOPS_WITHIN_S = 10
API = ("--latency-ms", "20", "--backfill-min-s", "0.3", "--backfill-max-s", "1", "--seed", str(SEED))
HEALTHY = {"lose_reply": 0, "late_commit": 0, "rate_429": 0, "fail_500": 0, "reset": 0, "only": []}
CREATES = ["POST /v1/syncs"]
FAULTS = {
    "each create is committed late or its reply is lost": {
        "late_commit": 0.5,
        "late_commit_s": SETTLE_S - 1,
        "lose_reply": 1,
        "only": CREATES,
    },
    "anything may fail or be lost": {"fail_500": 0.07, "reset": 0.05, "lose_reply": 0.07},
}


@pytest.fixture(scope="module")
def workers() -> list[Process]:
    return []


@pytest.fixture(scope="module")
def stranger(new_machine: NewMachine, workers: list[Process]) -> Stranger:
    """A whole service; an API that needs 20 ms for an answer."""
    stranger = Stranger.on(new_machine(), *API, create_settle_s=str(SETTLE_S), parked_retry_s="5")
    workers += [stranger.gangway.add_worker(f"worker-{number}") for number in range(2)]
    return stranger.start(*workers, stranger.gangway.add_beat("second-beat"))


@pytest.fixture(autouse=True)
def healed(stranger: Stranger) -> Iterator[None]:
    yield
    stranger.api.faults(**HEALTHY)


def customers(name: str, count: int) -> list[str]:
    return [f"{name}_{number}" for number in range(count)]


def test_kills_lose_nothing_and_double_nothing(stranger: Stranger, workers: list[Process]) -> None:
    """Killed in every phase, at random moments: all become ready, none ever had two syncs."""
    moments = random.Random(SEED)  # noqa: S311  # repeatable
    waves = {phase: customers(f"killed_{phase}", 50) for phase in ("credentials", "ready", "polls", "syncs")}
    everyone = list(chain.from_iterable(waves.values()))
    connections, at_kills = [], []

    for phase, wave in waves.items():
        before = progress(stranger)[phase]
        connections += stranger.gangway.sign_up(wave)
        stranger.machine.wait_until(lambda: progress(stranger)[phase] > before, f"more {phase}")  # noqa: B023
        time.sleep(moments.uniform(0, 0.1))
        for worker in workers:
            worker.kill()
        at_kills.append(progress(stranger))
        for worker in workers:
            worker.start()
    took = stranger.gangway.wait_until_done(everyone, within_s=60)

    log.info("at the kills: %s; all ready %.1f s after the last restart", at_kills, took)
    assert max(at_kill["ready"] for at_kill in at_kills) < len(everyone)
    assert stranger.has_one_sync_each(connections)


@pytest.mark.parametrize("faults", FAULTS.values(), ids=FAULTS.keys())
def test_faults_of_the_api_only_cost_time(
    stranger: Stranger, faults: dict[str, object], request: pytest.FixtureRequest
) -> None:
    """While it lasts, and without it ever ending, all become ready with one sync each."""
    ids = customers(request.node.name, 20)
    stranger.api.faults(**faults)

    connections = stranger.gangway.sign_up(ids)
    took = stranger.gangway.wait_until_done(ids)

    log.info("%s: all ready after %.1f s", request.node.name, took)
    assert stranger.has_one_sync_each(connections)


def test_a_limiting_api_is_left_in_peace(stranger: Stranger) -> None:
    """After a 429 nobody calls before the time it names, in either form, and all go on soon after it."""
    ids = customers("limited", 20)
    began = time.time()
    stranger.api.faults(rate_429=1, retry_after="seconds", retry_after_s=RETRY_AFTER_S)

    connections = stranger.gangway.sign_up(ids)
    stranger.machine.wait_until(lambda: len(bursts(refusals(stranger, began))) > 0, "a round of 429")
    stranger.api.faults(retry_after="date")
    stranger.machine.wait_until(lambda: len(bursts(refusals(stranger, began))) > 2, "two more rounds of 429")
    stranger.api.faults(**HEALTHY)
    took = stranger.gangway.wait_until_done(ids)

    rounds = bursts(refusals(stranger, began))
    log.info("429: rounds of %s requests, all ready %.1f s later", [len(r) for r in rounds], took)
    assert all(later[0] - sooner[-1] >= RETRY_AFTER_S for sooner, later in pairwise(rounds))
    assert stranger.has_one_sync_each(connections)


def test_stopped_workers_and_a_broker_that_forgets_and_repeats(
    stranger: Stranger, workers: list[Process]
) -> None:
    """Workers end in seconds when told to; messages lost or doubled meanwhile cost no step and add none."""
    ids = [*customers("stopped", 60), *customers("forgotten", 40), *customers("tripled", 40)]
    before = stranger.api.stats()["requests"]

    connections = stranger.gangway.sign_up(ids[:60])
    await_progress(stranger)
    took = [worker.terminate() for worker in workers]
    with redis.Redis.from_url(stranger.redis.url) as client:
        connections += stranger.gangway.sign_up(ids[60:100])
        stranger.machine.wait_until(lambda: is_quiet(client), "all messages wait")
        client.flushall()
        connections += stranger.gangway.sign_up(ids[100:])
        stranger.machine.wait_until(lambda: is_quiet(client), "all messages wait")
        for message in client.lrange("onboarding", 0, -1) * 2:
            client.lpush("onboarding", message)
    for worker in workers:
        worker.start()
    rest = stranger.gangway.wait_until_done(ids)

    log.info("workers ended after %s s; all ready %.1f s after the restart", took, rest)
    assert max(took) < STOPS_WITHIN_S
    assert stranger.has_one_sync_each(connections)
    after = stranger.api.stats()["requests"]
    for route in ("POST /v1/credentials", "POST /v1/syncs"):
        assert after[route] - before.get(route, 0) == len(ids)


def await_progress(stranger: Stranger) -> None:
    """Wait until some worker calls the API again."""

    def requests() -> int:
        return sum(stranger.api.stats()["requests"].values())

    before = requests()
    stranger.machine.wait_until(lambda: requests() > before, "somebody works")


def progress(stranger: Stranger) -> dict[str, int]:
    stats = stranger.api.stats()
    ready = sum(tenant["state"] == "ready" for tenant in stranger.gangway.tenants().values())
    polls = stats["requests"].get("GET /v1/syncs", 0)
    return {"credentials": stats["credentials"], "syncs": stats["syncs"], "polls": polls, "ready": ready}


def refusals(stranger: Stranger, since: float) -> list[float]:
    """When requests met a 429."""
    return [entry["at"] for entry in stranger.api.log() if entry["status"] == 429 and entry["at"] > since]


def bursts(moments: list[float]) -> list[list[float]]:
    """Moments in groups: what was under way together when the first 429 came."""
    groups: list[list[float]] = []
    for moment in moments:
        if not groups or moment - groups[-1][0] > RETRY_AFTER_S / 2:
            groups.append([])
        groups[-1].append(moment)
    return groups


def is_quiet(client: "redis.Redis", for_s: float = 0.5) -> bool:
    """Whether messages wait and no more of them come."""
    before = client.llen("onboarding")
    time.sleep(for_s)
    return 0 < before == client.llen("onboarding")
