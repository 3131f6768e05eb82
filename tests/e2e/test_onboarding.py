"""From a signup to the records in a consumer's hands: our engine, and a Stripe that nobody here wrote.

On PostgreSQL. The demo, which test_stack.py runs, proves the same on SQLite.
"""

from collections import defaultdict
from pathlib import Path

import httpx
import pytest

import worker.demo
from tests.e2e.conftest import NewDatabaseOf, NewMachine
from tests.e2e.harness import Redis
from tests.e2e.peers import LocalStripe
from tests.e2e.services import Engine, Gangway

pytestmark = pytest.mark.e2e

CUSTOMERS = [f"org_{number}" for number in range(8)]
WITH_WRONG_KEY = "org_3"
PATHS = {
    "stripe:customer": "/v1/customers",
    "stripe:product": "/v1/products",
    "stripe:plan": "/v1/plans",
    "stripe:subscription": "/v1/subscriptions",
    "stripe:invoice": "/v1/invoices",
    "stripe:charge": "/v1/charges",
}


def key_of(external_id: str) -> str:
    return ("not_a_key_" if external_id == WITH_WRONG_KEY else "sk_test_") + external_id.encode().hex()


def test_signups_become_records(new_machine: NewMachine, new_database_of: NewDatabaseOf) -> None:
    """All come aboard but the one with a wrong key, who is told why; consumers read what Stripe has."""
    machine = new_machine()
    redis = Redis(machine).start()
    stripe = LocalStripe(machine, customers=120, subscribers=5)
    stripe.process.start()
    engine = Engine(
        machine,
        database_url=new_database_of("postgresql"),
        broker_url=redis.url.replace("/0", "/1"),
        stripe_url=stripe.url,
    )
    gangway = Gangway(
        machine,
        database_url=new_database_of("postgresql"),
        broker_url=redis.url,
        api_url=engine.url,
        api_token=engine.token,
        plans_file=str(Path(worker.demo.__file__).with_name("plans.toml")),
        refusal_lasts_s="1",  # a wrong key is believed soon
    )
    gangway.beat.start()
    gangway.add_worker("worker").start()
    engine.start()
    gangway.start_web()
    machine.wait_for_port(stripe.port, "localstripe")

    gangway.sign_up(CUSTOMERS, key=key_of)
    ready = [external_id for external_id in CUSTOMERS if external_id != WITH_WRONG_KEY]
    gangway.wait_until_done(ready)
    gangway.wait_until_done([WITH_WRONG_KEY], state="failed")

    told = gangway.tenants()[WITH_WRONG_KEY]["connections"][0]["error"]
    assert told["code"] == "credential_rejected"
    assert "ask the customer for a working credential" in told["advice"].lower()
    expected = {collection: stripe.ids(path) for collection, path in PATHS.items()}
    assert all(expected.values())
    records = consumed(engine.http)
    assert set(records) == set(ready)
    assert all(records[external_id] == expected for external_id in ready)
    assert one_sync_each(engine.http, gangway)


def consumed(api: httpx.Client) -> dict[str, dict[str, set[str]]]:
    """Customer -> collection -> upstream ids, from reading and acknowledging everything in the stream."""
    (stream,) = api.get("/streams").json()["data"]
    consumer = api.post("/http-consumers", json={"stream_id": stream["id"]}).json()["id"]
    found: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    last_idx = 0
    while batch := api.get(f"/http-consumers/{consumer}/next", params={"batch_size": 1000}).json()["data"]:
        for record in (message["record"] for message in batch):
            assert record["updated_idx"] > last_idx
            last_idx = record["updated_idx"]
            assert record["data"]["id"] == record["upstream_id"]
            found[record["sync"]["external_id"]][record["collection_id"]].add(record["upstream_id"])
        tokens = [message["ack_token"] for message in batch]
        assert api.post(f"/http-consumers/{consumer}/ack", json={"ack_tokens": tokens}).status_code == 204
    return found


def one_sync_each(api: httpx.Client, gangway: Gangway) -> bool:
    """Whether the API has exactly the syncs that the tenants' connections name."""
    at_api = sorted(sync["id"] for sync in api.get("/syncs").json()["data"])
    return at_api == sorted(tenant["connections"][0]["sync_id"] for tenant in gangway.tenants().values())
