"""Paging, addresses, throttling and token requests: pure functions, as tables."""

import base64
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import yaml
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from pydantic import TypeAdapter

from engine.providers.answer import Answer, StrayLinkError, UnreadableAnswerError
from engine.providers.auth import ClientCredentials, Refresh, Static, proof, settled
from engine.providers.catalogue import Provider, load_catalogue
from engine.providers.issue import UnusableKeyError, read_exchanged, read_installed, sign, token_request
from engine.providers.paging import Paging
from engine.providers.records import ends_at, read_page
from engine.providers.throttle import Throttle, is_throttled, resets_in_s, rest_ahead_s
from engine.providers.urls import ForbiddenUrlError, on_origin_of, path_of_link, resolve
from engine.providers.walk import request

NOW = datetime(2026, 1, 1, tzinfo=UTC)
URL = "https://api.example.com/v1/things?limit=2"
PAGING: TypeAdapter[Any] = TypeAdapter(Paging)
LAST_ID = {"kind": "last_id", "cursor_param": "after", "limit_param": "n", "page_size": 2, "more": "more"}
TOKEN = {"kind": "body_token", "cursor_param": "a", "limit_param": "n", "page_size": 2, "token": "p.next"}
LINK = {"kind": "link_header", "limit_param": "n", "page_size": 2}
NEXT = {"kind": "next_url", "url": "next"}
PAGE = {"kind": "page", "page_param": "p", "limit_param": "n", "page_size": 2}
OFFSET = {"kind": "offset", "offset_param": "o", "limit_param": "n", "page_size": 2}


@pytest.mark.parametrize(
    ("kind", "cursor", "params", "path"),
    [
        ({"kind": "single"}, None, {}, None),
        (LAST_ID, None, {"n": 2}, None),
        (LAST_ID, {"after": "x"}, {"n": 2, "after": "x"}, None),
        (LAST_ID | {"first": "0"}, None, {"n": 2, "after": "0"}, None),
        (TOKEN, None, {"n": 2}, None),
        (TOKEN, {"token": "t"}, {"n": 2, "a": "t"}, None),
        (LINK, None, {"n": 2}, None),
        (LINK, {"path": "/v1/things?page=2"}, {}, "/v1/things?page=2"),
        (NEXT, None, {}, None),
        (NEXT, {"path": "/q/1-2000"}, {}, "/q/1-2000"),
        (PAGE, None, {"n": 2, "p": 1}, None),
        (PAGE, {"page": 4}, {"n": 2, "p": 4}, None),
        (OFFSET, None, {"n": 2, "o": 0}, None),
        (OFFSET, {"offset": 4}, {"n": 2, "o": 4}, None),
    ],
)
def test_asking(kind: Any, cursor: Any, params: Any, path: str | None) -> None:
    """A cursor becomes a request; without one it is the first page's."""
    ask = PAGING.validate_python(kind).ask(cursor)

    assert (ask.params, ask.path) == (params, path)


@pytest.mark.parametrize(
    ("kind", "cursor", "payload", "link", "ids", "following"),
    [
        ({"kind": "single"}, None, {}, None, ["a"], None),
        (LAST_ID, None, {"more": True}, None, ["a", "b"], {"after": "b"}),
        (LAST_ID, None, {"more": False}, None, ["a"], None),
        (LAST_ID, None, {"more": True}, None, [], None),
        (LAST_ID, None, {"more": "/next"}, None, ["a"], {"after": "a"}),
        (LAST_ID, None, {}, None, ["a", "b"], {"after": "b"}),
        (LAST_ID, None, {}, None, ["a"], None),
        (TOKEN, None, {"p": {"next": "t"}}, None, ["a"], {"token": "t"}),
        (TOKEN, None, {"p": {"next": 7}}, None, ["a"], {"token": "7"}),
        (TOKEN, None, {"p": {"next": ""}}, None, ["a"], None),
        (TOKEN, None, {}, None, ["a"], None),
        (LINK, None, [], "https://api.example.com/v1/things?p=2", ["a"], {"path": "/v1/things?p=2"}),
        (LINK, None, [], "/v1/things?p=2", ["a"], {"path": "/v1/things?p=2"}),
        (LINK, None, [], None, ["a"], None),
        (NEXT, None, {"next": "/q/1-2000"}, None, ["a"], {"path": "/q/1-2000"}),
        (NEXT, None, {"next": None}, None, ["a"], None),
        (NEXT, None, {}, None, ["a"], None),
        (PAGE, None, [], None, ["a", "b"], {"page": 2}),
        (PAGE, {"page": 2}, [], None, ["a"], None),
        (OFFSET, {"offset": 2}, [], None, ["a", "b"], {"offset": 4}),
        (OFFSET, None, [], None, [], None),
    ],
)
def test_following(kind: Any, cursor: Any, payload: Any, link: Any, ids: Any, following: Any) -> None:
    """An answer tells the next cursor, or that there is none."""
    paging = PAGING.validate_python(kind)

    assert paging.following(Answer(payload, URL, link), ids, cursor) == following


@pytest.mark.parametrize(
    "link",
    [
        "https://elsewhere.example/v1",
        "http://api.example.com/v1",
        "https://api.example.com:8443/v1",
        "//169.254.169.254/latest/meta-data",
        "https://user@api.example.com/v1",
        "https://api.example.com@elsewhere.example/",
        "file:///etc/passwd",
        "https://[",
        "https://xn--a.example.com/v1",
    ],
)
def test_stray_links_are_refused(link: str) -> None:
    """A link that leaves the host it came from would take the token along."""
    with pytest.raises(StrayLinkError):
        path_of_link(URL, link)


def test_links_keep_their_query() -> None:
    path = path_of_link(URL, "https://api.example.com/a?b=c%2Fd&e=")

    assert on_origin_of("https://api.example.com/prefix", path) == "https://api.example.com/a?b=c%2Fd&e="


@pytest.mark.parametrize(
    ("template", "value", "url"),
    [
        ("https://{x}.example.com", "choam", "https://choam.example.com"),
        ("{x}", "https://choam.example.com", "https://choam.example.com"),
        ("{x}", "https://choam.example.com/", "https://choam.example.com"),
        ("{x}", "https://a.b.example.com", "https://a.b.example.com"),
        ("{x}", "http://choam.example.com", None),
        ("{x}", "https://example.com", None),
        ("{x}", "https://notexample.com", None),
        ("{x}", "https://choam.example.com:8080", None),
        ("{x}", "https://me:pw@choam.example.com", None),
        ("{x}", "https://choam.example.com/path", None),
        ("{x}", "https://choam.example.com?q", None),
        ("{x}", "https://127.0.0.1", None),
        ("{x}", "https://169.254.169.254/.example.com", None),
        ("{x}", "", None),
        ("https://{x}.example.com", "evil.test/", None),
        ("https://{x}.example.com", "evil.test#", None),
        ("https://{x}.example.com", "evil.test?", None),
        ("https://{x}.example.com", "evil.test\\", None),
        ("https://{x}.example.com", "me@evil.test/", None),
        ("https://{x}.example.com", "127.0.0.1:80/", None),
        ("https://{x}.example.com", "", None),
        ("https://{x}.example.com", "a b", None),
        ("https://{x}.example.com", "xn--a", None),
        ("https://{x}.example.com", "xn--", None),
        ("{x}", "https://xn--a.example.com", None),
        ("http://127.0.0.1:1", "choam", "http://127.0.0.1:1"),
    ],
)
def test_base_urls(template: str, value: str, url: str | None) -> None:
    """A credential's part of the URL never leads away from the provider; the operator's own URL is kept."""
    if url is not None:
        assert resolve(template, ["*.example.com"], {"x": value}) == url
        return
    with pytest.raises(ForbiddenUrlError):
        resolve(template, ["*.example.com"], {"x": value})


GITHUB = load_catalogue({})["github"]
FIRST = {"full_name": "choam/spice", "id": 1}
SECOND = {"full_name": "choam/water", "id": 2}


def test_walk_over_parents() -> None:
    """Parents first, then the pages of each, then more parents; the cursor says where all that stands."""
    commits, more = "github:commit", "https://api.github.com/installation/repositories?page=2"
    asked, cursors = [], [None]
    for payload, url, link in (
        ({"repositories": [FIRST]}, "https://api.github.com/installation/repositories", more),
        ([{"sha": "a"}], "https://api.github.com/repos/choam/spice/commits", "?page=2"),
        ([{"sha": "b"}], "https://api.github.com/repos/choam/spice/commits?page=2", None),
        ({"repositories": [SECOND]}, more, None),
        ([{"sha": "a"}], "https://api.github.com/repos/choam/water/commits", None),
    ):
        asked.append(request(GITHUB, commits, cursors[-1]).path)
        page = read_page(GITHUB, commits, Answer(payload, url, link), cursors[-1])
        cursors.append(page.following)
        asked += [record.upstream_id for record in page.records]

    assert asked == [
        "/installation/repositories",
        "/repos/choam/spice/commits",
        "1:a",
        "/repos/choam/spice/commits?page=2",
        "1:b",
        "/installation/repositories?page=2",
        "/repos/choam/water/commits",
        "2:a",
    ]
    assert cursors[-1] is None
    assert all(len(json.dumps(cursor)) < 300 for cursor in cursors)


@pytest.mark.parametrize("payload", [{"repositories": []}, {"repositories": [FIRST]}])
def test_walk_ends(payload: Any) -> None:
    """Without parents there is nothing; a parent whose list is missing has nothing."""
    page = read_page(GITHUB, "github:commit", Answer(payload))
    while page.following is not None:
        page = read_page(GITHUB, "github:commit", Answer(None, is_missing=True), page.following)

    assert page.records == []


def test_parents_without_a_name_are_unreadable() -> None:
    with pytest.raises(UnreadableAnswerError):
        read_page(GITHUB, "github:commit", Answer({"repositories": [{"id": 1}]}))


def test_a_list_by_parents_never_ends_early() -> None:
    """Old records of one parent say nothing about the next one's."""
    cursor: Any = {"parents": None, "left": [{"names": {"full_name": "a/b"}}]}
    old = [{"id": each, "created_at": f"2020-01-0{each}T00:00:00Z"} for each in (3, 2, 1)]

    page = read_page(GITHUB, "github:release", Answer(old), cursor)

    assert not ends_at(page, NOW)


@pytest.mark.parametrize(
    ("collection_id", "records", "expected"),
    [
        ("stripe:customer", [3, 1], True),
        ("stripe:customer", [1], True),
        ("stripe:customer", [1, NOW.timestamp()], False),
        ("stripe:customer", [], False),
        ("stripe:country_spec", [None], False),
        ("stripe:product", [3, 1], False),  # one that was created long ago may be new in what it says
        ("hubspot:contact", [3, 1], False),  # its list has no order by age
    ],
)
def test_where_all_that_follows_is_older(
    collection_id: str, records: list[float | None], expected: bool
) -> None:
    """Only a list that is known to run from new to old tells by its last record that the rest is older."""
    listed = [
        {"id": f"x{place}", "created": created, "createdAt": created} for place, created in enumerate(records)
    ]
    provider = load_catalogue({})[collection_id.partition(":")[0]]

    page = read_page(provider, collection_id, Answer({"data": listed, "results": listed, "has_more": False}))

    assert ends_at(page, NOW) is expected


THROTTLE = Throttle(statuses=(403,), remaining="x-left", reset="x-reset", codes=("LIMIT",))


@pytest.mark.parametrize(
    ("status", "headers", "body", "expected"),
    [
        (429, {}, "", True),
        (403, {}, "", False),
        (403, {"x-left": "0"}, "", True),
        (403, {"x-left": "1"}, "", False),
        (403, {"retry-after": "5"}, "", True),
        (403, {}, "REQUEST_LIMIT_EXCEEDED", True),
        (401, {"x-left": "0"}, "", False),
    ],
)
def test_throttled(status: int, headers: dict[str, str], body: str, expected: bool) -> None:
    """Some providers say "slow down" with a status that otherwise means "no"."""
    assert is_throttled(THROTTLE, status, headers, body) is expected


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"x-left": "0", "x-reset": str(int(NOW.timestamp()) + 30)}, 30.0),
        ({"x-left": "0", "x-reset": str(int(NOW.timestamp()) - 30)}, 0.0),
        ({"x-left": "0", "x-reset": str(int(NOW.timestamp()) * 1000)}, 86_400.0),
        ({"x-left": "0", "x-reset": "soon"}, None),
        ({"x-left": "3", "x-reset": "1"}, None),
        ({}, None),
    ],
)
def test_reset(headers: dict[str, str], seconds: float | None) -> None:
    """The time of more requests, never more than a day away."""
    assert resets_in_s(THROTTLE, headers, NOW) == seconds


@pytest.mark.parametrize("headers", [{}, {"x-left": "0", "x-reset": "soon"}])
def test_a_pause_that_only_the_documentation_tells(headers: dict[str, str]) -> None:
    throttle = THROTTLE.model_copy(update={"pause_s": 30})

    assert resets_in_s(throttle, headers, NOW) == 30
    assert resets_in_s(throttle, {"x-left": "0", "x-reset": str(int(NOW.timestamp()) + 5)}, NOW) == 5


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, 0.0),
        ({"x-left": "1", "x-reset": str(int(NOW.timestamp()) + 30)}, 0.0),
        ({"x-left": "0", "x-reset": str(int(NOW.timestamp()) + 30)}, 30.0),
        ({"x-left": "0"}, 0.0),
        ({"x-used": "31/40"}, 0.0),
        ({"x-used": "32/40"}, 6.0),
        ({"x-used": "40/40"}, 10.0),
        ({"x-used": "api-usage=99/100"}, 9.8),
        ({"x-used": "999/0"}, 0.0),
        ({"x-used": "900/1"}, 20.0),
        ({"x-used": "soon"}, 0.0),
    ],
)
def test_resting_ahead(headers: dict[str, str], seconds: float) -> None:
    """An answer that leaves little room makes for a rest, before there is a refusal."""
    throttle = Throttle(remaining="x-left", reset="x-reset", used="x-used", drains_s=20)

    assert rest_ahead_s(throttle, headers, NOW) == pytest.approx(seconds)


def refresh(**more: Any) -> Refresh:
    return Refresh(kind="refresh", token_url="/token", **more)


def test_token_requests() -> None:
    """Client id and secret go into the form, or into the header where a provider wants them there."""
    form = {"grant_type": "refresh_token", "refresh_token": "r"}
    in_body = token_request(refresh(), "https://x", "id", "pw", form)
    in_header = token_request(refresh(client_auth="basic"), "https://x", "id", "pw", form)

    assert in_body.form == {
        "grant_type": "refresh_token",
        "refresh_token": "r",
        "client_id": "id",
        "client_secret": "pw",
    }
    assert in_header.form == form
    assert in_header.headers["Authorization"] == "Basic " + base64.b64encode(b"id:pw").decode()
    assert "pw" not in repr(in_body) + repr(in_header)


def test_client_ids_and_secrets_may_hold_anything() -> None:
    """RFC 6749, section 2.3.1: both are form-encoded, so that a colon joins nothing but them."""
    request = token_request(refresh(client_auth="basic"), "https://x", "a:b", "c d+%é", {})

    pair = base64.b64decode(request.headers["Authorization"].removeprefix("Basic ")).decode()
    assert pair == "a%3Ab:c+d%2B%25%C3%A9"


def test_client_credentials() -> None:
    """An application asks in its own name, with what else the provider wants to know."""
    grant = ClientCredentials(
        kind="client_credentials", token_url="/token", params={"audience": "https://{domain}/"}
    )
    values = {"client_id": "id", "client_secret": "pw", "domain": "choam.example"}

    assert grant.needs == (("client_id",), ("client_secret",), ("domain",))
    assert grant.form(values) == {"grant_type": "client_credentials", "audience": "https://choam.example/"}
    assert proof(grant, values) == '["id", "pw", "choam.example"]'


def test_a_token_without_a_refresh_token() -> None:
    """A kind may leave it to the credential whether its token is renewed or carried as it is."""
    grant = refresh(otherwise="access_token")

    assert grant.needs == (("refresh_token", "access_token"),)
    assert settled(grant, {"refresh_token": "r", "access_token": "a"}) is grant
    assert settled(grant, {"access_token": "a"}) == Static(kind="static", fields=("access_token",))
    assert settled(refresh(), {}) == refresh()


BOUND = """
name: choam
title: CHOAM
base_url: https://api.choam.example
prefix: /v3/company/{realm}
credential_kinds:
  choam_key:
    grant: {kind: static, fields: [secret]}
    auth: {value: "Basic {token}"}
    fields: {realm: {type: id, required: true}, secret: {type: string, secret: true}}
rate_limit: {allowed_requests: 1}
paging: {kind: single}
collections:
  spice: {path: /spice}
"""


def test_a_credential_s_own_place_and_way_in() -> None:
    """A property may be a part of the path and never more; a kind may carry its token in its own way."""
    provider = Provider.model_validate(yaml.safe_load(BOUND))

    bound = provider.bound("choam_key", {"realm": "1/2?"})

    assert request(bound, "choam:spice", None).path == "/v3/company/1%2F2%3F/spice"
    assert bound.carrying("t") == {"Authorization": "Basic t"}
    assert provider.root({"realm": 12}) == "https://api.choam.example"
    for escape in ("..", ".", ""):
        with pytest.raises(ForbiddenUrlError, match="does not make a path"):
            provider.root({"realm": escape})


@pytest.mark.parametrize(
    ("answer", "lasts", "rotated"),
    [
        ({"access_token": "a", "expires_in": 10}, 10, None),
        ({"access_token": "a"}, 3600, None),
        ({"access_token": "a", "expires_in": "soon", "refresh_token": "r"}, 3600, "r"),
        ({"access_token": "a", "expires_in": -1, "refresh_token": ""}, 3600, None),
    ],
)
def test_exchanged(answer: Any, lasts: int, rotated: str | None) -> None:
    tokens = read_exchanged(refresh(), answer, NOW)

    assert tokens.expires_at == NOW + timedelta(seconds=lasts)
    assert tokens.refresh_token == rotated


def test_tokens_end_early_and_are_not_used_once_refused() -> None:
    """A minute before its end a token is not good any more."""
    tokens = read_exchanged(refresh(), {"access_token": "a", "expires_in": 100}, NOW)

    assert tokens.is_good(NOW, None)
    assert not tokens.is_good(NOW + timedelta(seconds=41), None)
    assert not tokens.is_good(NOW, "a")


@pytest.mark.parametrize("answer", [{}, {"access_token": ""}, {"access_token": 5}, {"token": "t"}])
def test_answers_without_a_token(answer: Any) -> None:
    with pytest.raises(UnreadableAnswerError):
        read_exchanged(refresh(), answer, NOW)
    with pytest.raises(UnreadableAnswerError):
        read_installed(answer)


def test_signature() -> None:
    """A JWT of three parts, RS256, that lives for less than ten minutes; keys with escaped newlines work."""
    key = generate_private_key(65537, 2048)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()

    head, claims, signature = sign("7", pem.replace("\n", "\\n"), NOW).split(".")

    read = {name: base64.urlsafe_b64decode(part + "==") for name, part in (("c", claims), ("s", signature))}
    said = json.loads(read["c"])
    key.public_key().verify(read["s"], f"{head}.{claims}".encode(), PKCS1v15(), SHA256())
    assert said["iss"] == "7"
    assert said["iat"] < NOW.timestamp() < said["exp"] < NOW.timestamp() + 600


@pytest.mark.parametrize(
    "key", ["", "secret", "-----BEGIN RSA PRIVATE KEY-----\nAA==\n-----END RSA PRIVATE KEY-----"]
)
def test_unusable_keys(key: str) -> None:
    with pytest.raises(UnusableKeyError) as caught:
        sign("7", key, NOW)

    assert not caught.value.args
