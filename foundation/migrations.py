"""Alembic, driven from code: every service applies its own migrations, however many start at once."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Literal

import structlog
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.autogenerate.api import AutogenContext
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import JSON, Connection, Enum, MetaData, text
from sqlmodel.sql.sqltypes import AutoString

from foundation.database import Database, UtcDateTime
from foundation.postgresql import MIGRATION_LIMIT, set_limits

log = structlog.get_logger(__name__)

MIGRATION_LOCK: Final = 0x6761_6E67  # any constant will do, as long as nobody else locks on it

_alembic = threading.Lock()
"""Alembic keeps what it is doing in its modules, so one thread of a process migrates at a time."""


class BrokenReferenceError(Exception):
    """A migration would leave rows of this table that refer to rows which are gone: a mistake of ours."""


def upgrade(database: Database, scripts: Path) -> None:
    """Bring the schema up to date in one transaction; a second process waits and then finds it done.

    A schema that a newer release has migrated stays as it is.
    """
    with _transaction(database) as connection:
        if not database.is_sqlite:
            _wait_for_our_turn(connection)
        heads = _heads_of(connection)
        if _is_newer(heads, _scripts(scripts)):
            log.warning("schema.newer", reason="a newer release has migrated this database")
            return
        config = _config(scripts)
        config.attributes["connection"] = connection
        with _alembic:
            command.upgrade(config, "head")
        if database.is_sqlite and _heads_of(connection) != heads:
            _check_references(connection)


@contextmanager
def _transaction(database: Database) -> Iterator[Connection]:
    """Open the transaction of a migration.

    SQLite changes a table by copying and dropping it, which it refuses for a table that rows refer to. So
    it does not enforce references here. That can be chosen only before a transaction begins.
    """
    with database.engine.connect() as connection:
        if database.is_sqlite:
            connection.connection.cursor().execute("PRAGMA foreign_keys=OFF")
        try:
            with connection.begin():
                yield connection
        finally:
            if database.is_sqlite:
                connection.connection.cursor().execute("PRAGMA foreign_keys=ON")


def _check_references(connection: Connection) -> None:
    """Raise if the migration left a row that refers to nothing; the transaction is rolled back then."""
    broken = connection.execute(text("PRAGMA foreign_key_check")).first()
    if broken is not None:
        raise BrokenReferenceError(str(broken[0]))


def _wait_for_our_turn(connection: Connection) -> None:
    """Wait for other migrations, then allow long statements, but no long waits that hold up everybody."""
    usual = connection.execute(text("SELECT current_setting('lock_timeout')")).scalar_one()
    set_limits(connection, {"statement_timeout": MIGRATION_LIMIT, "lock_timeout": MIGRATION_LIMIT})
    connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": MIGRATION_LOCK})
    set_limits(connection, {"lock_timeout": usual})


def draft(database: Database, scripts: Path, message: str, *, revision: str) -> None:
    """Write a new migration from what the models have and the database lacks."""
    with database.engine.begin() as connection:
        config = _config(scripts)
        config.attributes["connection"] = connection
        command.revision(config, message, autogenerate=True, rev_id=revision)


def render_item(kind: str, item: object, context: AutogenContext) -> str | Literal[False]:
    """Spell our own column types as the plain ones beneath them, so that migrations outlive our code."""
    if kind != "type":
        return False
    if isinstance(item, UtcDateTime):
        return "sa.DateTime(timezone=True)"
    if isinstance(item, JSON):
        context.imports.add("from sqlalchemy.dialects import postgresql")
        return 'sa.JSON().with_variant(postgresql.JSONB(), "postgresql")'
    if isinstance(item, Enum | AutoString):
        return f"sa.String(length={item.length})" if item.length else "sa.String()"
    return False


def is_current(database: Database, scripts: Path) -> bool:
    """Return whether the schema has at least what this code was written for.

    A release must keep working after `migrate` of the next one, whose revisions it cannot know. So a
    revision that is unknown here counts as newer.
    """
    directory = _scripts(scripts)
    with database.read() as session:  # not a write: probes ask often, and would take the writers' turns
        heads = _heads_of(session.connection())
    return _is_newer(heads, directory) or heads == set(directory.get_heads())


def _heads_of(connection: Connection) -> set[str]:
    return set(MigrationContext.configure(connection).get_current_heads())


def _is_newer(heads: set[str], directory: ScriptDirectory) -> bool:
    known = {script.revision for script in directory.walk_revisions()}
    return bool(heads - known)


def _scripts(scripts: Path) -> ScriptDirectory:
    return ScriptDirectory.from_config(_config(scripts))


def differences(database: Database, metadata: MetaData) -> Sequence[object]:
    """What a new migration would have to change; empty when models and migrations agree."""
    with database.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        return list(compare_metadata(context, metadata))


def _config(scripts: Path) -> Config:
    config = Config()
    config.set_main_option("script_location", str(scripts))
    config.set_main_option("path_separator", "os")
    return config
