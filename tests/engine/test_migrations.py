"""Migrations of the engine on a database that has rows."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from alembic import command
from sqlalchemy import make_url, text
from sqlmodel import select

from engine.schema import MIGRATIONS, migrate
from engine.sync_changes import changes_after
from engine.tables import ApiToken, Organization, Sync
from foundation import migrations
from foundation.database import Database, utc_now
from tests.engine.conftest import run

OLD_ROWS = (
    "INSERT INTO organization (id, created_at, name, sealed_fingerprint_key) VALUES (:org, :now, 'a', 'k')",
    "INSERT INTO api_token (id, created_at, org_id, name, token_hash, scopes) "
    "VALUES (:org, :now, :org, 'bootstrap', 'h', '[]')",
    "INSERT INTO stream (id, created_at, org_id, updated_at, slug, last_idx) "
    "VALUES (:org, :now, :org, :now, 's', 0)",
    "INSERT INTO sync (id, created_at, org_id, updated_at, stream_id, provider, name, status, "
    "collection_ids, rate_limit, sync_frequency, metadata, health_status, removed_at, keeps_records) "
    "VALUES (:live, :now, :org, :now, :org, 'stripe', 'n', 'active', '[]', "
    "'{}', 'continuous', '{}', 'healthy', NULL, true),"
    "(:gone, :now, :org, :now, :org, 'stripe', 'n', 'active', '[]', "
    "'{}', 'continuous', '{}', 'healthy', :now, true)",
)


@pytest.fixture(params=["sqlite", "postgresql"])
def empty(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """A database without any table."""
    if request.param == "sqlite":
        database = Database(f"sqlite:///{tmp_path / 'empty.db'}")
        yield database
        database.dispose()
        return
    server: str = request.getfixturevalue("postgresql_server")
    name = f"empty_{uuid4().hex}"
    run(server, f"CREATE DATABASE {name}")
    database = Database(make_url(server).set(database=name))
    yield database
    database.dispose()
    run(server, f"DROP DATABASE {name} WITH (FORCE)")


def upgrade_to(database: Database, revision: str) -> None:
    with database.engine.begin() as connection:
        config = migrations._config(MIGRATIONS)
        config.attributes["connection"] = connection
        command.upgrade(config, revision)


def test_syncs_of_before_are_in_the_feed(empty: Database) -> None:
    """A follower finds those that are there, and those deleted whose rows are still kept."""
    upgrade_to(empty, "0001")
    ids = {name: uuid4() for name in ("org", "live", "gone")}
    parameters: dict[str, Any] = {name: each.hex for name, each in ids.items()}
    parameters["now"] = utc_now() if not empty.is_sqlite else str(utc_now()).removesuffix("+00:00")
    with empty.write() as session:
        for statement in OLD_ROWS:
            session.execute(text(statement), parameters)

    migrate(empty)

    with empty.read() as session:
        page = changes_after(session, ids["org"], None, 10, on_sqlite=empty.is_sqlite)
        assert {change.sync_id: change.deleted_at is not None for change, _, _ in page.entries} == {
            ids["live"]: False,
            ids["gone"]: True,
        }
        assert session.exec(select(ApiToken.from_settings)).all() == [True]
    with empty.write() as session:
        session.get_one(Sync, ids["live"]).name = "Renamed"
    with empty.read() as session:
        later = changes_after(session, ids["org"], page.position, 10, on_sqlite=empty.is_sqlite)
        assert [change.sync_id for change, _, _ in later.entries] == [ids["live"]]


def test_the_release_before_goes_on(empty: Database) -> None:
    """Its inserts name no column that is new."""
    migrate(empty)

    with empty.write() as session:
        session.execute(
            text(OLD_ROWS[0]),
            {"org": uuid4().hex, "now": utc_now() if not empty.is_sqlite else "2026-01-01 00:00:00.000000"},
        )
        assert session.exec(select(Organization.sync_changes_forgotten)).one() == 0


def test_down_and_up_again(empty: Database) -> None:
    """A downgrade leaves nothing of the feed behind."""
    migrate(empty)
    with empty.engine.begin() as connection:
        config = migrations._config(MIGRATIONS)
        config.attributes["connection"] = connection
        command.downgrade(config, "0001")

    migrate(empty)

    assert migrations.is_current(empty, MIGRATIONS)
