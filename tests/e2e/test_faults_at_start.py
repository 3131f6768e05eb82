"""What is missing or wrong when customers sign up: they are accepted all the same, and come aboard later."""

import logging
from collections.abc import Iterable

import pytest

from tests.e2e.conftest import NewMachine
from tests.e2e.harness import Process
from tests.e2e.peers import ContractApi
from tests.e2e.provisioning import customers
from tests.e2e.services import Stranger

pytestmark = pytest.mark.e2e
log = logging.getLogger(__name__)

API = ("--backfill-min-s", "0.3", "--backfill-max-s", "1")


@pytest.fixture(scope="module")
def stranger(new_machine: NewMachine) -> Stranger:
    """Everything but the Management API."""
    stranger = Stranger.on(new_machine(), *API, create_settle_s="3")
    stranger.gangway.beat.start()
    stranger.gangway.start_web()
    return stranger


@pytest.fixture(scope="module")
def worker(stranger: Stranger) -> Process:
    return stranger.gangway.add_worker("worker").start()


def test_the_api_is_down_at_first(stranger: Stranger, worker: Process) -> None:
    """Signups wait, with the reason on show, until the API comes up."""
    ids = customers("early", 10)

    connections = stranger.gangway.sign_up(ids)
    wait_for_code(stranger, ids, "api_unavailable")
    stranger.api.start()
    took = stranger.gangway.wait_until_done(ids)

    log.info("all ready %.1f s after the API came up", took)
    assert stranger.has_one_sync_each(connections)


def test_our_own_token_is_wrong(api: ContractApi, stranger: Stranger, worker: Process) -> None:
    """No customer is blamed for our mistake: all wait, and a worker with the right token finishes them."""
    ids = customers("locked_out", 10)
    worker.terminate()
    worker.start(GANGWAY_API_TOKEN="not-the-token-of-this-api")

    connections = stranger.gangway.sign_up(ids)
    wait_for_code(stranger, ids, "api_token_rejected")
    states = {stranger.gangway.tenants()[id_]["state"] for id_ in ids}
    worker.terminate()
    worker.start(GANGWAY_API_TOKEN=api.TOKEN)
    took = stranger.gangway.wait_until_done(ids)

    log.info("all ready %.1f s after the right token was set", took)
    assert states == {"provisioning"}
    assert stranger.has_one_sync_each(connections)


@pytest.fixture
def api(stranger: Stranger) -> ContractApi:
    """The Management API, up by now."""
    return stranger.api if stranger.api.process.is_running else stranger.api.start()


def wait_for_code(stranger: Stranger, ids: Iterable[str], code: str) -> None:
    """Wait until every one of these shows this problem."""

    def shown() -> bool:
        tenants = stranger.gangway.tenants()
        errors = [tenants[id_]["connections"][0]["error"] for id_ in ids]
        return all(error and error["code"] == code and error["advice"] for error in errors)

    stranger.machine.wait_until(shown, f"all show {code}")
