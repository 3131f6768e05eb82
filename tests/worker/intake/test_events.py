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
    UnknownEvent,
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
    "type of another kind": ("type", 7, "type", "tenant.created"),
    "type that is no name": ("type", "tenant created!", "type", "tenant.created"),
    "endless type": ("type", "x" * 65, "type", "tenant.created"),
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
    "external_id of a dot": ("data.external_id", ".", "data.external_id", "address"),
    "external_id of two dots": ("data.external_id", "..", "data.external_id", "address"),
    "external_id with a line break": ("data.external_id", "a\nb", "data.external_id", "address"),
    "external_id that ends in one": ("data.external_id", "a\n", "data.external_id", "address"),
    "external_id with another control": ("data.external_id", "a\x85b", "data.external_id", "address"),
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
    "both credentials": (f"{WISH}.credential_id", "c1", WISH, "at most one"),
    "credential as text": (f"{WISH}.credential", CANARY, f"{WISH}.credential", "object"),
    "no properties": (f"{WISH}.credential.properties", ..., f"{WISH}.credential.properties", "required"),
    "no kind": (f"{WISH}.credential.properties", {"secret": CANARY}, f"{WISH}.credential.properties", "kind"),
    "kind as a number": (f"{WISH}.credential.properties.kind", 1, f"{WISH}.credential.properties", "kind"),
    "no secret": (
        f"{WISH}.credential.properties",
        {"kind": "stripe_key", "secret": "", "test": True, "more": {"a": [" "]}},
        f"{WISH}.credential.properties",
        "secret beside kind",
    ),
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


UNKNOWN_FIELDS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "on top": ({"id": "e1"}, ["id"]),
    "of the tenant": ({"data.nmae": CANARY}, ["data.nmae"]),
    "of a connection": ({f"{WISH}.colour": {"a": CANARY}}, [f"{WISH}.colour"]),
    "of a credential": ({f"{WISH}.credential.sub": 1}, [f"{WISH}.credential.sub"]),
    "several": ({"id": 1, "data.created_by": None}, ["data.created_by", "id"]),
    "a secret as a name": ({f"data.{CANARY}": 1}, ["data.***********"]),
}


@pytest.mark.parametrize(("added", "named"), UNKNOWN_FIELDS.values(), ids=UNKNOWN_FIELDS.keys())
def test_unknown_field_is_ignored_and_named(added: dict[str, Any], named: list[str]) -> None:
    """A sender may add fields; the message means the same without them, and what was ignored is known."""
    message = CREATED
    for path, value in added.items():
        message = changed(path, value, message)

    read = parse(encoded(message))

    assert isinstance(read, TenantCreated)
    assert sorted(read.ignored) == named
    assert read.digest == digest(CREATED)
    assert read.data == parsed(CREATED).data


def parsed(message: dict[str, Any]) -> TenantCreated:
    read = parse(encoded(message))
    assert isinstance(read, TenantCreated)
    return read


def digest(message: dict[str, Any]) -> str:
    read = parse(encoded(message))
    assert not isinstance(read, UnknownEvent)
    return read.digest


def test_many_unknown_fields_are_not_all_named() -> None:
    """The answer stays short however many fields are unknown."""
    message = CREATED | {f"field_{n}": n for n in range(1000)}

    assert len(parsed(message).ignored) == 20


@pytest.mark.parametrize("path", ["data.plan", f"{WISH}.provider"])
def test_unknown_field_hides_no_mistake(path: str) -> None:
    """What is wrong with the known fields is told, beside an unknown one too."""
    assert list(reasons(encoded(changed(path, "!", CREATED | {"id": 1})))) == [path]


@pytest.mark.parametrize(
    "message",
    [
        {"type": "user.created", "timestamp": at(0), "data": {"id": "u1"}},
        {"type": "ping"},
        {"type": "tenant.renamed", "data": 7},
    ],
)
def test_unknown_type_is_told_from_a_mistake(message: dict[str, Any]) -> None:
    """A type that is not ours is no error of the sender, whatever else the message holds."""
    assert parse(encoded(message)) == UnknownEvent(message["type"])


def test_secret_as_a_type_is_masked() -> None:
    """A type that looks like a key is not repeated."""
    assert CANARY not in str(parse(encoded({"type": CANARY})))


@pytest.mark.parametrize("path", ["data.name", f"{WISH}.name", f"{WISH}.credential.name"])
def test_empty_name_is_no_name(path: str) -> None:
    """An empty text means the same as null."""
    assert digest(changed(path, "")) == digest(changed(path, None))


SAME = {
    "key order": json.dumps(dict(reversed(CREATED.items())), indent=2),
    "order inside metadata": json.dumps(changed("data.metadata", {"b": 1, "a": 2})).replace(
        '{"b": 1, "a": 2}', '{"a":2,"b":1}'
    ),
    "another timestamp": json.dumps(changed("timestamp", at(-2))),
    "blanks around": f"  {json.dumps(CREATED)}\n",
    "escapes": json.dumps(CREATED).replace("Choam", "\\u0043hoam"),
}


@pytest.mark.parametrize("spelling", SAME.values(), ids=SAME.keys())
def test_digest_is_of_the_meaning(spelling: str) -> None:
    """The same event written in another way has the same digest."""
    original = changed("data.metadata", {"b": 1, "a": 2}) if '"a":2' in spelling else CREATED

    read = parse(spelling.encode())

    assert isinstance(read, TenantCreated)
    assert read.digest == digest(original)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("type", "tenant.updated"),
        ("data.name", "Other"),
        ("data.name", None),
        ("data.plan", ...),
        ("data.metadata.crm", 8),
        (f"{WISH}.credential.properties.secret", "sk_test_another"),
        (f"{WISH}.max_age_days", None),
    ],
)
def test_another_meaning_has_another_digest(path: str, value: Any) -> None:
    """Any change of what an event says changes its digest."""
    assert digest(changed(path, value)) != digest(CREATED)


def test_body_in_another_encoding_is_named() -> None:
    """What is not UTF-8 is told as such."""
    assert reasons(b'{"type": "tenant.deleted", "data": "\xff"}') == {"body": ["expected UTF-8"]}


def test_everything_wrong_is_named_at_once() -> None:
    """Whoever made several mistakes learns of all of them."""
    message = changed("data.external_id", "", changed("data.plan", "!", changed("timestamp", "?")))

    assert set(reasons(encoded(message))) == {"timestamp", "data.external_id", "data.plan"}


def test_secret_in_the_wrong_place_is_not_quoted() -> None:
    """A secret under a field that does not exist, or as a value of the wrong kind, is not repeated."""
    for path in ("timestamp", "data.metadata", f"{WISH}.max_age_days"):
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

    assert not isinstance(read, TenantDeleted | UnknownEvent)
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
