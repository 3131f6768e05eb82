"""The engine's own schema: its migrations, and whether they have been applied."""

from pathlib import Path
from typing import Final

from engine.settings import Settings
from foundation.database import Database
from foundation.migrations import is_current, upgrade

MIGRATIONS: Final = Path(__file__).parent / "migrations"


class SchemaError(Exception):
    """The database is not ready for this release."""


def migrate(database: Database) -> None:
    upgrade(database, MIGRATIONS)


def open_database(settings: Settings, *, pool_size: int = 10) -> Database:
    """The database, if its schema is the one this code was written for."""
    database = Database(settings.database_url.get_secret_value(), pool_size=pool_size)
    if not is_current(database, MIGRATIONS):
        database.dispose()
        raise SchemaError("the database schema is not current: run `python -m engine migrate` first")
    return database
