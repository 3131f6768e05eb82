"""Events: strict reading, reasons by field, and nothing of the input in them."""

import json
from contextlib import suppress
from typing import Any

import pytest
import time_machine
from hypothesis import given
from hypothesis import strategies as st

from tests.support.events import AT, CANARY, at, encoded, event, stripe
from worker.intake.events import (
    CredentialProvided,
    InvalidEventError,
    TenantCreated,
    TenantDeleted,
    TenantUpdated,
    parse,
)


@pytest.fixture(autouse=True)
def frozen() -> Any:
    with time_machine.travel(AT, tick=False) as traveller:
        yield traveller


CREATED = event("tenant.created", stripe(), name="Choam Corp", plan="default", metadata={"crm": 7})


def changed(path: str, value: Any, base: dict[str, Any] = CREATED) -> dict[str, Any]:
    """The message with one value set, or taken away."""
    copy: Any = json.loads(json.dumps(base))
    inner = copy
    *way, last = [int(step) if step.isdigit() else step for step in path.split(".")]
    for step in way:
        inner = inner[step]
    if value is ...:
        del inner[last]
    else:
        inner[last] = value
    return dict(copy)


def reasons(body: bytes) -> dict[str, list[str]]:
    with pytest.raises(InvalidEventError) as caught:
        parse(body)
    return caught.value.fields


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        (CREATED, TenantCreated),
        (event("tenant.created"), TenantCreated),
        (event("tenant.updated", name="New"), TenantUpdated),
        (event("credential.provided", stripe()), CredentialProvided),
        (event("credential.provided", stripe(None, credential_id="c1")), CredentialProvided),
        (event("tenant.deleted"), TenantDeleted),
    ],
)
def test_every_type_is_read(message: dict[str, Any], kind: type) -> None:
    """Each documented type becomes its own kind of event."""
    assert type(parse(encoded(message))) is kind


WISH = "data.connections.0"
WRONG: dict[str, tuple[str, Any, str, str]] = {
    # path, value, the field that is named, part of its reason
    "no type": ("type", ..., "type", "expected one of"),
    "unknown type": ("type", "tenant.renamed", "type", "tenant.created"),
    "no timestamp": ("timestamp", ..., "timestamp", "required"),
    "naive timestamp": ("timestamp", "2026-05-04T12:00:00", "timestamp", "timezone"),
    "no date": ("timestamp", "yesterday", "timestamp", "datetime"),
    "from the future": ("timestamp", at(6), "timestamp", "future"),
    "far future": ("timestamp", "9999-12-31T23:59:59-23:59", "timestamp", "future"),
    "before time": ("timestamp", "0001-01-01T00:00:00+14:00", "timestamp", "past"),
    "long ago": ("timestamp", 0, "timestamp", "past"),
    "no data": ("data", ..., "data", "required"),
    "data of another kind": ("data", [], "data", "object"),
    "no external_id": ("data.external_id", ..., "data.external_id", "required"),
    "empty external_id": ("data.external_id", "", "data.external_id", "at least 1"),
    "endless external_id": ("data.external_id", "x" * 256, "data.external_id", "at most 255"),
    "external_id as a number": ("data.external_id", 7, "data.external_id", "string"),
    "unknown field": ("data.nmae", "x", "data.nmae", "not permitted"),
    "unknown field on top": ("extra", 1, "extra", "not permitted"),
    "plan in capitals": ("data.plan", "Gold", "data.plan", "pattern"),
    "name too long": ("data.name", "x" * 256, "data.name", "at most 255"),
    "metadata as a list": ("data.metadata", [], "data.metadata", "object"),
    "connections as an object": ("data.connections", {}, "data.connections", "array"),
    "too many connections": ("data.connections", [stripe()] * 1001, "data.connections", "1000"),
    "the same twice": ("data.connections", [stripe(), stripe()], "data.connections", "named twice"),
    "no provider": (f"{WISH}.provider", ..., f"{WISH}.provider", "required"),
    "odd provider": (f"{WISH}.provider", "../x", f"{WISH}.provider", "pattern"),
    "provider with a line break": (f"{WISH}.provider", "stripe\n", f"{WISH}.provider", "pattern"),
    "odd slot": (f"{WISH}.slot", "A B", f"{WISH}.slot", "pattern"),
    "unknown wish": (f"{WISH}.colour", "red", f"{WISH}.colour", "not permitted"),
    "both credentials": (f"{WISH}.credential_id", "c1", WISH, "at most one"),
    "credential as text": (f"{WISH}.credential", CANARY, f"{WISH}.credential", "object"),
    "no properties": (f"{WISH}.credential.properties", ..., f"{WISH}.credential.properties", "required"),
    "no kind": (f"{WISH}.credential.properties", {"secret": CANARY}, f"{WISH}.credential.properties", "kind"),
    "kind as a number": (f"{WISH}.credential.properties.kind", 1, f"{WISH}.credential.properties", "kind"),
    "unknown in credential": (f"{WISH}.credential.{CANARY[:6]}", 1, f"{WISH}.credential.sk_tes", "permitted"),
    "no collections": (f"{WISH}.collection_ids", [], f"{WISH}.collection_ids", "at least one"),
    "empty collection": (f"{WISH}.collection_ids", [""], f"{WISH}.collection_ids.0", "at least 1"),
    "age of zero": (f"{WISH}.max_age_days", 0, f"{WISH}.max_age_days", "greater"),
    "age with a fraction": (f"{WISH}.max_age_days", 1.5, f"{WISH}.max_age_days", "integer"),
    "age too large": (f"{WISH}.max_age_days", 2**31, f"{WISH}.max_age_days", "less"),
    "endless age": (f"{WISH}.max_age_days", 10**400, f"{WISH}.max_age_days", "less"),
    "odd frequency": (f"{WISH}.sync_frequency", "5h", f"{WISH}.sync_frequency", "continuous"),
    "odd status": (f"{WISH}.status", "deleted", f"{WISH}.status", "active"),
    "incomplete limit": (f"{WISH}.rate_limit", {}, f"{WISH}.rate_limit.allowed_requests", "required"),
    "no requests allowed": (
        f"{WISH}.rate_limit",
        {"allowed_requests": 0, "interval": 60},
        f"{WISH}.rate_limit.allowed_requests",
        "greater",
    ),
}


@pytest.mark.parametrize(("path", "value", "field", "reason"), WRONG.values(), ids=WRONG.keys())
def test_what_is_wrong_is_named_and_not_quoted(path: str, value: Any, field: str, reason: str) -> None:
    """The field is named with a reason, and neither the secret nor the wrong value is repeated."""
    found = reasons(encoded(changed(path, value)))

    assert field in found
    assert reason in " ".join(found[field])
    assert CANARY not in str(found)


def test_everything_wrong_is_named_at_once() -> None:
    """Whoever made several mistakes learns of all of them."""
    message = changed("data.external_id", "", changed("data.plan", "!", changed("timestamp", "?")))

    assert set(reasons(encoded(message))) == {"timestamp", "data.external_id", "data.plan"}


def test_secret_in_the_wrong_place_is_not_quoted() -> None:
    """A secret under a field that does not exist, or as a value of the wrong kind, is not repeated."""
    for path in ("timestamp", "type", "data.metadata", f"{WISH}.max_age_days"):
        assert CANARY not in str(reasons(encoded(changed(path, CANARY))))


RAW = {
    "nothing": b"",
    "no JSON": b"signup!",
    "cut off": encoded(CREATED)[:-2],
    "a list": b"[]",
    "null": b"null",
    "a number": b"7",
    "not UTF-8": b'{"type": "\xff"}',
    "UTF-16": '{"type": "tenant.deleted"}'.encode("utf-16"),
    "with a byte order mark": b"\xef\xbb\xbf" + encoded(CREATED),
    "deep list": b"[" * 100_000,
    "deep object": b'{"a":' * 50_000,
    "two documents": encoded(CREATED) * 2,
}


@pytest.mark.parametrize("body", RAW.values(), ids=RAW.keys())
def test_what_is_no_message_is_refused(body: bytes) -> None:
    """Whatever is sent, the answer is a reason and not an error of ours."""
    assert reasons(body)


INSIDE = {
    "not a number": b"NaN",
    "infinity": b"Infinity",
    "minus infinity": b"-Infinity",
    "too large a number": b"1e400",
    "too small a number": b"-1e400",
    "endless integer": b"1" * 5000,
    "NUL": b'"a\\u0000b"',
    "NUL as a name": b'{"\\u0000": 1}',
    "raw NUL": b'"a\x00b"',
    "half a character": b'"\\ud800"',
    "other half": b'"\\udc00"',
    "half a character as a name": b'{"\\ud83d": 1}',
    "too deep": b"[" * 500 + b"]" * 500,
}


@pytest.mark.parametrize("where", ["metadata", "properties", "connection metadata", "external_id"])
@pytest.mark.parametrize("value", INSIDE.values(), ids=INSIDE.keys())
def test_what_cannot_be_stored_is_refused(value: bytes, where: str) -> None:
    """What some database or JSON itself cannot hold is refused at the door, wherever it stands."""
    message = {
        "metadata": changed("data.metadata", {"a": "@"}),
        "properties": changed(f"{WISH}.credential.properties.secret", "@"),
        "connection metadata": changed(f"{WISH}.metadata", {"a": ["@"]}),
        "external_id": changed("data.external_id", "@"),
    }[where]

    assert reasons(encoded(message).replace(b'"@"', value))


HARMLESS: list[Any] = ["\\u0000", "ü\U0001f6a2", 2**53, -(2**63), 1e308, [[[]]], {"": None}, "x" * 100_000]


@pytest.mark.parametrize("value", HARMLESS, ids=lambda value: str(value)[:20])
def test_what_can_be_stored_is_kept(value: Any) -> None:
    """Any other JSON in metadata stays as it is."""
    read = parse(encoded(changed("data.metadata", {"a": value})))

    assert isinstance(read, TenantCreated)
    assert read.data.metadata == {"a": value}


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(
    JSON_VALUES, st.sampled_from(["type", "timestamp", "data", "data.metadata", WISH, f"{WISH}.credential"])
)
def test_no_json_breaks_the_reading(value: Any, path: str) -> None:
    """Any JSON value in any place is either read or refused with reasons."""
    with time_machine.travel(AT, tick=False), suppress(InvalidEventError):
        parse(encoded(changed(path, value)))


@given(st.binary(max_size=60))
def test_no_bytes_break_the_reading(body: bytes) -> None:
    """Any bytes are either read or refused with reasons."""
    with pytest.raises(InvalidEventError):
        parse(body)


@pytest.mark.parametrize("kind", ["tenant.updated", "tenant.created"])
def test_absent_is_told_from_null(kind: str) -> None:
    """An update knows which fields were sent; absent ones change nothing."""
    wish = stripe(None, max_age_days=None)
    read = parse(encoded(event(kind, wish)))

    assert not isinstance(read, TenantDeleted)
    assert read.data.connections[0].overrides() == {"max_age_days": None}


@pytest.mark.parametrize("field", ["name", "plan", "metadata"])
def test_credential_event_changes_only_credentials(field: str) -> None:
    """What belongs into an update is refused in a credential event, and said so."""
    message = event("credential.provided", stripe(), **{field: "x" if field != "metadata" else {}})

    assert "tenant.updated" in str(reasons(encoded(message)))


def test_credential_event_needs_a_credential() -> None:
    """A credential event without any credential says that one is missing."""
    found = reasons(encoded(event("credential.provided", stripe(None))))

    assert "expected one with a credential" in str(found)
