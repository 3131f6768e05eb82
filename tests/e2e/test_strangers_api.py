"""A Management API that is not ours: same worker, same settings, other people's idea of the contract."""

import pytest

from tests.e2e.conftest import NewMachine
from tests.e2e.services import Stranger

pytestmark = pytest.mark.e2e

CUSTOMERS = [f"org_{number}" for number in range(20)]
QUICK = ("--backfill-min-s", "0.3", "--backfill-max-s", "1")
DIALECT = ("--create-status", "201", "--timestamps", "space", "--health", "gen1", "--extra-fields")
"""In everything unlike the newest documentation, which the other tests have."""


def test_provisions_against_any_api(new_machine: NewMachine) -> None:
    """All become ready, each with one sync that carries the customer's id, read a few times only."""
    stranger = Stranger.on(new_machine(), *QUICK, *DIALECT)
    gangway = stranger.gangway
    stranger.start(gangway.add_worker("worker"))

    connections = gangway.sign_up(CUSTOMERS)
    gangway.wait_until_done(CUSTOMERS)

    assert stranger.has_one_sync_each(connections)
    syncs = {sync["sync_id"]: sync["external_id"] for sync in stranger.api.stats()["backfills"]}
    tenants = gangway.tenants()
    assert syncs == {tenants[id_]["connections"][0]["sync_id"]: id_ for id_ in CUSTOMERS}
    requests = stranger.api.stats()["requests"]
    assert requests["POST /v1/syncs"] == requests["POST /v1/credentials"] == len(CUSTOMERS)
    assert requests["GET /v1/syncs"] + requests.get("GET /v1/syncs/{id}", 0) <= 5 * len(CUSTOMERS)
