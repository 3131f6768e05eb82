"""What happens on the stage, whoever acts."""

from typing import Any, Final
from uuid import uuid4

import httpx

from tests.e2e.connect.agent import UserAgent
from tests.e2e.connect.stage import COLLECTIONS, PROVIDER, Stage

USED: Final = "This step is done already"
ELSEWHERE: Final = "The connection was started in another browser, or cookies are off."

Held = dict[str, dict[str, Any]]


def come_to_consent(agent: UserAgent, stage: Stage) -> None:
    """From the product through the engine and the provider's login to the question whether one agrees."""
    agent.open(f"{stage.product.origin}/")
    agent.press("Connect")
    if "Log in" in agent.html:
        agent.press("Log in", **stage.provider.USER)
    agent.sees("Authorize Gangway?")
    assert agent.url.startswith(stage.origins["provider"])


def check_connected(agent: UserAgent, stage: Stage) -> None:
    """The person is back at the product, whose server has the credential; nothing secret is in sight."""
    agent.sees("The account is connected.")
    assert agent.url == f"{stage.product.origin}/done"
    credential, arrival = stage.product.credential, stage.product.arrivals[-1]
    assert credential["oauth_app_id"] == stage.product.app["id"]
    assert credential["properties"].keys() >= {"kind", "refresh_token"}
    assert arrival.query.keys() == {"code", "state", "iss"}
    assert arrival.query["iss"] == stage.origins["engine"]
    assert arrival.referer is None
    secrets = [arrival.query["code"], arrival.query["state"], credential["properties"]["refresh_token"]]
    assert not any(each in agent.url + agent.html for each in secrets)


def check_declined(agent: UserAgent, stage: Stage) -> None:
    """The product hears it in the standard's words, and there is nothing to exchange."""
    agent.sees("Not connected")
    assert agent.url == f"{stage.product.origin}/sorry?error=access_denied"
    assert stage.product.arrivals[-1].query.keys() == {"error", "error_description", "state", "iss"}


def check_syncs(stage: Stage) -> None:
    """The credential fills a stream; a change arrives although its access token ended early."""
    api, wait = stage.engine.http, stage.machine.wait_until
    stream = api.post("/streams", json={"slug": f"s{uuid4().hex}"}).raise_for_status().json()["id"]
    body = {
        "provider": PROVIDER,
        "stream_id": stream,
        "name": "Choam Corp",
        "collection_ids": list(COLLECTIONS),
        "credential": stage.product.credential,
    }
    sync = f"/syncs/{api.post('/syncs', json=body).raise_for_status().json()['id']}"
    consumer = api.post("/http-consumers", json={"stream_id": stream}).raise_for_status().json()["id"]
    held: Held = {}

    wait(lambda: api.get(sync).json()["initial_backfill_completed_at"], "the backfill is done")
    assert received(api, consumer, held) == there(stage)

    before = stage.provider.refresh_tokens()
    stage.provider.expire_access_tokens()
    stage.provider.change_contact(1007, jobtitle="Mentat")
    wait(lambda: received(api, consumer, held) == there(stage), "the change has arrived")
    assert api.get(sync).json()["health"]["status"] == "healthy"
    after = stage.provider.refresh_tokens()
    assert after["issued"] > before["issued"]
    assert after["good"] == before["good"]  # each took the place of the one before
    api.delete(sync).raise_for_status()


def check_kept_secret(stage: Stage) -> None:
    """Whatever leads to the account is in no log, however much is logged."""
    product, log = stage.product, stage.engine.web.output + stage.engine.workers[0].output
    told = [each.query[name] for each in product.arrivals for name in each.query.keys() & {"code", "state"}]
    captured = product.credential["properties"]["refresh_token"]
    assert "request.answered" in log
    assert not any(each in log for each in (*told, captured, stage.provider.CLIENT["client_secret"]))


def received(api: httpx.Client, consumer: str, held: Held) -> Held:
    """All that a consumer was ever given: take what waits for it now."""
    path = f"/http-consumers/{consumer}"
    while batch := api.get(f"{path}/next", params={"batch_size": 300}).json()["data"]:
        for record in (message["record"] for message in batch):
            held[f"{record['collection_id']} {record['upstream_id']}"] = told(record["data"])
        tokens = [message["ack_token"] for message in batch]
        api.post(f"{path}/ack", json={"ack_tokens": tokens}).raise_for_status()
    return held


def told(data: dict[str, Any]) -> dict[str, Any]:
    """Without the properties that were asked for and are not there."""
    properties = {name: value for name, value in data["properties"].items() if value is not None}
    return data | {"properties": properties}


def there(stage: Stage) -> Held:
    """The same from the provider's own view."""
    return {
        f"{collection} {each['id']}": each
        for collection, path in COLLECTIONS.items()
        for each in stage.provider.objects(path)
    }
