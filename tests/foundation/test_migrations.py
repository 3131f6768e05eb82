"""Migrations: they say the same as the models, and any number of processes may apply them at once."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import inspect, text

from foundation.database import Database
from foundation.migrations import differences, is_current, upgrade
from models import MIGRATIONS, Row

UPGRADE = (
    "import sys; from foundation.database import Database; from foundation.migrations import upgrade;"
    "from models import MIGRATIONS; upgrade(Database(sys.argv[1]), MIGRATIONS)"
)
TABLES = {"tenant", "connection", "work", "change_cursor", "inbound_event", "transition", "attempt"}


@pytest.fixture
def empty(empty_database_url: str) -> Iterator[Database]:
    database = Database(empty_database_url)
    yield database
    database.dispose()


def tables(database: Database) -> set[str]:
    return set(inspect(database.engine).get_table_names()) - {"alembic_version"}


def test_models_and_migrations_agree(database: Database) -> None:
    """A migrated database has what the models say, and nothing a new migration would have to change."""
    assert differences(database, Row.metadata) == []
    assert tables(database) == TABLES == set(Row.metadata.tables)


def test_difference_is_noticed(empty: Database) -> None:
    """The comparison is no formality: a missing column is found."""
    upgrade(empty, MIGRATIONS)
    with empty.write() as session:
        session.execute(text("ALTER TABLE attempt DROP COLUMN error_message"))

    assert differences(empty, Row.metadata)


def test_is_current_only_once_migrated(empty: Database) -> None:
    """An empty database is not current, a migrated one is."""
    assert not is_current(empty, MIGRATIONS)

    upgrade(empty, MIGRATIONS)

    assert is_current(empty, MIGRATIONS)


def test_upgrading_again_changes_nothing(database: Database) -> None:
    """Every start may upgrade."""
    upgrade(database, MIGRATIONS)

    assert is_current(database, MIGRATIONS)


def test_processes_may_upgrade_at_once(empty: Database) -> None:
    """Several processes that start together on an empty database all end well, with one schema."""
    url = empty.url.render_as_string(hide_password=False)
    command = [sys.executable, "-c", UPGRADE, url]

    processes = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    outcomes = [(process.communicate(timeout=60)[1], process.returncode) for process in processes]

    assert [status for _, status in outcomes] == [0] * 3, outcomes
    assert is_current(empty, MIGRATIONS)
    assert tables(empty) == TABLES


def test_threads_may_upgrade_at_once(empty_database_url: str) -> None:
    """So do several threads with databases of their own, as in a web process and a test."""
    databases = [Database(empty_database_url) for _ in range(3)]

    with ThreadPoolExecutor(3) as threads:
        for done in [threads.submit(upgrade, each, MIGRATIONS) for each in databases]:
            done.result(timeout=60)

    assert is_current(databases[0], MIGRATIONS)
    for each in databases:
        each.dispose()


def test_threads_may_upgrade_different_databases_at_once(tmp_path: Path) -> None:
    """What Alembic keeps of one migration does not get into the way of another."""
    databases = [Database(f"sqlite:///{tmp_path}/{number}.db") for number in range(4)]

    with ThreadPoolExecutor(4) as threads:
        for done in [threads.submit(upgrade, each, MIGRATIONS) for each in databases]:
            done.result(timeout=60)

    assert all(is_current(each, MIGRATIONS) for each in databases)
    for each in databases:
        each.dispose()


def test_failed_migration_leaves_nothing(empty: Database) -> None:
    """A migration that breaks halfway leaves the schema as it was."""
    with empty.write() as session:
        session.execute(text("CREATE TABLE attempt (id INTEGER)"))  # in the way of the real one

    with pytest.raises(Exception, match="already exists"):
        upgrade(empty, MIGRATIONS)

    assert tables(empty) == {"attempt"}
    assert not is_current(empty, MIGRATIONS)


def stamp(database: Database, revision: str) -> None:
    """Write down a revision as a migration does."""
    with database.write() as session:
        session.execute(text("UPDATE alembic_version SET version_num = :revision"), {"revision": revision})


def test_a_schema_of_the_next_release_is_current(database: Database) -> None:
    """Processes of this release go on, and may start again, after the next one has migrated."""
    stamp(database, "9999_of_the_next_release")

    assert is_current(database, MIGRATIONS)
    upgrade(database, MIGRATIONS)  # its own `migrate`, after a step back, has nothing to do

    assert is_current(database, MIGRATIONS)
    with database.read() as session:
        stamped = session.execute(text("SELECT version_num FROM alembic_version")).scalar_one()
    assert stamped == "9999_of_the_next_release"
    stamp(database, heads(MIGRATIONS))


def test_a_schema_of_an_earlier_release_is_not(database: Database, tmp_path: Path) -> None:
    """A revision that this code knows, and has moved on from, is not enough."""
    scripts = tmp_path / "migrations"
    shutil.copytree(MIGRATIONS, scripts)
    last = heads(MIGRATIONS)
    (scripts / "versions" / "next.py").write_text(
        f'revision = "next"\ndown_revision = "{last}"\n\n\ndef upgrade() -> None:\n    pass\n'
    )

    assert not is_current(database, scripts)
    upgrade(database, scripts)

    assert is_current(database, scripts)
    assert is_current(database, MIGRATIONS)
    stamp(database, last)


def test_asking_waits_for_no_writer(database: Database) -> None:
    """Probes keep nobody from writing, and get their answer while somebody does."""
    with database.write() as session:
        session.execute(text("DELETE FROM tenant"))

        assert is_current(database, MIGRATIONS)


def heads(scripts: Path) -> str:
    config = Config()
    config.set_main_option("script_location", str(scripts))
    config.set_main_option("path_separator", "os")
    (head,) = ScriptDirectory.from_config(config).get_heads()
    return head
