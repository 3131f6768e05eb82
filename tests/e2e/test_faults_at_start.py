"""What is missing or wrong when customers sign up: they are accepted all the same, and come aboard later."""

import logging
from collections import Counter
from collections.abc import Iterable

import pytest

from tests.e2e.conftest import NewMachine
from tests.e2e.harness import Process
from tests.e2e.provisioning import customers
from tests.e2e.services import Stranger

pytestmark = pytest.mark.e2e
log = logging.getLogger(__name__)

DIALECT = ("--create-status", "201", "--timestamps", "space", "--health", "gen1", "--extra-fields")
"""Other people's idea of the contract: in everything unlike the newest documentation."""
API = ("--backfill-min-s", "0.3", "--backfill-max-s", "1", *DIALECT)


@pytest.fixture(scope="module")
def stranger(new_machine: NewMachine) -> Stranger:
    """Everything but the Management API and a worker."""
    stranger = Stranger.on(new_machine(), *API, create_settle_s="3")
    stranger.gangway.beat.start()
    stranger.gangway.start_web()
    return stranger


@pytest.fixture(scope="module")
def worker(stranger: Stranger) -> Process:
    return stranger.gangway.add_worker("worker")


def test_an_api_that_is_down_and_a_token_that_is_wrong(stranger: Stranger, worker: Process) -> None:
    """Signups wait, with the reason on show; no customer is blamed for our mistake; then all come aboard."""
    ids = customers("early", 10)
    worker.start(GANGWAY_API_TOKEN="not-the-token-of-this-api")

    connections = stranger.gangway.sign_up(ids)
    wait_for_code(stranger, ids, "api_unavailable")
    stranger.api.start()
    wait_for_code(stranger, ids, "api_token_rejected")
    states = {stranger.gangway.tenants()[id_]["state"] for id_ in ids}
    worker.terminate()
    worker.start(GANGWAY_API_TOKEN=stranger.api.TOKEN)
    took = stranger.gangway.wait_until_done(ids)

    log.info("all ready %.1f s after the right token was set", took)
    assert states == {"provisioning"}
    assert stranger.has_one_sync_each(connections)


def test_provisions_against_any_api(healthy: Stranger) -> None:
    """All become ready, each with one sync that carries the customer's id, read a few times only."""
    ids, before = customers("org", 20), requests_of(healthy)

    healthy.gangway.sign_up(ids)
    healthy.gangway.wait_until_done(ids)

    syncs = {sync["sync_id"]: sync["external_id"] for sync in healthy.api.stats()["backfills"]}
    tenants = healthy.gangway.tenants()
    assert syncs == {tenant["connections"][0]["sync_id"]: id_ for id_, tenant in tenants.items()}
    requests = requests_of(healthy) - before
    assert requests["POST /v1/syncs"] == requests["POST /v1/credentials"] == len(ids)
    assert requests["GET /v1/syncs"] + requests["GET /v1/syncs/{id}"] <= 5 * len(ids)


@pytest.fixture
def healthy(stranger: Stranger, worker: Process) -> Stranger:
    """Everything runs by now."""
    for process in (stranger.api.process, worker):
        if not process.is_running:
            process.start()
    return stranger


def requests_of(stranger: Stranger) -> "Counter[str]":
    """How often each route has been asked."""
    return Counter(stranger.api.stats()["requests"])


def wait_for_code(stranger: Stranger, ids: Iterable[str], code: str) -> None:
    """Wait until every one of these shows this problem."""

    def shown() -> bool:
        tenants = stranger.gangway.tenants()
        errors = [tenants[id_]["connections"][0]["error"] for id_ in ids]
        return all(error and error["code"] == code and error["advice"] for error in errors)

    stranger.machine.wait_until(shown, f"all show {code}")
