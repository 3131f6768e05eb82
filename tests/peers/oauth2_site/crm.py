"""What the tokens give access to: contacts and owners in the page format of HubSpot's CRM."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

CONTACTS: Final = "/crm/v3/objects/contacts"
OWNERS: Final = "/crm/v3/owners"
FIRST_DAY: Final = datetime(2024, 1, 1, tzinfo=UTC)


class InvalidError(Exception):
    """A request that the real one would refuse too."""


class Crm:
    """One account's objects, by the path of their list, oldest first."""

    def __init__(self, contacts: int = 120, owners: int = 3) -> None:
        self.objects = {
            CONTACTS: [contact(number) for number in range(contacts)],
            OWNERS: [owner(number) for number in range(owners)],
        }

    def change(self, number: int, properties: Mapping[str, str]) -> dict[str, Any]:
        """Change some properties of a contact, now."""
        changed = self.objects[CONTACTS][number]
        now = stamp(datetime.now(UTC))
        changed["properties"] |= {**properties, "lastmodifieddate": now}
        changed["updatedAt"] = now
        return changed

    def page(self, path: str, asked: Mapping[str, str]) -> dict[str, Any]:
        """The page of a list that `after` and `limit` describe."""
        return cut(self._all(path), int(asked.get("after", 0)), int(asked.get("limit", 10)))

    def search(self, path: str, asked: Mapping[str, Any]) -> dict[str, Any]:
        """What was changed since a moment, oldest change first: the one search that syncs need."""
        filters = [each for group in asked.get("filterGroups", []) for each in group["filters"]]
        found = [each for each in self._all(path) if all(matches(each, given) for given in filters)]
        found.sort(key=lambda each: (each["updatedAt"], each["id"]))
        return {"total": len(found)} | cut(found, int(asked.get("after", 0)), int(asked.get("limit", 10)))

    def _all(self, path: str) -> list[dict[str, Any]]:
        if path not in self.objects:
            raise InvalidError(f"there is no {path}")
        return self.objects[path]


def cut(found: list[dict[str, Any]], after: int, limit: int) -> dict[str, Any]:
    """A page, and what leads to the next."""
    if not 1 <= limit <= 100:
        raise InvalidError("limit")
    end = after + limit
    paging = {"paging": {"next": {"after": str(end)}}} if end < len(found) else {}
    return {"results": found[after:end], **paging}


def matches(found: Mapping[str, Any], given: Mapping[str, Any]) -> bool:
    """Whether an object passes a filter, which names its property, operator and value."""
    if given["operator"] not in {"GT", "GTE"}:
        raise InvalidError(f"operator {given['operator']}")
    value = instant(found["properties"][given["propertyName"]])
    since = instant(str(given["value"]))
    return value > since if given["operator"] == "GT" else value >= since


def instant(value: str) -> datetime:
    """A moment, in ISO 8601 or as milliseconds since 1970."""
    if value.isdecimal():
        return datetime.fromtimestamp(int(value) / 1_000, UTC)
    return datetime.fromisoformat(value)


def stamp(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def contact(number: int) -> dict[str, Any]:
    created = stamp(FIRST_DAY + timedelta(minutes=number))
    properties = {
        "hs_object_id": str(1_000 + number),
        "email": f"contact-{number}@example.com",
        "createdate": created,
        "lastmodifieddate": created,
    }
    return {
        "id": str(1_000 + number),
        "properties": properties,
        "createdAt": created,
        "updatedAt": created,
        "archived": False,
    }


def owner(number: int) -> dict[str, Any]:
    created = stamp(FIRST_DAY + timedelta(days=number))
    return {
        "id": str(10 + number),
        "email": f"owner-{number}@example.com",
        "createdAt": created,
        "updatedAt": created,
        "archived": False,
    }
