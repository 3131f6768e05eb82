"""Refusals in the body of an answer: what they amount to, and that nothing takes them for an empty list."""

from typing import Any

import httpx
import pytest
import yaml

from engine.backfill.fetch import Access, FetchError
from engine.health import TroubleCode
from engine.providers.catalogue import Provider
from engine.providers.faults import Faults
from tests.engine.pages import page_at

CHOAM = Provider.model_validate(
    yaml.safe_load("""
name: choam
title: CHOAM
base_url: https://api.choam.example
credential_kinds:
  choam_key:
    grant: {kind: static, fields: [secret]}
    fields: {secret: {type: string, secret: true}}
rate_limit: {allowed_requests: 1}
forbidden: collection
faults:
  code: extensions.code
  statuses: {EXPIRED: 401, SLOWER: 429, CLOSED: 503, NOT_YOURS: 403, NONE: 404}
paging: {kind: single}
record: {list: data}
collections:
  house: {path: /houses}
  harvest: {path: "/houses/{id}/harvests", parent: {collection: house}}
""")
)
BELOW = {"parents": None, "left": [{"names": {"id": 1}}]}


def faulty(*codes: str, **more: Any) -> dict[str, Any]:
    return {"errors": [{"message": "no", "extensions": {"code": code}} for code in codes], **more}


def asked(status: int, body: Any, collection_id: str = "choam:house", cursor: Any = None) -> Any:
    transport = httpx.MockTransport(lambda _request: httpx.Response(status, json=body))
    with httpx.Client(transport=transport) as client:
        return page_at(client, CHOAM, collection_id, Access("https://api.choam.example", "t"), cursor)


@pytest.mark.parametrize(
    ("payload", "status"),
    [
        ({"data": []}, None),
        ({"data": [], "errors": []}, None),
        ({"errors": None}, None),
        ([], None),
        (faulty("EXPIRED"), 401),
        (faulty("UNHEARD_OF", "SLOWER"), 429),
        (faulty("UNHEARD_OF"), 400),
        ({"errors": [{}]}, 400),
        ({"errors": ["text"]}, 400),
    ],
)
def test_amounts_to(payload: Any, status: int | None) -> None:
    faults = Faults(code="extensions.code", statuses={"EXPIRED": 401, "SLOWER": 429})

    assert faults.status_of(payload) == status


@pytest.mark.parametrize(
    ("status", "body", "code"),
    [
        (200, faulty("EXPIRED", data=[]), TroubleCode.CREDENTIAL_REJECTED),
        (200, faulty("SLOWER"), TroubleCode.RATE_LIMITED),
        (200, faulty("CLOSED"), TroubleCode.PROVIDER_UNAVAILABLE),
        (200, faulty("NOT_YOURS"), TroubleCode.COLLECTION_FAILED),
        (200, faulty("UNHEARD_OF", data=[]), TroubleCode.COLLECTION_FAILED),
        (400, faulty("EXPIRED"), TroubleCode.CREDENTIAL_REJECTED),
        (400, faulty("SLOWER"), TroubleCode.RATE_LIMITED),
        (503, faulty("UNHEARD_OF"), TroubleCode.PROVIDER_UNAVAILABLE),
        (502, "<html>", TroubleCode.PROVIDER_UNAVAILABLE),
    ],
)
def test_whose_trouble(status: int, body: Any, code: TroubleCode) -> None:
    """A code says it, and where no code is known the status does."""
    with pytest.raises(FetchError) as failed:
        asked(status, body)

    assert failed.value.failure.code is code
    assert failed.value.is_refusal is (code is TroubleCode.CREDENTIAL_REJECTED)


def test_missing_lists() -> None:
    """A code may amount to a list that one parent does not have."""
    page = asked(200, faulty("NONE"), "choam:harvest", BELOW)

    assert (page.records, page.following) == ([], None)
