"""What bodies must look like: a check returns the reasons against a value, none if it is fine."""

import re
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from .errors import FieldErrors, Reasons, invalid

JsonObject = dict[str, Any]
Check = Callable[[object], Reasons]

UUID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
SLUG: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,254}")
COLLECTION: Final = re.compile(r"[a-z0-9_]+:[A-Za-z0-9_.]+")
KIND: Final = re.compile(r"([a-z0-9_]+)_(oauth2|key|app|password)")

PROVIDERS: Final = frozenset(
    {
        "airtable",
        "auth0",
        "checkout_champ",
        "github",
        "hubspot",
        "linear",
        "marketo",
        "netsuite",
        "quickbooks",
        "salesforce",
        "sendgrid",
        "servicenow",
        "shopify",
        "stripe",
        "workday",
    }
)
SECRETS: Final = ("secret", "access_token", "refresh_token", "password")


class Field(NamedTuple):
    """One field of a body."""

    check: Check
    is_required: bool = False


Fields = Mapping[str, Field]


def text(value: object) -> Reasons:
    """A string that is not empty."""
    return [] if isinstance(value, str) and value else ["must be a non-empty string"]


def matching(pattern: re.Pattern[str], expected: str) -> Check:
    """Make a check for strings of a pattern."""
    return lambda value: (
        [] if isinstance(value, str) and pattern.fullmatch(value) else [f"must be {expected}"]
    )


def one_of(*values: str) -> Check:
    """Make a check for an enumeration."""
    return lambda value: [] if value in values else [f"must be one of {', '.join(sorted(values))}"]


def boolean(value: object) -> Reasons:
    """True or false."""
    return [] if isinstance(value, bool) else ["must be a boolean"]


def whole(minimum: int) -> Check:
    """Make a check for whole numbers from a minimum on."""
    return lambda value: (
        [] if type(value) is int and value >= minimum else [f"must be a whole number of at least {minimum}"]
    )


def mapping(value: object) -> Reasons:
    """A JSON object of any content."""
    return [] if isinstance(value, dict) else ["must be an object"]


def either(first: Check, second: Check) -> Check:
    """Make a check that is content with one of two."""
    return lambda value: [] if not first(value) or not second(value) else first(value)


def optional(check: Check) -> Check:
    """Make a check that also takes null."""
    return lambda value: [] if value is None else check(value)


def texts(value: object) -> Reasons:
    """An array of strings."""
    is_fine = isinstance(value, list) and all(isinstance(item, str) for item in value)
    return [] if is_fine else ["must be an array of strings"]


def collections(value: object) -> Reasons:
    """An array of collection ids that is not empty."""
    if not isinstance(value, list) or not value:
        return ["must be a non-empty array"]
    wrong = [item for item in value if not isinstance(item, str) or not COLLECTION.fullmatch(item)]
    return [f"{item!r} is not a collection id" for item in wrong]


def nested(fields: Fields) -> Check:
    """Make a check for an object of known fields."""
    return lambda value: field_errors(value, fields) if isinstance(value, dict) else ["must be an object"]


def field_errors(body: JsonObject, fields: Fields) -> FieldErrors:
    """Collect what is wrong with a body: missing, unknown and malformed fields."""
    errors: FieldErrors = {name: ["is not a known field"] for name in body if name not in fields}
    for name, field in fields.items():
        if name in body:
            if reasons := field.check(body[name]):
                errors[name] = reasons
        elif field.is_required:
            errors[name] = ["is required"]
    return errors


def require(body: JsonObject, fields: Fields) -> None:
    """Refuse a body that is not exactly as declared."""
    if errors := field_errors(body, fields):
        raise invalid(errors)


uuid = matching(UUID, "a UUID")
slug = matching(SLUG, "letters, digits, dots, dashes and underscores")
provider = one_of(*PROVIDERS)
STRING, SECRET = Field(text), Field(text, is_required=True)
STRING_OR_NUMBER = Field(either(text, whole(0)))

KIND_FIELDS: Final[Mapping[str, Fields]] = {
    "airtable_oauth2": {
        "airtable_uid": STRING,
        "refresh_token": SECRET,
        "scope": Field(text, is_required=True),
    },
    "checkout_champ_password": {"login_id": Field(text, is_required=True), "password": SECRET},
    "github_app": {
        "account_login": STRING,
        "account_type": Field(one_of("User", "Organization", "user", "organization")),
        "installation_id": Field(either(whole(0), text), is_required=True),
        "name": STRING,
    },
    "hubspot_oauth2": {
        "hub_domain": STRING,
        "hub_id": STRING_OR_NUMBER,
        "refresh_token": SECRET,
        "scopes": Field(texts),
        "hubspot_user": STRING,
        "hubspot_user_id": STRING_OR_NUMBER,
    },
    "linear_oauth2": {
        "access_token": SECRET,
        "scope": STRING,
        "linear_org_id": STRING,
        "linear_org_name": STRING,
    },
    "salesforce_oauth2": {
        "instance_url": Field(text, is_required=True),
        "refresh_token": SECRET,
        "name": STRING,
    },
    "stripe_key": {"secret": SECRET, "name": STRING, "test": Field(boolean)},
    "stripe_oauth2": {
        "secret": STRING,
        "access_token": STRING,
        "refresh_token": STRING,
        "name": STRING,
        "test": Field(boolean),
    },
}


def properties(value: object) -> Reasons:
    """Credential properties: an object that its kind makes sense of."""
    if not isinstance(value, dict):
        return ["must be an object"]
    kind = value.get("kind")
    if not isinstance(kind, str) or provider_of(kind) not in PROVIDERS:
        return {"kind": ["is required and names a provider and a mechanism"]}
    if kind not in KIND_FIELDS:
        return {}
    errors = field_errors(value, {"kind": STRING, **KIND_FIELDS[kind]})
    if kind == "stripe_oauth2" and not errors and not {"secret", "access_token"} & value.keys():
        errors["secret"] = ["is required"]
    return errors


def provider_of(kind: str) -> str | None:
    """Return the provider a credential kind belongs to."""
    match = KIND.fullmatch(kind)
    return match[1] if match else None


CREDENTIAL: Final[Fields] = {
    "properties": Field(properties, is_required=True),
    "name": Field(optional(text)),
    "oauth_app_id": Field(optional(uuid)),
    "metadata": Field(mapping),
    "provider": Field(provider),
}
CREDENTIAL_UPDATE: Final[Fields] = {"name": Field(optional(text)), "metadata": Field(mapping)}
STREAM: Final[Fields] = {"slug": Field(slug, is_required=True)}
RATE_LIMIT: Final[Fields] = {
    "allowed_requests": Field(whole(1), is_required=True),
    "interval": Field(whole(1), is_required=True),
    "max_concurrent_requests": Field(whole(0)),
}
SYNC_UPDATE: Final[Fields] = {
    "name": STRING,
    "collection_ids": Field(collections),
    "rate_limit": Field(nested(RATE_LIMIT)),
    "status": Field(one_of("active", "disabled")),
    "max_age_days": Field(optional(whole(1))),
    "sync_frequency": Field(one_of("continuous", "4h")),
    "metadata": Field(mapping),
}
SYNC: Final[Fields] = {
    **{name: field for name, field in SYNC_UPDATE.items() if name != "status"},
    "provider": Field(provider, is_required=True),
    "stream_id": Field(uuid, is_required=True),
    "name": Field(text, is_required=True),
    "collection_ids": Field(collections, is_required=True),
    "credential": Field(nested(CREDENTIAL)),
    "credential_id": Field(uuid),
    "external_id": Field(optional(text)),
}
SYNC_IMMUTABLE: Final = frozenset(SYNC) - frozenset(SYNC_UPDATE)
FILL_ITEM: Final[Fields] = {
    "id": Field(uuid, is_required=True),
    "credential_id": Field(uuid, is_required=True),
    "name": Field(text, is_required=True),
    "collection_ids": Field(collections, is_required=True),
    "metadata": Field(mapping, is_required=True),
    "external_id": Field(text, is_required=True),
}


def fill_items(value: object) -> Reasons:
    """An array of what a filled server is to have."""
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        return ["must be an array of objects"]
    return next((errors for item in value if (errors := field_errors(item, FILL_ITEM))), [])


FILL: Final[Fields] = {
    "stream": Field(slug, is_required=True),
    "syncs": Field(fill_items, is_required=True),
}
