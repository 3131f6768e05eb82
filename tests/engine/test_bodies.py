"""Lists that are asked for by POST: what is sent, and what a file may say about it."""

import json
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
import yaml
from pydantic import ValidationError

from engine.backfill.fetch import Access
from engine.providers.catalogue import Provider
from engine.providers.template import filled, placed
from engine.providers.walk import request
from tests.engine.pages import page_at

NOW = datetime(2026, 1, 1, tzinfo=UTC)
PROVIDER = """
name: choam
title: CHOAM
base_url: https://api.choam.example
credential_kinds:
  choam_key:
    grant: {kind: static, fields: [secret]}
    fields: {secret: {type: string, secret: true}}
rate_limit: {allowed_requests: 1}
paging: {kind: link_header, limit_param: limit, page_size: 9}
record: {list: results, id: id}
changes:
  kind: updated_since
  path: "{path}/search"
  body: {filters: [{name: changed, since: "{since}"}, {name: id, after: "0"}], sort: [id]}
  paging: {kind: last_id, cursor_param: filters.1.after, limit_param: limit, page_size: 2, more: next}
collections:
  spice: {path: /spice, params: {columns: all}}
  house:
    path: /houses
    words: {columns: [name, planet], table: House}
    params: {q: "SELECT {columns} FROM {table} WHERE id > '{after}' LIMIT {limit}"}
    paging: {kind: last_id, cursor_param: "{after}", first: "0", limit_param: "{limit}", page_size: 3}
    changes: null
  harvest:
    path: /graphql
    body: {query: "query($after: String, $first: Int) { harvests }"}
    paging:
      kind: body_token
      cursor_param: variables.after
      limit_param: variables.first
      page_size: 50
      token: data.harvests.pageInfo.endCursor
      more: data.harvests.pageInfo.hasNextPage
    record: {list: data.harvests.nodes}
    changes: {kind: updated_since, body: {variables: {since: "{since}"}, query: "{ harvests }"}, overlap_s: 0}
"""
CHOAM = Provider.model_validate(yaml.safe_load(PROVIDER))


def since(collection_id: str) -> Provider:
    changes = CHOAM.changes_of(collection_id)
    assert changes is not None
    assert changes.kind == "updated_since"
    return CHOAM.narrowed(collection_id, changes, NOW)


@pytest.mark.parametrize(
    ("template", "values", "body"),
    [
        ({}, {"limit": 5}, {"limit": 5}),
        ({"a": {"b": 1}}, {"a.c": "x"}, {"a": {"b": 1, "c": "x"}}),
        ({"a": {"b": 1}}, {"a.b": "x", "d.e.f": 2}, {"a": {"b": "x"}, "d": {"e": {"f": 2}}}),
        ({"a": [{"v": 0}, {"v": 0}]}, {"a.1.v": "x"}, {"a": [{"v": 0}, {"v": "x"}]}),
        ({"a": None}, {"a.b": 1}, {"a": {"b": 1}}),
    ],
)
def test_placing(template: Any, values: Any, body: Any) -> None:
    """A value gets to its path, and the template stays as it was."""
    before = json.dumps(template)

    assert placed(template, values) == body
    assert json.dumps(template) == before


def test_replacing() -> None:
    """Placeholders are replaced wherever there is text; alone they become the value itself."""
    values = {"{x}": 7, "{y}": ["a", "b"]}

    body = filled({"{x}": ["{x}", {"a": "<{x}>"}], "y": "{y}", "z": "{y}.", "t": True, "n": None}, values)

    assert body == {"{x}": [7, {"a": "<7>"}], "y": ["a", "b"], "z": "a,b.", "t": True, "n": None}


def test_pages_go_into_the_body() -> None:
    first = request(CHOAM, "choam:harvest", None)
    second = request(CHOAM, "choam:harvest", {"token": "c"})

    assert (first.path, first.params) == ("/graphql", {})
    assert first.body is not None
    assert first.body["variables"] == {"first": 50}
    assert second.body == first.body | {"variables": {"first": 50, "after": "c"}}


def test_changes_are_searched_for() -> None:
    """A search below the collection's path takes the moment and the last id, and no parameters along."""
    asked = request(since("choam:spice"), "choam:spice", {"after": "17"})

    assert (asked.path, asked.params) == ("/spice/search", {})
    assert asked.body == {
        "filters": [{"name": "changed", "since": "2025-12-31T23:59:50Z"}, {"name": "id", "after": "17"}],
        "sort": ["id"],
        "limit": 2,
    }


def test_placeholders() -> None:
    """Paging and the collection's own words fill in a query language's text."""
    first, second = (request(CHOAM, "choam:house", cursor) for cursor in (None, {"after": "7"}))

    assert first.params == {"q": "SELECT name,planet FROM House WHERE id > '0' LIMIT 3"}
    assert second.params == {"q": "SELECT name,planet FROM House WHERE id > '7' LIMIT 3"}
    assert first.body is None


def test_a_collection_may_do_without() -> None:
    assert CHOAM.changes_of("choam:house") is None
    assert request(since("choam:harvest"), "choam:harvest", None).body == {
        "query": "{ harvests }",
        "variables": {"since": "2026-01-01T00:00:00Z", "first": 50},
    }


def test_posting() -> None:
    """The body is sent as JSON, and a token that is not followed by more ends the list."""
    sent = list[httpx.Request]()

    def serve(asked: httpx.Request) -> httpx.Response:
        sent.append(asked)
        more = {"hasNextPage": len(sent) < 2, "endCursor": "c"}
        return httpx.Response(200, json={"data": {"harvests": {"nodes": [{"id": "1"}], "pageInfo": more}}})

    access = Access("https://api.choam.example", "t")
    with httpx.Client(transport=httpx.MockTransport(serve)) as client:
        first = page_at(client, CHOAM, "choam:harvest", access, None)
        second = page_at(client, CHOAM, "choam:harvest", access, first.following)

    assert [each.method for each in sent] == ["POST", "POST"]
    assert sent[0].headers["content-type"] == "application/json"
    assert json.loads(sent[1].content)["variables"] == {"first": 50, "after": "c"}
    assert (first.following, second.following) == ({"token": "c"}, None)


def test_no_place_for_a_page() -> None:
    """A body that paging cannot write into is refused when the file is read."""
    wrong = yaml.safe_load(PROVIDER)
    wrong["collections"]["harvest"]["body"] = {"variables": "none"}

    with pytest.raises(ValidationError, match="no place first"):
        Provider.model_validate(wrong)
