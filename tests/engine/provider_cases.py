"""Each provider with something in it, and what tests of them share."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Any
from uuid import UUID

from sqlmodel import col, select, update

from engine.backfill.reader import Reader
from engine.changes.position import Position
from engine.oauth_apps import OAuthClient
from engine.tables import Progress, ReadingKind, Record
from foundation.database import Database, utc_now
from tests.peers.providers.github import GitHub
from tests.peers.providers.hubspot import HubSpot
from tests.peers.providers.salesforce import Salesforce
from tests.peers.providers.shopify import Shopify

FAST = {"allowed_requests": 1000, "interval": 1, "max_concurrent_requests": 0}


class KilledError(BaseException):
    """Stands in for SIGKILL: nothing of ours may catch it."""


@dataclass
class Change:
    """What has been done upstream, by collection and upstream id."""

    live: set[str]
    gone: set[str] = field(default_factory=set)


@dataclass
class Case:
    """A provider with something in it, and what a complete reading holds."""

    fake: Any
    properties: dict[str, Any]
    expected: dict[str, int]
    app: OAuthClient | None = None
    change: Callable[[Any, datetime], Change] | None = None
    """Creates, changes and deletes something at a moment."""

    @property
    def provider(self) -> str:
        return next(iter(self.expected)).partition(":")[0]


def hubspot(many: int = 250) -> Case:
    fake = HubSpot()
    fake.fill("/crm/objects/2026-03/contacts", many)
    fake.fill("/crm/objects/2026-03/companies", 100)
    fake.fill("/crm/owners/2026-03", 3)
    fake.fill("/crm/pipelines/2026-03/deals", 2)
    expected = {"hubspot:contact": many, "hubspot:company": 100, "hubspot:owner": 3, "hubspot:pipeline": 2}
    properties = {"kind": "hubspot_oauth2", "hub_id": 62515, "refresh_token": "refresh-1"}
    return Case(fake, properties, expected, OAuthClient(*fake.client), change_hubspot)


def change_hubspot(fake: HubSpot, at: datetime) -> Change:
    """Nearly all contacts within a second, more than a search may find, and one that is put away."""
    stamp, contacts = at.strftime("%Y-%m-%dT%H:%M:%S.000Z"), "/crm/objects/2026-03/contacts"
    fake.most_found = 200
    *changed, archived = (int(each["id"]) for each in fake.objects[contacts][5:])
    for number in changed:
        fake.put(contacts, number, stamp, email="changed")
    fake.put(contacts, 9000, stamp)
    fake.put("/crm/objects/2026-03/companies", 1001, stamp)
    fake.archive(contacts, archived, stamp)
    live = {f"contact/{number}" for number in (*changed, 9000)}
    return Change(live | {"company/1001"}, {f"contact/{archived}"})


def github(many: int = 120) -> Case:
    fake = GitHub()
    fake.add("choam/spice", issues=150, pulls=many, commits=many + 85, releases=1)
    fake.add("choam/water", issues=0, pulls=0, commits=3, releases=0)
    fake.add("choam/empty", pulls=0, releases=0)
    fake.broken = {"/repos/choam/empty/issues": 410, "/repos/choam/empty/commits": 409}
    expected = {
        "github:repository": 3,
        "github:issue": 100,  # the other third are pull requests
        "github:pull_request": many,
        "github:commit": many + 88,
        "github:release": 1,
    }
    properties = {"kind": "github_app", "installation_id": "77", "account_login": "choam"}
    return Case(fake, properties, expected, OAuthClient(fake.app_id, fake.private_key), change_github)


def change_github(fake: GitHub, at: datetime) -> Change:
    """Issues and pull requests of two repositories, and a commit that was made weeks before it was pushed."""
    stamp = at.strftime("%Y-%m-%dT%H:%M:%SZ")
    issues, pulls = fake.lists["/repos/choam/spice/issues"], fake.lists["/repos/choam/water/pulls"]
    issues[1] |= {"updated_at": stamp, "title": "changed"}
    issues[3] |= {"updated_at": stamp, "title": "a pull request"}
    issues.append({"id": 777, "created_at": stamp, "updated_at": stamp})
    pulls.append({"id": 888, "created_at": stamp, "updated_at": stamp})
    fake.lists["/repos/choam/spice/pulls"][5] |= {"updated_at": stamp, "title": "changed"}
    late = (at - timedelta(days=20)).strftime("%Y-%m-%dT%H:%M:%SZ")
    dates = {"author": {"date": late}, "committer": {"date": late}}
    fake.lists["/repos/choam/water/commits"].append({"sha": "f" * 40, "commit": dates})
    fake.repositories[1]["pushed_at"] = stamp
    changed = {"issue/10001", "issue/777", "pull_request/888", "pull_request/10005"}
    return Change({*changed, f"commit/2:{'f' * 40}"})


def salesforce(many: int = 450) -> Case:
    fake = Salesforce(batch=150)  # it may send less than was asked for
    fake.fill("Contact", many)
    fake.fill("Product2", 200)
    fake.fill("spice__c", 1)
    properties = {
        "kind": "salesforce_oauth2",
        "instance_url": "https://choam.my.salesforce.com",
        "refresh_token": "refresh-0",
    }
    expected = {"salesforce:contact": many, "salesforce:product2": 200, "salesforce:spice__c": 1}
    return Case(fake, properties, expected, OAuthClient(*fake.client), change_salesforce)


def change_salesforce(fake: Salesforce, at: datetime) -> Change:
    """A contact created, one changed and one in the recycle bin, all of the same instant."""
    stamp = at.strftime("%Y-%m-%dT%H:%M:%S.000+0000")
    fake.put("Contact", 900, stamp)
    fake.put("Contact", 17, stamp, Custom__c="changed")
    fake.put("Contact", 18, stamp, IsDeleted=True)
    fake.put("Contact", 901, stamp, IsDeleted=True)  # created and deleted: it was never here
    names = [f"contact/{fake.id_of('Contact', number)}" for number in (900, 17, 18)]
    return Change({*names[:2]}, {names[2]})


def shopify(many: int = 520) -> Case:
    fake = Shopify()
    fake.fill("/products", many)
    fake.fill("/orders", 1)
    fake.fill("/price_rules", 2)
    fake.fill("/price_rules/1/discount_codes", 260)
    fake.fill("/price_rules/2/discount_codes", 2, first=1000)
    expected = {"shopify:product": many, "shopify:order": 1, "shopify:discount_code": 262}
    properties = {"kind": "shopify_oauth2", "shop": "choam", "access_token": "shpat_1"}
    return Case(fake, properties, expected, None, change_shopify)


def change_shopify(fake: Shopify, at: datetime) -> Change:
    """A product created, one changed, one deleted, and an order deleted; times are of the shop's own zone."""
    fake.leak()
    stamp = at.astimezone(timezone(timedelta(hours=-5))).isoformat(timespec="seconds")
    fake.put("/products", 9000, stamp)
    fake.put("/products", 17, stamp, title="changed")
    fake.destroy("/products", 18, stamp, "Product")
    fake.destroy("/orders", 1, stamp, "Order")
    return Change({"product/9000", "product/17"}, {"product/18", "order/1"})


def held(database: Database, sync_path: str) -> dict[str, int]:
    """How many records the stream holds of each collection, each counted once."""
    statement = select(Record.collection_id, Record.upstream_id)
    with database.read() as session:
        rows = session.exec(statement.where(Record.sync_id == UUID(sync_path.rsplit("/", 1)[1]))).all()
    assert len(rows) == len(set(rows))
    names = [collection_id for collection_id, _ in rows]
    return {name: names.count(name) for name in names}


def look(database: Database, reader: Reader, sync_path: str) -> None:
    """As if the time of every look for changes, and for what is gone, had come."""
    sync_id = UUID(sync_path.rsplit("/", 1)[1])
    with database.write() as session:
        wanted = select(Progress).where(Progress.sync_id == sync_id, Progress.kind == ReadingKind.SINCE)
        looks = session.exec(wanted).all()
        for progress in looks:
            position = Position.of(progress.position)
            swept_at = position.gone_since and position.gone_since - timedelta(days=1)
            progress.position = position.model_copy(update={"gone_since": swept_at}).stored()
        ids = [progress.id for progress in looks]
    make_due(database, *ids)
    while ids:
        ids = list(reader.read(ids))


def records_of(database: Database, sync_path: str) -> dict[str, Record]:
    """What the stream holds, by collection and upstream id."""
    with database.read() as session:
        found = session.exec(select(Record).where(Record.sync_id == UUID(sync_path.rsplit("/", 1)[1]))).all()
    return {f"{each.collection_id.partition(':')[2]}/{each.upstream_id}": each for each in found}


def make_due(database: Database, *progress_ids: UUID) -> None:
    """As if the wait were over and any lease had run out."""
    with database.write() as session:
        due = update(Progress).where(col(Progress.id).in_(progress_ids))
        session.exec(due.values(due_at=utc_now(), leased_until=None, hinted_until=None))
