"""Accounts with something in them, what a complete reading of each holds, and what happens then."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from engine.oauth_apps import OAuthClient
from engine.tables import ReadingKind
from tests.peers.providers.airtable import Airtable
from tests.peers.providers.auth0 import Auth0
from tests.peers.providers.linear import Linear
from tests.peers.providers.marketo import Marketo
from tests.peers.providers.netsuite import NetSuite
from tests.peers.providers.quickbooks import QuickBooks
from tests.peers.providers.sendgrid import SendGrid
from tests.peers.providers.servicenow import ServiceNow

CLIENT: Final = OAuthClient("client-1", "client-secret-1")
Held = dict[str, dict[str, Any]]
"""Collection to upstream id to record."""


@dataclass
class Case:
    """A provider with something in it, what a complete reading holds, and something that happens then."""

    fake: Any
    properties: dict[str, Any]
    upstream: Callable[[], Held]
    change: Callable[[], None]
    app: OAuthClient | None = None
    told_by: ReadingKind = ReadingKind.SINCE


def by(key: str, found: list[dict[str, Any]], scope: str = "") -> dict[str, Any]:
    return {f"{scope}{each[key]}": each for each in found}


def now(spelling: str) -> str:
    return datetime.now(UTC).strftime(spelling)


def airtable() -> Case:
    fake = Airtable(bases_at_once=2)
    fake.fill("app1", "tbl1", 250)
    fake.fill("app1", "tbl2", 0)
    fake.fill("app2", "tbl1", 1)  # a copy of the first, with the same ids
    fake.fill("app3", "tbl3", 100)

    def upstream() -> Held:
        lists = {
            f"{base}:{table}:": found for base, each in fake.bases.items() for table, found in each.items()
        }
        return {
            "airtable:base": {
                each: {"id": each, "name": each, "permissionLevel": "read"} for each in fake.bases
            },
            "airtable:table": {
                f"{base}:{each}": {"id": each, "name": each, "fields": []}
                for base, tables in fake.bases.items()
                for each in tables
            },
            "airtable:record": {
                id_: each for scope, found in lists.items() for id_, each in by("id", found, scope).items()
            },
        }

    def change() -> None:
        moment = now("%Y-%m-%dT%H:%M:%S.000Z")
        fake.bases["app1"]["tbl1"][249]["fields"] = {"Name": "changed"}
        fake.modified[fake.bases["app1"]["tbl1"][249]["id"]] = moment
        fake.bases["app3"]["tbl3"].append({"id": "recNew", "createdTime": moment, "fields": {}})

    properties = {
        "kind": "airtable_oauth2",
        "refresh_token": "refresh-0",
        "scope": "data.records:read",
        "airtable_uid": "usr1",
    }
    return Case(fake, properties, upstream, change, CLIENT)


def auth0() -> Case:
    fake = Auth0(shown=150)

    def user(number: int) -> dict[str, Any]:
        created = f"2025-01-01T00:00:{number // 9:02}.000Z"  # nine at once
        if number >= 160:
            created = "2025-02-01T00:00:00.000Z"  # many at once, as an import makes them
        return {"user_id": f"auth0|{number}", "created_at": created, "updated_at": "2025-03-01T00:00:00.000Z"}

    fake.objects = {
        "users": [user(number) for number in range(270)],
        "clients": [{"client_id": f"c{each}", "name": "n", "client_secret": "hush"} for each in range(120)],
        "connections": [{"id": "con_1", "options": {"client_secret": "hush"}}],
        "organizations": [{"id": f"org_{each}", "name": "n"} for each in range(2)],
        "organizations/org_0/members": [{"user_id": f"auth0|{each}"} for each in range(60)],
        "organizations/org_1/members": [{"user_id": "auth0|1"}],
        "client-grants": [],
        "roles": [{"id": f"rol_{each}", "name": "n"} for each in range(51)],
        "actions/actions": [{"id": "act_1", "created_at": "2025-01-01T00:00:00.000Z"}],
        "logs": [
            {"log_id": f"9002025{each}", "date": f"2025-01-01T00:00:00.{each:03}Z"} for each in range(230)
        ],
    }
    hidden = ("client_secret", "options")

    def shown(name: str, key: str, scope: str = "") -> dict[str, Any]:
        clean = [
            {each: value for each, value in one.items() if each not in hidden} for one in fake.objects[name]
        ]
        return by(key, clean, scope)

    def upstream() -> Held:
        members = {f"organizations/org_{each}/members": f"org_{each}:" for each in range(2)}
        return {
            "auth0:user": shown("users", "user_id"),
            "auth0:client": shown("clients", "client_id"),
            "auth0:connection": shown("connections", "id"),
            "auth0:organization_member": {
                name: each
                for path, scope in members.items()
                for name, each in shown(path, "user_id", scope).items()
            },
            "auth0:client_grant": {},
            "auth0:role": shown("roles", "id"),
            "auth0:action": shown("actions/actions", "id"),
            "auth0:log": shown("logs", "log_id"),
        }

    def change() -> None:
        moment = now("%Y-%m-%dT%H:%M:%S.000Z")
        fake.objects["users"][7] |= {"name": "changed", "updated_at": moment}
        fake.objects["users"].append({"user_id": "auth0|new", "created_at": moment, "updated_at": moment})
        fake.objects["logs"].append({"log_id": "9002026", "date": moment})

    properties = {
        "kind": "auth0_app",
        "domain": fake.host,
        "client_id": "client-1",
        "client_secret": "client-secret-1",
    }
    return Case(fake, properties, upstream, change)


def quickbooks() -> Case:
    fake = QuickBooks()
    fake.fill("Customer", 1010, at_once=1005)  # more at the same second than a page holds
    fake.fill("Invoice", 2)
    fake.fill("Vendor", 0)

    def upstream() -> Held:
        return {f"quickbooks:{name.lower()}": by("Id", found) for name, found in fake.objects.items()}

    def change() -> None:
        moment = now("%Y-%m-%dT%H:%M:%S+00:00")
        fake.delete("Invoice", "1", moment)
        fake.objects["Customer"][3] |= {
            "Active": False,
            "MetaData": {"CreateTime": moment, "LastUpdatedTime": moment},
        }

    properties = {"kind": "quickbooks_oauth2", "realm_id": int(fake.realm_id), "refresh_token": "refresh-0"}
    return Case(fake, properties, upstream, change, CLIENT)


def sendgrid() -> Case:
    fake = SendGrid(at_once=10)
    fake.objects = {
        "/marketing/lists": [{"id": f"list-{each}", "name": "n"} for each in range(25)],
        "/templates": [{"id": "d-1", "generation": "dynamic", "updated_at": "2025-01-01 00:00:00"}],
        "/marketing/field_definitions": [],
        "/teammates": [{"username": "leto", "email": "leto@example.com"}],
        "/asm/groups": [{"id": 1, "name": "n"}],
    }
    fake.suppress("bounces", *(f"a{each}@example.com" for each in range(501)))
    fake.suppress("unsubscribes", "b@example.com")

    def upstream() -> Held:
        return {
            "sendgrid:list": by("id", fake.objects["/marketing/lists"]),
            "sendgrid:template": by("id", fake.objects["/templates"]),
            "sendgrid:custom_field": {},
            "sendgrid:teammate": by("username", fake.objects["/teammates"]),
            "sendgrid:unsubscribe_group": by("id", fake.objects["/asm/groups"]),
            "sendgrid:bounce": by("email", fake.objects["/suppression/bounces"]),
            "sendgrid:global_unsubscribe": by("email", fake.objects["/suppression/unsubscribes"]),
        }

    def change() -> None:
        fake.suppress("bounces", "new@example.com", created=int(datetime.now(UTC).timestamp()))

    return Case(fake, {"kind": "sendgrid_key", "secret": "SG.key-1"}, upstream, change)


def servicenow() -> Case:
    fake = ServiceNow(hidden={f"{number:032x}" for number in range(400, 1010)})  # a page, and more
    fake.fill("incident", 1100)
    fake.fill("cmdb_ci", 2)
    fake.fill("u_spice", 1)

    def upstream() -> Held:
        return {
            f"servicenow:{table}": by("sys_id", [each for each in found if each["sys_id"] not in fake.hidden])
            for table, found in fake.objects.items()
        }

    def change() -> None:
        fake.objects["incident"][0] |= {"state": "6", "sys_updated_on": now("%Y-%m-%d %H:%M:%S")}

    properties = {"kind": "servicenow_oauth2", "instance": "choam", "refresh_token": "refresh-0"}
    return Case(fake, properties, upstream, change, CLIENT)


def marketo() -> Case:
    fake = Marketo(at_once=3)
    fake.fill("programs", 201)
    fake.fill("snippets", 0)
    fake.fill("activities/types", 3)
    fake.fill("lists", 4)
    fake.fill("list/1001/leads", 7, first=1)
    fake.fill("list/1002/leads", 0)
    fake.fill("list/1003/leads", 3, first=7)
    fake.fill("list/1004/leads", 1, first=1)

    def upstream() -> Held:
        leads = {f"{each}:": fake.objects[f"list/{each}/leads"] for each in range(1001, 1005)}
        return {
            "marketo:program": by("id", fake.objects["programs"]),
            "marketo:snippet": {},
            "marketo:activity_type": by("id", fake.objects["activities/types"]),
            "marketo:list_lead": {
                name: each for scope, found in leads.items() for name, each in by("id", found, scope).items()
            },
        }

    def change() -> None:
        fake.objects["programs"][0] |= {"name": "changed", "updatedAt": now("%Y-%m-%dT%H:%M:%SZ+0000")}

    properties = {
        "kind": "marketo_app",
        "munchkin_id": "123-ABC-456",
        "client_id": "client-1",
        "client_secret": "client-secret-1",
    }
    return Case(fake, properties, upstream, change)


def linear() -> Case:
    fake = Linear()
    lists = {"issue": "issues", "user": "users", "comment": "comments", "webhook": "webhooks"}
    for name, count in {
        "issues": 250,
        "users": 2,
        "comments": 100,
        "webhooks": 1,
        "projectMilestones": 0,
    }.items():
        fake.fill(name, count)

    def upstream() -> Held:
        shown = {name: fake.shown(each) if each in fake.selections else {} for name, each in lists.items()}
        return {f"linear:{name}": each for name, each in shown.items()} | {"linear:milestone": {}}

    def change() -> None:
        moment = now("%Y-%m-%dT%H:%M:%S.000Z")
        fake.objects["issues"][3] |= {"title": "changed", "updatedAt": moment}
        fake.objects["issues"][4] |= {"trashed": True, "archivedAt": moment, "updatedAt": moment}
        fake.add("comments", "comments-new", moment)

    properties = {"kind": "linear_oauth2", "access_token": "spent", "refresh_token": "refresh-0"}
    return Case(fake, properties, upstream, change, CLIENT)


def netsuite() -> Case:
    fake = NetSuite(at_once=100)
    fake.fill("customer", 250)
    fake.fill("employee", 20, first=-5)  # some belong to the system
    fake.fill("vendor", 0)
    fake.fill("customrecord_spice", 3)

    def upstream() -> Held:
        return {f"netsuite:{table}": by("id", found) for table, found in fake.objects.items()}

    def change() -> None:
        fake.objects["customer"][7]["companyname"] = "changed"

    properties = {
        "kind": "netsuite_app",
        "account_id": "1234567-SB1",
        "client_id": "client-1",
        "certificate_id": "certificate-1",
        "private_key": fake.private_key,
    }
    return Case(fake, properties, upstream, change, told_by=ReadingKind.PASS)


CASES = [linear, netsuite, airtable, auth0, quickbooks, sendgrid, servicenow, marketo]
