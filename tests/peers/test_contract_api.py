"""The independent Management API server: the contract, its dialects, its faults."""

import json
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

STREAM_ID = "f0f70b52-5243-489c-879b-a1ae3f02abfd"
UNKNOWN_ID = "00000000-0000-4000-8000-000000000000"
TOKEN = "contract-token"
OPTIONS = ("--stream", f"default={STREAM_ID}")
QUICK = (*OPTIONS, "--backfill-min-s", "0.4", "--backfill-max-s", "0.5")
SLOW = (*OPTIONS, "--backfill-min-s", "600", "--backfill-max-s", "900")

SEED_CREATE = """{
    "provider": "stripe",
    "stream_id": "f0f70b52-5243-489c-879b-a1ae3f02abfd",
    "name": "Choam Corp - Stripe Production",
    "collection_ids": ["stripe:customer", "stripe:invoice"],
    "rate_limit": {
      "allowed_requests": 100,
      "interval": 60,
      "max_concurrent_requests": 0
    },
    "credential": {
      "properties": {
        "kind": "stripe_oauth2",
        "secret": "not-a-real-secret",
        "test": true,
        "name": "Choam Corp - Stripe [Test]"
      },
      "oauth_app_id": "8ff58ef0-d376-4ae8-b2e2-9f0206aa65b8",
      "metadata": { "custom_credential_property": 42 }
    },
    "metadata": { "custom_property": 42 },
    "external_id": "{YOUR_EXTERNAL_ID}"
  }"""
SEED_UPDATE = """{
      "name": "Choam Corp - Stripe Production",
      "collection_ids": ["stripe:customer", "stripe:invoice"],
      "status": "active",
      "rate_limit": {
        "allowed_requests": 100,
        "interval": 60,
        "max_concurrent_requests": 0
      },
      "metadata": { "custom_property": 42 }
    }"""
SEED_FLAT_CREDENTIAL = """{
    "kind": "stripe_oauth2",
    "access_token": "not-a-real-secret",
    "oauth_app_id": "8ff58ef0-d376-4ae8-b2e2-9f0206aa65b8",
    "metadata": { "custom_property": 42 }
  }"""
JSON = {"content-type": "application/json"}

StartPeer = Callable[..., str]
Connect = Callable[..., httpx.Client]


@pytest.fixture(scope="module")
def connect(start_peer: StartPeer) -> Iterator[Connect]:
    """Give a function that starts a server with options and returns a client of it."""
    with ExitStack() as stack:

        def start(*options: str) -> httpx.Client:
            url = start_peer("contract_api.py", *options)
            headers = {"authorization": f"Bearer {TOKEN}"}
            return stack.enter_context(httpx.Client(base_url=url, headers=headers, timeout=5.0))

        yield start


@pytest.fixture(scope="module")
def api(connect: Connect) -> httpx.Client:
    """Give a client of a server whose backfills take long, without faults."""
    return connect(*SLOW)


@pytest.fixture(scope="module")
def moody(connect: Connect) -> httpx.Client:
    """Give a client of a server whose faults tests set and take back."""
    return connect(*SLOW)


@pytest.fixture(scope="module")
def quick(connect: Connect) -> httpx.Client:
    """Give a client of a server with short backfills."""
    return connect(*QUICK)


@pytest.fixture(scope="module")
def older(connect: Connect) -> httpx.Client:
    """Give a client of a server in everything unlike the newest documentation."""
    dialect = ("--create-status", "201", "--timestamps", "space", "--health", "gen1", "--extra-fields")
    return connect(*QUICK, *dialect)


def credential(key: str, **changes: Any) -> dict[str, Any]:
    """Return the body of a credential import."""
    return {"properties": {"kind": "stripe_key", "secret": key, "test": True}, **changes}


def sync(key: str = "sk_test_sync", **changes: Any) -> dict[str, Any]:
    """Return the body of a sync's creation."""
    body = {
        "provider": "stripe",
        "stream_id": STREAM_ID,
        "name": "Choam",
        "collection_ids": ["stripe:customer"],
        "credential": credential(key),
        **changes,
    }
    return {name: value for name, value in body.items() if value is not ...}


def create_sync(client: httpx.Client, key: str = "sk_test_sync", **changes: Any) -> dict[str, Any]:
    """Create a sync and return it."""
    answer = client.post("/v1/syncs", json=sync(key, **changes))
    assert answer.status_code == 200, answer.text
    created: dict[str, Any] = answer.json()
    return created


def data(client: httpx.Client, path: str, **query: str) -> list[dict[str, Any]]:
    """Return the items of a list."""
    items: list[dict[str, Any]] = client.get(path, params=query).raise_for_status().json()["data"]
    return items


def stats(client: httpx.Client, **query: str) -> dict[str, Any]:
    """Return the operator's figures."""
    figures: dict[str, Any] = client.get("/_double/stats", params=query).raise_for_status().json()
    return figures


def until_complete(client: httpx.Client, sync_id: str) -> dict[str, Any]:
    """Poll a sync until its backfill is complete."""
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        answer: dict[str, Any] = client.get(f"/v1/syncs/{sync_id}").json()
        if answer["initial_backfill_completed_at"]:
            return answer
        time.sleep(0.02)
    pytest.fail("the backfill did not complete")


class TestSeeds:
    """The documentation's own examples, with other ids."""

    def test_create_get_update(self, api: httpx.Client) -> None:
        """The sync comes back as it was asked for, its secret hidden."""
        created = api.post("/v1/syncs", content=SEED_CREATE, headers=JSON)
        read = api.get(f"/v1/syncs/{created.json()['id']}")
        updated = api.patch(f"/v1/syncs/{created.json()['id']}", content=SEED_UPDATE, headers=JSON)

        answer = created.json()
        assert created.status_code == updated.status_code == 200
        assert read.json() == answer
        asked = json.loads(SEED_CREATE)
        embedded = asked.pop("credential")
        assert {name: answer[name] for name in asked} == asked
        assert answer["credential"]["properties"] == {**embedded["properties"], "secret": "***********"}
        assert answer["credential"]["oauth_app_id"] == embedded["oauth_app_id"]
        assert answer["credential_id"] == answer["credential"]["id"]
        assert answer["status"] == "active"
        assert answer["initial_backfill_completed_at"] is None

    def test_list(self, api: httpx.Client) -> None:
        """A list is wrapped in data."""
        assert isinstance(data(api, "/v1/syncs"), list)

    def test_flat_credential_is_refused(self, api: httpx.Client) -> None:
        """The concept page's flat credential does not follow the reference."""
        answer = api.post("/v1/credentials", content=SEED_FLAT_CREDENTIAL, headers=JSON)

        assert answer.status_code == 422
        assert answer.json()["validation_errors"]["properties"] == ["is required"]

    def test_stream_is_required(self, api: httpx.Client) -> None:
        """The concept page's sync without a stream does not follow the reference."""
        answer = api.post("/v1/syncs", json=sync(stream_id=...))

        assert answer.status_code == 422
        assert answer.json()["validation_errors"] == {"stream_id": ["is required"]}


class TestRefusals:
    """What a strict server does not accept."""

    @pytest.mark.parametrize(
        "header", ["", "Basic abc", "Bearer", "Bearer nobody", f"Bearer {TOKEN}, Bearer x"]
    )
    def test_token(self, api: httpx.Client, header: str) -> None:
        """Anything but the token gets 401 and a summary."""
        answer = api.get("/v1/syncs", headers={"authorization": header})

        assert answer.status_code == 401
        assert answer.json()["summary"]

    def test_missing_token(self, api: httpx.Client) -> None:
        """No header gets 401 as well."""
        assert httpx.get(f"{api.base_url}/v1/syncs").status_code == 401

    @pytest.mark.parametrize("method", ["GET", "PATCH", "DELETE"])
    @pytest.mark.parametrize("path", ["syncs", "credentials", "streams"])
    @pytest.mark.parametrize("id_", [UNKNOWN_ID, "nonsense"])
    def test_unknown_id(self, api: httpx.Client, method: str, path: str, id_: str) -> None:
        """An id nobody knows gets 404."""
        assert api.request(method, f"/v1/{path}/{id_}", json={}).status_code == 404

    @pytest.mark.parametrize(
        "path", ["/", "/v1", "/v1/nothing", "/v2/syncs", "/v1/syncs/a/b", "/_double/nothing"]
    )
    def test_unknown_path(self, api: httpx.Client, path: str) -> None:
        """A path nobody declared gets 404."""
        assert api.get(path).status_code == 404

    @pytest.mark.parametrize(
        ("content", "media_type", "status"),
        [
            (b"{}", "text/plain", 415),
            (b"{}", "", 415),
            (b"{}", "application/json; charset=utf-8", 422),
            (b"", "application/json", 400),
            (b"{", "application/json", 400),
            (b"\xff", "application/json", 400),
            (b"[]", "application/json", 400),
            (b'{"name": NaN}', "application/json", 400),
            (b"[" * 100_000, "application/json", 400),
        ],
    )
    def test_body(self, api: httpx.Client, content: bytes, media_type: str, status: int) -> None:
        """Other types get 415 and anything that is not a JSON object 400."""
        answer = api.post("/v1/syncs", content=content, headers={"content-type": media_type})

        assert answer.status_code == status

    def test_oversize(self, api: httpx.Client) -> None:
        """A body over one mebibyte gets 413."""
        assert api.post("/v1/syncs", content=b" " * 1_048_577, headers=JSON).status_code == 413

    @pytest.mark.parametrize(
        ("changes", "field"),
        [
            ({"provider": ...}, "provider"),
            ({"provider": "acme"}, "provider"),
            ({"provider": "hubspot"}, "collection_ids"),
            ({"stream_id": "default"}, "stream_id"),
            ({"stream_id": UNKNOWN_ID}, "stream_id"),
            ({"name": ""}, "name"),
            ({"name": 7}, "name"),
            ({"collection_ids": []}, "collection_ids"),
            ({"collection_ids": "stripe:customer"}, "collection_ids"),
            ({"collection_ids": ["customer"]}, "collection_ids"),
            ({"collection_ids": ["hubspot:contact"]}, "collection_ids"),
            ({"rate_limit": {"allowed_requests": 0, "interval": 60}}, "rate_limit"),
            ({"rate_limit": 5}, "rate_limit"),
            ({"credential": ...}, "credential"),
            ({"credential_id": UNKNOWN_ID}, "credential"),
            ({"credential": ..., "credential_id": UNKNOWN_ID}, "credential_id"),
            ({"credential": {"properties": {"kind": "stripe_key"}}}, "credential"),
            ({"credential": {"properties": {"kind": "acme"}}}, "credential"),
            ({"credential": {"properties": {"kind": "auth0_key", "secret": "x"}}}, "credential"),
            ({"max_age_days": 0}, "max_age_days"),
            ({"max_age_days": True}, "max_age_days"),
            ({"sync_frequency": "hourly"}, "sync_frequency"),
            ({"metadata": []}, "metadata"),
            ({"external_id": 5}, "external_id"),
            ({"status": "active"}, "status"),
            ({"surprise": 1}, "surprise"),
        ],
    )
    def test_sync_fields(self, api: httpx.Client, changes: dict[str, Any], field: str) -> None:
        """A field that is missing, malformed, unknown or inconsistent is named."""
        answer = api.post("/v1/syncs", json=sync(**changes))

        assert answer.status_code == 422
        assert field in answer.json()["validation_errors"]

    def test_refused_sync_leaves_no_credential(self, api: httpx.Client) -> None:
        """A refused creation changes nothing."""
        before = stats(api)

        api.post("/v1/syncs", json=sync("sk_test_never", stream_id=UNKNOWN_ID))

        after = stats(api)
        assert (after["credentials"], after["syncs"]) == (before["credentials"], before["syncs"])

    def test_nested_reasons(self, api: httpx.Client) -> None:
        """Reasons against nested objects are nested."""
        answer = api.post("/v1/credentials", json={"properties": {"kind": "stripe_key", "test": "yes"}})

        reasons = {"properties": {"secret": ["is required"], "test": ["must be a boolean"]}}
        assert answer.json()["validation_errors"] == reasons


class TestCredentials:
    """Import is an upsert per upstream account."""

    def test_same_secret_is_same_credential(self, api: httpx.Client) -> None:
        """A second import returns the first one's id."""
        first = api.post("/v1/credentials", json=credential("sk_test_same", name="One")).json()
        second = api.post("/v1/credentials", json=credential("sk_test_same", name="Two")).json()
        other = api.post("/v1/credentials", json=credential("sk_test_other")).json()

        assert first["id"] == second["id"] != other["id"]
        assert second["name"] == "Two"
        assert api.get(f"/v1/credentials/{first['id']}").json() == second

    def test_same_account_gets_new_secret(self, api: httpx.Client) -> None:
        """An account that names itself keeps its credential, and its sync heals with a good token."""

        def imported(token: str) -> dict[str, Any]:
            properties = {"kind": "hubspot_oauth2", "hub_id": 7, "refresh_token": token}
            answer: dict[str, Any] = api.post("/v1/credentials", json={"properties": properties}).json()
            return answer

        first = imported("wrong")
        changes = {"collection_ids": ["hubspot:contact"], "credential_id": first["id"], "credential": ...}
        created = create_sync(api, provider="hubspot", **changes)
        second = imported("right")

        assert first["id"] == second["id"]
        assert created["rate_limit"] is None
        assert created["health"]["status"] == "error"
        assert api.get(f"/v1/syncs/{created['id']}").json()["health"]["status"] == "initializing"

    def test_update(self, api: httpx.Client) -> None:
        """Name and metadata can be changed, the rest cannot."""
        created = api.post("/v1/credentials", json=credential("sk_test_update")).json()
        path = f"/v1/credentials/{created['id']}"

        renamed = api.patch(path, json={"name": "New", "metadata": {"a": 1}})
        refused = api.patch(path, json={"properties": {"kind": "stripe_key"}})

        assert (renamed.json()["name"], renamed.json()["metadata"]) == ("New", {"a": 1})
        assert refused.status_code == 422

    def test_delete(self, api: httpx.Client) -> None:
        """A credential goes once no sync uses it."""
        created = create_sync(api, "sk_test_delete")
        path = f"/v1/credentials/{created['credential_id']}"

        early = api.delete(path)
        gone = api.delete(f"/v1/syncs/{created['id']}")
        late = api.delete(path)

        assert (early.status_code, gone.status_code, late.status_code) == (422, 200, 200)
        assert gone.json() == {"id": created["id"], "deleted": True}
        assert api.get(path).status_code == 404
        again = api.post("/v1/credentials", json=credential("sk_test_delete")).json()
        assert again["id"] != created["credential_id"]

    def test_list(self, api: httpx.Client) -> None:
        """The list can be narrowed by provider, kind and metadata."""
        mark = {"mark": "listed"}
        created = api.post("/v1/credentials", json=credential("sk_test_list", metadata=mark)).json()

        assert data(api, "/v1/credentials", provider="stripe", metadata=json.dumps(mark)) == [created]
        assert data(api, "/v1/credentials", kind="stripe_oauth2", metadata=json.dumps(mark)) == []


class TestSyncs:
    """Syncs can be found, changed and removed."""

    @pytest.mark.parametrize(
        ("query", "found"),
        [
            ({"connection": "find-1"}, 1),
            ({"connection": "find-1", "batch": "find"}, 1),
            ({"connection": "find-1", "batch": "other"}, 0),
            ({"batch": "find"}, 2),
            ({"nested": {"a": 1}}, 2),
            ({"nested": {"a": True}}, 0),
            ({"nested": 1}, 0),
            ({"missing": None}, 0),
        ],
    )
    def test_metadata_containment(self, api: httpx.Client, query: dict[str, Any], found: int) -> None:
        """A sync is found if its metadata contains everything asked for."""
        if not data(api, "/v1/syncs", metadata='{"batch": "find"}'):
            for number in (1, 2):
                metadata = {"connection": f"find-{number}", "batch": "find", "nested": {"a": 1, "b": 2}}
                create_sync(api, metadata=metadata)

        assert len(data(api, "/v1/syncs", metadata=json.dumps(query))) == found

    def test_filters(self, api: httpx.Client) -> None:
        """Provider, stream, name and health narrow the list; names match exactly."""
        created = create_sync(api, name="Only one")

        assert [item["id"] for item in data(api, "/v1/syncs", name="Only one")] == [created["id"]]
        assert data(api, "/v1/syncs", name="Only") == []
        assert data(api, "/v1/syncs", name="Only one", provider="github") == []
        assert data(api, "/v1/syncs", name="Only one", stream_id=UNKNOWN_ID) == []
        assert data(api, "/v1/syncs", name="Only one", **{"health.status": "ok"}) == []
        assert len(data(api, "/v1/syncs", name="Only one", stream_id=STREAM_ID)) == 1

    @pytest.mark.parametrize("metadata", ["{", "[]", "5", "[" * 20_000])
    def test_malformed_metadata(self, api: httpx.Client, metadata: str) -> None:
        """A filter that is not a JSON object gets 400."""
        assert api.get("/v1/syncs", params={"metadata": metadata}).status_code == 400

    def test_update_is_partial(self, api: httpx.Client) -> None:
        """Only what a PATCH names changes, and null lifts the age limit."""
        created = create_sync(api, max_age_days=30, metadata={"connection": "before"})
        path = f"/v1/syncs/{created['id']}"

        api.patch(path, json={"metadata": {"connection": "after"}})
        updated = api.patch(path, json={"name": "New name", "max_age_days": None}).json()

        assert (updated["name"], updated["max_age_days"]) == ("New name", None)
        assert updated["collection_ids"] == created["collection_ids"]
        assert data(api, "/v1/syncs", metadata='{"connection": "before"}') == []
        assert data(api, "/v1/syncs", metadata='{"connection": "after"}') == [updated]

    @pytest.mark.parametrize("field", ["provider", "stream_id", "credential", "credential_id", "external_id"])
    def test_immutable(self, api: httpx.Client, field: str) -> None:
        """What a sync was created with stays."""
        created = create_sync(api)

        answer = api.patch(f"/v1/syncs/{created['id']}", json={field: created[field]})

        assert answer.json()["validation_errors"] == {field: ["cannot be changed"]}

    def test_default_rate_limit(self, api: httpx.Client) -> None:
        """A sync without a rate limit gets its provider's."""
        expected = {"allowed_requests": 50, "interval": 1, "max_concurrent_requests": 0}

        assert create_sync(api)["rate_limit"] == expected

    def test_delete(self, api: httpx.Client) -> None:
        """A removed sync is gone from everywhere."""
        created = create_sync(api, metadata={"connection": "removed"})

        api.delete(f"/v1/syncs/{created['id']}")

        assert api.get(f"/v1/syncs/{created['id']}").status_code == 404
        assert data(api, "/v1/syncs", metadata='{"connection": "removed"}') == []


def test_streams(api: httpx.Client) -> None:
    """Streams have unique slugs and go only when empty."""
    created = api.post("/v1/streams", json={"slug": "events"}).json()
    path = f"/v1/streams/{created['id']}"

    assert api.post("/v1/streams", json={"slug": "events"}).status_code == 422
    assert api.post("/v1/streams", json={"slug": "no spaces"}).status_code == 422
    assert api.patch(path, json={"slug": "events"}).status_code == 200
    assert api.patch(path, json={"slug": "default"}).status_code == 422
    assert [item["slug"] for item in data(api, "/v1/streams")] == ["default", "events"]
    existing = create_sync(api, stream_id=created["id"])
    assert api.delete(path).status_code == 422
    api.delete(f"/v1/syncs/{existing['id']}")
    assert api.delete(path).json() == {"id": created["id"], "deleted": True}
    assert api.get(path).status_code == 404


class TestBackfill:
    """A sync becomes healthy and complete by the clock alone."""

    def test_completes(self, quick: httpx.Client) -> None:
        """The time of completion lies in the range and stays fixed."""
        created = create_sync(quick, external_id="org_1")

        complete = until_complete(quick, created["id"])

        assert (created["health"]["status"], complete["health"]["status"]) == ("initializing", "healthy")
        assert complete == quick.get(f"/v1/syncs/{created['id']}").json()
        entry = next(entry for entry in stats(quick)["backfills"] if entry["sync_id"] == created["id"])
        assert entry["external_id"] == "org_1"
        assert 0.4 <= entry["completed_at"] - entry["created_at"] <= 0.5
        shown = datetime.fromisoformat(complete["initial_backfill_completed_at"]).timestamp()
        assert shown == pytest.approx(entry["completed_at"], abs=1e-3)

    def test_disabled_waits(self, quick: httpx.Client) -> None:
        """A disabled sync makes no progress until it is active again."""
        path = f"/v1/syncs/{create_sync(quick)['id']}"

        quick.patch(path, json={"status": "disabled"})
        time.sleep(0.55)

        assert quick.get(path).json()["initial_backfill_completed_at"] is None
        quick.patch(path, json={"status": "active"})
        assert until_complete(quick, path.rpartition("/")[2])["status"] == "active"

    def test_wrong_key(self, quick: httpx.Client) -> None:
        """A wrong key is an error that never completes."""
        created = create_sync(quick, "wrong_key")
        time.sleep(0.55)

        answer = quick.get(f"/v1/syncs/{created['id']}").json()

        assert answer["health"] == {"status": "error", "sync_id": created["id"]}
        assert answer["initial_backfill_completed_at"] is None
        assert quick.get(f"/v1/credentials/{answer['credential_id']}").json()["health"]["status"] == "error"


class TestDialects:
    """The same contract in its other documented forms."""

    @pytest.mark.parametrize(
        ("path", "body"),
        [
            ("/v1/streams", {"slug": "created"}),
            ("/v1/credentials", credential("sk_test_created")),
            ("/v1/syncs", sync("sk_test_created")),
        ],
    )
    def test_create_status(self, older: httpx.Client, path: str, body: dict[str, Any]) -> None:
        """Every POST that creates answers 201 if asked to."""
        assert older.post(path, json=body).status_code == 201

    def test_timestamps(self, older: httpx.Client) -> None:
        """Timestamps have a space and no offset."""
        created = older.post("/v1/syncs", json=sync()).json()

        complete = until_complete(older, created["id"])

        for name in ("created_at", "updated_at", "initial_backfill_completed_at"):
            assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", complete[name])

    def test_health(self, older: httpx.Client) -> None:
        """Health is nested and speaks of ok, warn and error."""
        created = older.post("/v1/syncs", json=sync()).json()["health"]
        wrong = older.post("/v1/syncs", json=sync("wrong")).json()["health"]

        assert (created["status"], created["credential"]["status"], created["provider"]["status"]) == (
            "warn",
            "ok",
            "warn",
        )
        assert (wrong["status"], wrong["credential"]["status"], wrong["provider"]["status"]) == (
            "error",
            "error",
            "ok",
        )
        assert wrong["credential"]["notes"] == ["The provider refused this credential."]

    def test_extra_fields(self, older: httpx.Client) -> None:
        """Every object has a field nobody documented, except those that are the caller's."""
        created = older.post("/v1/syncs", json=sync(metadata={"a": {"b": 1}})).json()

        listed = older.get("/v1/syncs", params={"metadata": '{"a": {"b": 1}}'}).json()
        refused = older.post("/v1/syncs", json={}).json()

        objects = (created, created["health"], created["credential"], listed, listed["data"][0], refused)
        assert all("x_future" in value for value in objects)
        assert created["metadata"] == {"a": {"b": 1}}
        assert "x_future" not in refused["validation_errors"]

    def test_gen2_is_healthy_at_once(self, connect: Connect) -> None:
        """As in the documentation's examples, only the completion tells that a backfill is over."""
        created = create_sync(connect(*SLOW, "--health", "gen2"))

        assert created["health"] == {"status": "healthy", "sync_id": created["id"]}
        assert created["initial_backfill_completed_at"] is None


class TestFaults:
    """Trouble on request."""

    @pytest.fixture(autouse=True)
    def calm(self, moody: httpx.Client) -> Iterator[None]:
        """Take every fault back afterwards."""
        yield
        rates = dict.fromkeys(("reset", "rate_429", "fail_500", "late_commit", "lose_reply", "latency_ms"), 0)
        moody.post("/_double/faults", json={**rates, "only": []}).raise_for_status()

    def set_faults(self, client: httpx.Client, **settings: Any) -> None:
        """Change the fault settings."""
        client.post("/_double/faults", json=settings).raise_for_status()

    def found(self, client: httpx.Client, mark: str) -> int:
        """Count the syncs with a mark, without any fault."""
        self.set_faults(client, reset=0, lose_reply=0, fail_500=0, rate_429=0, late_commit=0)
        return len(data(client, "/v1/syncs", metadata=json.dumps({"mark": mark})))

    def test_500(self, moody: httpx.Client) -> None:
        """The request fails and changes nothing."""
        self.set_faults(moody, fail_500=1)

        answer = moody.post("/v1/syncs", json=sync(metadata={"mark": "500"}))

        assert answer.status_code == 500
        assert answer.json()["summary"]
        assert self.found(moody, "500") == 0

    def test_reset(self, moody: httpx.Client) -> None:
        """The connection is reset and nothing changed."""
        self.set_faults(moody, reset=1)

        with pytest.raises(httpx.ReadError):
            moody.post("/v1/syncs", json=sync(metadata={"mark": "reset"}))

        assert self.found(moody, "reset") == 0

    def test_lost_reply(self, moody: httpx.Client) -> None:
        """The connection ends without an answer, yet the sync exists."""
        self.set_faults(moody, lose_reply=1)

        with pytest.raises(httpx.RemoteProtocolError):
            moody.post("/v1/syncs", json=sync(metadata={"mark": "lost"}))

        assert self.found(moody, "lost") == 1

    def test_429_in_seconds(self, moody: httpx.Client) -> None:
        """Retry-After is a number of seconds."""
        self.set_faults(moody, rate_429=1, retry_after="seconds", retry_after_s=3)

        answer = moody.get("/v1/syncs")

        assert (answer.status_code, answer.headers["retry-after"]) == (429, "3")

    def test_429_as_date(self, moody: httpx.Client) -> None:
        """Retry-After is a date that has not passed."""
        self.set_faults(moody, rate_429=1, retry_after="date", retry_after_s=3)

        answer = moody.get("/v1/syncs")

        wait_s = parsedate_to_datetime(answer.headers["retry-after"]).timestamp() - time.time()
        assert 2 < wait_s <= 4

    def test_late_commit(self, moody: httpx.Client) -> None:
        """The client gives up hope, and the sync appears all the same."""
        self.set_faults(moody, late_commit=1, late_commit_s=0.8)

        answer = moody.post("/v1/syncs", json=sync(metadata={"mark": "late"}))

        assert answer.status_code == 504
        assert self.found(moody, "late") == 0
        time.sleep(0.9)
        assert self.found(moody, "late") == 1

    def test_late_commit_spares_reads(self, moody: httpx.Client) -> None:
        """Only a creation can be late."""
        self.set_faults(moody, late_commit=1)

        assert moody.get("/v1/syncs").status_code == 200

    def test_only(self, moody: httpx.Client) -> None:
        """Faults can be restricted to some routes."""
        self.set_faults(moody, fail_500=1, only=["GET /v1/syncs/{id}"])

        assert moody.get("/v1/syncs").status_code == 200
        assert moody.get(f"/v1/syncs/{UNKNOWN_ID}").status_code == 500

    def test_latency(self, moody: httpx.Client) -> None:
        """Answers take their time, side by side, and are counted while they do."""
        self.set_faults(moody, latency_ms=100)

        started = time.monotonic()
        with ThreadPoolExecutor(10) as threads:
            statuses = list(threads.map(lambda _: moody.get("/v1/syncs").status_code, range(10)))
        elapsed = time.monotonic() - started

        assert statuses == [200] * 10
        assert 0.1 <= elapsed < 0.9
        assert stats(moody)["max_concurrent_requests"] > 1

    @pytest.mark.parametrize(
        "settings",
        [
            {"fail_500": 2},
            {"fail_500": -1},
            {"reset": True},
            {"retry_after": "never"},
            {"only": "x"},
            {"huh": 1},
        ],
    )
    def test_nonsense(self, moody: httpx.Client, settings: dict[str, Any]) -> None:
        """Settings that make no sense are refused."""
        assert moody.post("/_double/faults", json=settings).status_code == 422

    def test_seeded(self, connect: Connect) -> None:
        """Equal seeds give equal faults, another seed others."""

        def statuses(seed: str) -> list[int]:
            client = connect("--fail-500", "0.5", "--seed", seed)
            return [client.get("/v1/syncs").status_code for _ in range(40)]

        first, same, other = statuses("1"), statuses("1"), statuses("2")

        assert first == same != other
        assert {200, 500} == set(first)

    def test_from_the_command_line(self, connect: Connect) -> None:
        """Every fault can be asked for at the start."""
        rates = ("--reset", "0.1", "--lose-reply", "0.2", "--fail-500", "0.3", "--rate-429", "0.4")
        details = (
            "--retry-after",
            "date",
            "--retry-after-s",
            "2",
            "--late-commit",
            "0.5:7",
            "--latency-ms",
            "1",
        )
        client = connect(*rates, *details, "--only", "POST /v1/syncs")

        settings = client.post("/_double/faults", json={}).json()

        assert settings == {
            "reset": 0.1,
            "lose_reply": 0.2,
            "fail_500": 0.3,
            "rate_429": 0.4,
            "late_commit": 0.5,
            "late_commit_s": 7,
            "retry_after": "date",
            "retry_after_s": 2,
            "latency_ms": 1,
            "only": ["POST /v1/syncs"],
        }


class TestOperatorView:
    """What a test can learn and do behind the API's back."""

    def test_groups(self, api: httpx.Client) -> None:
        """Syncs per metadata value are counted, and the most there ever were at once."""
        once = create_sync(api, metadata={"group": "once"})
        twice = [create_sync(api, metadata={"group": "twice"}) for _ in range(2)]
        api.delete(f"/v1/syncs/{twice[1]['id']}")
        api.delete(f"/v1/syncs/{once['id']}")
        create_sync(api, metadata={"group": "once"})

        figures = stats(api, group_by="group")

        assert figures["syncs_by"] == {"once": 1, "twice": 1}
        assert figures["max_syncs_by"] == {"once": 1, "twice": 2}
        assert figures["syncs"] == 2 + figures["syncs_without"]

    def test_counts_per_route(self, api: httpx.Client) -> None:
        """Requests are counted by method and path template."""
        before = stats(api)["requests"].get("GET /v1/syncs/{id}", 0)

        api.get(f"/v1/syncs/{UNKNOWN_ID}")

        assert stats(api)["requests"]["GET /v1/syncs/{id}"] == before + 1

    def test_log(self, api: httpx.Client) -> None:
        """The log tells method, path, request id and status, and no secret."""
        query = {"metadata": '{"a": "sk_test_logged"}'}
        api.get("/v1/syncs", params=query, headers={"x-request-id": "abc"})
        api.post("/v1/credentials", json=credential("sk_test_logged"))

        answer = api.get("/_double/log", params={"limit": "2"})

        first, second = answer.json()["data"]
        assert (first["method"], first["path"], first["request_id"], first["status"]) == (
            "GET",
            "/v1/syncs",
            "abc",
            200,
        )
        assert (second["method"], second["request_id"]) == ("POST", None)
        assert "sk_test" not in answer.text
        assert TOKEN not in answer.text

    def test_expire(self, api: httpx.Client) -> None:
        """A sync can vanish."""
        created = create_sync(api)

        answer = api.post("/_double/expire", json={"sync_id": created["id"]})

        assert answer.status_code == 200
        assert api.get(f"/v1/syncs/{created['id']}").status_code == 404
        assert api.post("/_double/expire", json={"sync_id": created["id"]}).status_code == 404

    def test_health(self, api: httpx.Client) -> None:
        """A sync's health can be set and given back."""
        created = create_sync(api, name="Feeling ill")
        command = {"sync_id": created["id"], "status": "warning"}

        api.post("/_double/health", json=command).raise_for_status()

        assert api.get(f"/v1/syncs/{created['id']}").json()["health"]["status"] == "warning"
        for word in ("warning", "warn"):
            assert len(data(api, "/v1/syncs", name="Feeling ill", **{"health.status": word})) == 1
        api.post("/_double/health", json={**command, "status": None}).raise_for_status()
        assert api.get(f"/v1/syncs/{created['id']}").json()["health"] == created["health"]

    def test_refuse(self, connect: Connect) -> None:
        """The provider may refuse every credential for a while; the health then blames the credential."""
        client = connect(*QUICK, "--health", "gen1")
        path = f"/v1/syncs/{create_sync(client)['id']}"

        said = []
        for refused in (True, False):
            client.post("/_double/refuse", json={"refused": refused}).raise_for_status()
            said.append(client.get(path).json()["health"]["credential"]["status"])

        assert said == ["error", "ok"]
        assert client.post("/_double/refuse", json={"refused": "yes"}).status_code == 422


class TestProcess:
    """The server as a process."""

    def test_keeps_connections_alive(self, api: httpx.Client) -> None:
        """Several requests share one connection, also when they arrive at once."""
        request = f"GET /v1/streams HTTP/1.1\r\nauthorization: Bearer {TOKEN}\r\n"
        requests = f"{request}\r\n{request}connection: close\r\n\r\n"
        with socket.create_connection((api.base_url.host, api.base_url.port)) as connection:
            connection.sendall(requests.encode())
            answers = connection.makefile("rb").read()

        assert answers.count(b"HTTP/1.1 200 OK") == 2

    @pytest.mark.parametrize(
        ("head", "status"),
        [
            ("nonsense", 400),
            ("GET / HTTP/1.0", 400),
            ("GET / HTTP/1.1\r\nno colon", 400),
            ("POST / HTTP/1.1\r\ncontent-length: -1", 400),
            ("POST / HTTP/1.1\r\ntransfer-encoding: chunked", 411),
            ("GET / HTTP/1.1\r\nlong: " + "x" * 70_000, 431),
        ],
    )
    def test_malformed_request(self, api: httpx.Client, head: str, status: int) -> None:
        """What is not a request it reads gets an answer, and the connection ends."""
        with socket.create_connection((api.base_url.host, api.base_url.port)) as connection:
            connection.sendall(f"{head}\r\n\r\n".encode())
            answer = connection.makefile("rb").read()

        assert answer.startswith(f"HTTP/1.1 {status} ".encode())

    def test_ends_at_once(self, tmp_path: Path) -> None:
        """SIGTERM ends it with connections open, and it said nothing."""
        port_file = tmp_path / "port"
        script = Path(__file__).with_name("contract_api.py")
        command = [sys.executable, str(script), "--port-file", str(port_file)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
            while not port_file.exists():
                time.sleep(0.01)
            with httpx.Client() as client:
                client.get(f"http://127.0.0.1:{int(port_file.read_text())}/_double/stats")
                started = time.monotonic()
                process.send_signal(signal.SIGTERM)
                output, _ = process.communicate(timeout=5)

        assert process.returncode == 0
        assert output == b""
        assert time.monotonic() - started < 1
