"""Every outage ends by itself: of the broker, on an idle service and on a busy one, and of a provider."""

import logging
import signal
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest
import redis

from tests.e2e.conftest import NewMachine
from tests.e2e.harness import Machine, Redis
from tests.e2e.provisioning import customers
from tests.e2e.services import FOLLOWED, Stranger

pytestmark = pytest.mark.e2e
log = logging.getLogger(__name__)  # --log-cli-level=INFO shows the figures

API = ("--backfill-min-s", "0.1", "--backfill-max-s", "0.3", "--health", "gen1")
SEVERAL_SWEEPS_S = 3.0
SILENT_CONNECTION_S = 31.0
"""After 30 s a worker's own connection gives up on a broker that does not answer."""
FAST_S = 0.9
"""Nobody waits for the broker, which would take a second."""
REFUSED = 50


@dataclass(frozen=True)
class Outage:
    """What befalls a broker, and how it comes back."""

    begin: Callable[[Redis], object]
    end: Callable[[Redis], object]
    lasts_s: float = SEVERAL_SWEEPS_S


def save_and_stop(broker: Redis) -> None:
    with redis.Redis.from_url(broker.url) as client:
        client.shutdown(save=True)
    broker.process.wait()


def stop(broker: Redis) -> None:
    with redis.Redis.from_url(broker.url) as client:
        client.shutdown(nosave=True)
    broker.process.wait()


OUTAGES = {
    "killed, and replaced by an empty one": Outage(lambda broker: broker.process.kill(), Redis.start),
    "stopped for a while": Outage(stop, Redis.start),
    "restarted with what it held": Outage(save_and_stop, Redis.start, lasts_s=0),
    "frozen": Outage(
        lambda broker: broker.process.signal(signal.SIGSTOP),
        lambda broker: broker.process.signal(signal.SIGCONT),
        lasts_s=SILENT_CONNECTION_S,
    ),
}


@dataclass(frozen=True)
class Services:
    """Two whole services, each with a broker of its own."""

    busy: Stranger
    idle: Stranger

    @property
    def both(self) -> tuple[Stranger, Stranger]:
        return self.busy, self.idle


@pytest.fixture(scope="module")
def services(new_machine: NewMachine) -> Iterator[Services]:
    def start(machine: Machine, *options: str) -> Stranger:
        stranger = Stranger.on(machine, *API, *options, refusal_lasts_s="1", health_poll_s="1")
        worker = stranger.gangway.add_worker("worker")
        stranger.machine.supervised.append(worker)  # Celery 5.7 may fail when its broker dies
        return stranger.start(worker)

    with ThreadPoolExecutor(2) as pool:
        yield Services(*pool.map(start, (new_machine(), new_machine()), (FOLLOWED, "--extra-fields")))


@pytest.mark.parametrize("name", OUTAGES)
def test_an_outage_of_the_broker_ends_by_itself(services: Services, name: str) -> None:
    """Whatever happened to the broker, and whether or not there was work: new signups are ready soon after.

    Nobody restarts anything. Work that came meanwhile is done too, and /readyz says what is true.
    """
    outage, meanwhile, later = OUTAGES[name], customers(f"during {name}", 10), customers(f"after {name}", 10)
    services.busy.gangway.sign_up(customers(f"before {name}", 10))
    for each in services.both:
        outage.begin(each.redis)
    if outage.lasts_s:
        assert statistics.median(sign_up_one_by_one(services.busy, meanwhile)) < FAST_S
        wait_until_told(services, "unreachable")
        time.sleep(outage.lasts_s)
    for each in services.both:
        outage.end(each.redis)

    for each in services.both:
        each.gangway.sign_up(later)
    took = [each.gangway.wait_until_done(later) for each in services.both]
    everyone = [*services.busy.gangway.tenants()]
    took.append(services.busy.gangway.wait_until_done(everyone))

    log.info("%s: ready after %s s", name, [f"{seconds:.1f}" for seconds in took])
    wait_until_told(services, "ok")
    for each in services.both:
        assert "watchdog.stalled" not in each.machine.processes["worker"].output


def test_a_provider_that_refuses_everyone_for_a_while(services: Services) -> None:
    """Nobody fails by it, however long it lasts; all are ready again without anybody's help."""
    ids, gangway, api = customers("refused", REFUSED), services.busy.gangway, services.busy.api
    connections = gangway.sign_up(ids)
    gangway.wait_until_done(ids)

    api.refuse_credentials(refused=True)
    gangway.wait_until_done(ids, state="degraded")
    time.sleep(SEVERAL_SWEEPS_S)  # longer than a refusal has to last to be believed of a single customer
    during = {tenant["state"] for tenant in gangway.tenants().values()}
    api.refuse_credentials(refused=False)
    took = gangway.wait_until_done(ids)

    log.info("all %d ready again %.1f s after the provider came back", REFUSED, took)
    assert during == {"degraded"}
    assert services.busy.has_one_sync_each(connections)


def sign_up_one_by_one(stranger: Stranger, ids: Iterable[str]) -> list[float]:
    """Sign them up and return how long each answer took."""
    took = []
    for external_id in ids:
        began = time.monotonic()
        stranger.gangway.sign_up([external_id])
        took.append(time.monotonic() - began)
    return took


def wait_until_told(services: Services, broker: str) -> None:
    """Wait until /readyz of both says this of the broker; what it says may be a second old."""
    services.busy.machine.wait_until(
        lambda: {broker_of(each) for each in services.both} == {broker}, f"the broker is {broker}"
    )


def broker_of(stranger: Stranger) -> str:
    readiness = stranger.gangway.readiness()
    assert readiness["status"] == "ok"
    return str(readiness["broker"])
