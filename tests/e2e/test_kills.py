"""Workers that are killed, replies that are lost, a broker that forgets: never twice, never lost.

Two workers and two beats run throughout, as every process may be doubled.
"""

import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import pytest
import redis

from models import Step
from tests.e2e.conftest import NewDatabaseOf, NewMachine
from tests.e2e.harness import Process
from tests.e2e.provisioning import SETTLE_S, Plan, Provisioning, customers
from tests.e2e.services import FOLLOWED, Stranger

pytestmark = pytest.mark.e2e
log = logging.getLogger(__name__)  # --log-cli-level=INFO shows the figures

RETRY_AFTER_S = 1
STOPS_WITHIN_S = 10


@dataclass(frozen=True)
class Variant:
    """A kind of database, an API's options, and the phases in which workers are killed."""

    database: str
    api_options: tuple[str, ...]
    phases: tuple[str, ...]


POLLED = pytest.param(Variant("sqlite", (), ("credentials", "polls")), id="sqlite, polled")
FOLLOWED_ON_POSTGRESQL = pytest.param(
    Variant("postgresql", (FOLLOWED,), ("syncs", "ready")), id="postgresql, followed"
)
"""Together every phase, both databases, and an API with a feed of changes and one without.

`benchmarks/provisioning_kills.py` runs every phase on each of the four combinations, with many seeds.
"""
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


@pytest.fixture(scope="module", params=[POLLED, FOLLOWED_ON_POSTGRESQL])
def provisioning(
    request: pytest.FixtureRequest, new_machine: NewMachine, new_database_of: NewDatabaseOf
) -> Iterator[Provisioning]:
    """A whole service of its own for each variant."""
    variant: Variant = request.param
    machine, url = new_machine(), new_database_of(variant.database)
    plan = Plan(customers=25, lease_s=4, phases=variant.phases)
    yield Provisioning.on(machine, plan, *variant.api_options, database_url=url)
    machine.end()


@pytest.fixture(scope="module")
def stranger(provisioning: Provisioning) -> Stranger:
    return provisioning.stranger


@pytest.fixture(scope="module")
def workers(provisioning: Provisioning) -> list[Process]:
    return provisioning.workers


@pytest.fixture(autouse=True)
def healed(stranger: Stranger) -> Iterator[None]:
    yield
    stranger.api.faults(**HEALTHY)


def test_kills_lose_nothing_and_double_nothing(provisioning: Provisioning) -> None:
    """Killed in every phase, at random moments: all become ready, none ever had two syncs."""
    outcome = provisioning.kill_in_every_phase()

    log.info("%s", outcome)
    assert (outcome.lost, outcome.doubled) == (0, 0)
    assert outcome.kills_midway > 0


@pytest.mark.parametrize("faults", FAULTS.values(), ids=FAULTS.keys())
def test_faults_of_the_api_only_cost_time(
    stranger: Stranger, faults: dict[str, object], request: pytest.FixtureRequest
) -> None:
    """While it lasts, and without it ever ending, all become ready with one sync each."""
    ids = customers(request.node.name, 12)
    stranger.api.faults(**faults)

    connections = stranger.gangway.sign_up(ids)
    took = stranger.gangway.wait_until_done(ids)

    log.info("%s: all ready after %.1f s", request.node.name, took)
    assert stranger.has_one_sync_each(connections)


@pytest.mark.parametrize("provisioning", [POLLED], indirect=True)
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


@pytest.mark.parametrize("provisioning", [FOLLOWED_ON_POSTGRESQL], indirect=True)
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
        for message in client.lrange(Step.CAPTURE, 0, -1) * 2:
            client.lpush(Step.CAPTURE, message)
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
    before = client.llen(Step.CAPTURE)
    time.sleep(for_s)
    return 0 < before == client.llen(Step.CAPTURE)
