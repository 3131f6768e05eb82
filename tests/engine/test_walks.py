"""Walks over lists below lists, and over lists that are sorted by a value: pure functions."""

from datetime import UTC, datetime
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from engine.providers.answer import Answer, UnreadableAnswerError
from engine.providers.catalogue import Provider
from engine.providers.changes import UpdatedSince
from engine.providers.records import read_page
from engine.providers.walk import request

NOW = datetime(2026, 1, 1, tzinfo=UTC)
FILE = """
name: choam
title: CHOAM
base_url: https://api.choam.example
credential_kinds:
  choam_key:
    grant: {kind: static, fields: [secret]}
    fields: {secret: {type: string, secret: true}}
rate_limit: {allowed_requests: 1}
paging: {kind: body_token, cursor_param: after, limit_param: limit, page_size: 2, token: next}
record: {list: items, id: id}
collections:
  planet: {path: /planets}
  field:
    path: /planets/{planet}/fields
    parent: {collection: planet, names: {planet: id}, scope: id}
  harvest:
    path: /{planet}/{id}
    parent: {collection: field, scope: id}
    changes: {kind: updated_since, params: {changed: "{since}"}, overlap_s: 0}
  sale:
    path: /query
    words: {name: Sale}
    params: {q: "from {name} where changed >= '{after}' skip {start} take {size}"}
    record: {list: found.sales, sparse: true, updated: meta.changed}
    paging: &by_time
      kind: keyset
      cursor_param: "{after}"
      limit_param: "{size}"
      skip_param: "{start}"
      skip_first: 1
      page_size: 2
      key: meta.changed
      first: "1970"
    changes: {kind: updated_since, overlap_s: 0, paging: {<<: *by_time, first: "{since}"}}
"""
CHOAM = Provider.model_validate(yaml.safe_load(FILE))
HARVEST, SALE = "choam:harvest", "choam:sale"


def walked(answers: dict[str, Any], collection_id: str = HARVEST, provider: Provider = CHOAM) -> list[str]:
    """What is asked and what is found, to the end of a collection."""
    told, cursor = list[str](), None
    for _ in range(20):
        wanted = request(provider, collection_id, cursor)
        asked = "&".join([wanted.path, *(f"{name}={value}" for name, value in wanted.params.items())])
        payload = answers[asked.replace("&limit=2", "")]
        page = read_page(provider, collection_id, Answer(payload, is_missing=payload is None), cursor)
        told += [wanted.path, *(f"- {record.upstream_id}" for record in page.records)]
        if (cursor := page.following) is None:
            return told
    raise AssertionError("never ends")


def listed(*ids: str, then: str | None = None) -> dict[str, Any]:
    return {"items": [{"id": each} for each in ids], "next": then}


def test_lists_below_lists_below_lists() -> None:
    """Every page of every level is asked for, and an id tells of all levels that it is below of."""
    answers = {
        "/planets": listed("p1", "p2", then="t"),
        "/planets&after=t": listed("p3"),
        "/planets/p1/fields": listed("f1", then="u"),
        "/planets/p1/fields&after=u": listed("f2"),
        "/planets/p2/fields": listed(),
        "/planets/p3/fields": listed("f1"),
        "/p1/f1": listed("h1", then="v"),
        "/p1/f1&after=v": listed("h2"),
        "/p1/f2": None,
        "/p3/f1": listed("h1"),
    }

    assert walked(answers) == [
        *("/planets", "/planets/p1/fields", "/p1/f1", "- p1:f1:h1", "/p1/f1", "- p1:f1:h2"),
        *("/planets/p1/fields", "/p1/f2", "/planets/p2/fields"),
        *("/planets", "/planets/p3/fields", "/p3/f1", "- p3:f1:h1"),
    ]


@pytest.mark.parametrize(
    "answers",
    [
        {"/planets": listed()},
        {"/planets": listed("p1"), "/planets/p1/fields": listed()},
        {"/planets": listed("p1"), "/planets/p1/fields": None},
        {"/planets": listed("p1"), "/planets/p1/fields": listed("f1"), "/p1/f1": None},
    ],
)
def test_nothing_below(answers: Any) -> None:
    """A walk ends wherever there is nothing more below."""
    assert not [each for each in walked(answers) if each.startswith("-")]


def test_changes_below() -> None:
    """Only the list at the bottom is narrowed to what has changed."""
    changes = CHOAM.get(HARVEST).changes
    assert changes is not None
    answers = {
        "/planets": listed("p1"),
        "/planets/p1/fields": listed("f1"),
        "/p1/f1&changed=2026-01-01T00:00:00Z": listed("h1"),
    }

    assert walked(answers, provider=CHOAM.narrowed(HARVEST, changes, NOW))[-1] == "- p1:f1:h1"


@pytest.mark.parametrize("above", ["harvest", "field", "nowhere"])
def test_parents_in_a_circle(above: str) -> None:
    wrong = yaml.safe_load(FILE)
    wrong["collections"]["field"]["parent"]["collection"] = above

    with pytest.raises(ValidationError, match="not below itself"):
        Provider.model_validate(wrong)


def sold(*times: str) -> dict[str, Any]:
    return {"found": {"sales": [{"id": number, "meta": {"changed": at}} for number, at in enumerate(times)]}}


@pytest.mark.parametrize(
    ("cursor", "page", "following"),
    [
        (None, sold("a", "b"), {"after": "b", "skip": 0}),
        ({"after": "b", "skip": 0}, sold("b", "c"), {"after": "c", "skip": 0}),
        ({"after": "b", "skip": 0}, sold("b", "b"), {"after": "b", "skip": 1}),
        ({"after": "b", "skip": 1}, sold("b", "b"), {"after": "b", "skip": 2}),
        ({"after": "b", "skip": 2}, sold("b", "d"), {"after": "d", "skip": 0}),
        ({"after": "d", "skip": 0}, sold("d"), None),
        (None, {"found": {}}, None),
    ],
)
def test_sorted_by_a_value(cursor: Any, page: Any, following: Any) -> None:
    """On from the last value; where a value fills a page, on among those that share it."""
    assert read_page(CHOAM, SALE, Answer(page), cursor).following == following


def test_where_in_a_query() -> None:
    first = request(CHOAM, SALE, None)
    later = request(CHOAM, SALE, {"after": "2025-07-24T10:33:39-07:00", "skip": 2})

    assert first.params == {"q": "from Sale where changed >= '1970' skip 1 take 2"}
    assert later.params == {"q": "from Sale where changed >= '2025-07-24T10:33:39-07:00' skip 5 take 2"}


def test_changes_of_a_sorted_list() -> None:
    """What changed is the same list, from a later beginning."""
    changes = CHOAM.get(SALE).changes
    assert changes is not None

    asked = request(CHOAM.narrowed(SALE, changes, NOW), SALE, None)

    assert asked.params == {"q": "from Sale where changed >= '2026-01-01T00:00:00Z' skip 1 take 2"}


@pytest.mark.parametrize("payload", [{}, {"found": None}, {"found": {"sales": None, "x": 1}}, {"Fault": 1}])
def test_an_empty_list_that_is_left_out(payload: Any) -> None:
    """It may be missing from what is around it; where that is missing too, nothing was said."""
    if isinstance(payload.get("found"), dict):
        assert read_page(CHOAM, SALE, Answer(payload)).records == []
        return
    with pytest.raises(UnreadableAnswerError):
        read_page(CHOAM, SALE, Answer(payload))


def test_a_full_page_without_the_value() -> None:
    with pytest.raises(UnreadableAnswerError, match=r"without meta\.changed"):
        read_page(CHOAM, SALE, Answer({"found": {"sales": [{"id": 1}, {"id": 2}]}}))


GONE = """
kind: updated_since
gone:
  path: /cdc
  params: {kinds: "{name}", since: "{since}"}
  list: answers.0.{name}
  sparse: true
  only: {status: Deleted}
  paging: {kind: single}
"""


def test_what_is_gone_among_what_is_not() -> None:
    """A list of changes may name the collection, lie in a list itself, and tell of deletes among others."""
    changes = UpdatedSince.model_validate(yaml.safe_load(GONE))
    assert changes.gone is not None
    swept = CHOAM.swept(SALE, changes.gone, NOW)
    told = [{"id": 1, "status": "Deleted"}, {"id": 2, "status": "Changed"}, {"id": 3}]

    assert request(swept, SALE, None).params == {"kinds": "Sale", "since": "2025-12-31T23:59:50Z"}
    page = read_page(swept, SALE, Answer({"answers": [{"Sale": told}]}))
    assert [record.upstream_id for record in page.records] == ["1"]
    assert read_page(swept, SALE, Answer({"answers": [{}]})).records == []
    with pytest.raises(UnreadableAnswerError):
        read_page(swept, SALE, Answer({"answers": []}))
