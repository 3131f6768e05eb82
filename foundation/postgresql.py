"""PostgreSQL with bounded waits: for connections, a silent network, statements, locks, idle transactions."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

from sqlalchemy import Engine, ExceptionContext, create_engine, event, text
from sqlalchemy.engine import URL, Connection

NETWORK: Final[Mapping[str, str]] = {
    "connect_timeout": "5",  # seconds, as all of libpq's but the last
    "keepalives": "1",
    "keepalives_idle": "5",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "15000",  # milliseconds
}
"""Find out within seconds that the server, or the way to it, is gone."""
LIMITS: Final[Mapping[str, str]] = {
    "statement_timeout": "30s",
    "lock_timeout": "10s",
    "idle_in_transaction_session_timeout": "60s",
}
"""Our transactions take milliseconds, so what takes longer is stuck and keeps others waiting."""
MIGRATION_LIMIT: Final = "1h"
PREPARE: Final = "prepare_threshold"
READ_ONLY: Final = "25006"


@dataclass(frozen=True)
class PostgresqlOptions:
    """What a URL says about a connection, with our defaults for all that it leaves open."""

    url: URL
    arguments: Mapping[str, Any]
    """For psycopg."""
    limits: Mapping[str, str]
    """For the server."""
    is_pooled: bool
    """Each transaction may meet another session of the server, as behind PgBouncer in transaction mode."""

    @classmethod
    def of(cls, url: URL) -> Self:
        """Read the URL; raises `ValueError` for an option that cannot be used."""
        query = {name: value if isinstance(value, str) else value[-1] for name, value in url.query.items()}
        own = {name: query[name] for name in LIMITS if name in query}
        elsewhere = [name for name in LIMITS if name in query.get("options", "")]
        limits = {name: value for name, value in {**LIMITS, **own}.items() if name not in elsewhere}
        arguments: dict[str, Any] = {name: value for name, value in NETWORK.items() if name not in query}
        if PREPARE in query:
            arguments[PREPARE] = _prepare_threshold(query[PREPARE])
        plain = url.difference_update_query([PREPARE, *own]).set(drivername="postgresql+psycopg")
        return cls(plain, arguments, limits, arguments.get(PREPARE, 1) is None)


def postgresql_engine(url: URL, *, pool_size: int) -> Engine:
    """Create an engine with bounded waits. Values given in the URL win over ours."""
    options = PostgresqlOptions.of(url)
    engine = create_engine(
        options.url,
        pool_size=pool_size,
        max_overflow=pool_size,
        pool_pre_ping=True,
        hide_parameters=True,
        connect_args=dict(options.arguments),
    )
    event.listen(engine, "handle_error", _drop_read_only)
    if options.is_pooled:
        event.listen(engine, "begin", lambda connection: set_limits(connection, options.limits))
    else:
        event.listen(
            engine, "connect", lambda connection, _record: _limit_session(connection, options.limits)
        )
    return engine


def set_limits(connection: Connection, limits: Mapping[str, str]) -> None:
    """Set limits that end with the transaction."""
    for name, value in limits.items():
        connection.execute(text("SELECT set_config(:name, :value, true)"), {"name": name, "value": value})


def _limit_session(connection: Any, limits: Mapping[str, str]) -> None:
    """Set them by statements: poolers refuse unknown options of a connection that begins."""
    with connection.cursor() as cursor:
        for name, value in limits.items():
            cursor.execute("SELECT set_config(%s, %s, false)", (name, value))
    connection.commit()


def _drop_read_only(context: ExceptionContext) -> None:
    """After a switchover pooled connections still lead to the old primary: replace all of them."""
    if getattr(context.original_exception, "sqlstate", None) == READ_ONLY:
        context.is_disconnect = True


def _prepare_threshold(value: str) -> int | None:
    """Poolers' manuals turn prepared statements off with 0; for psycopg that would be None."""
    if value.lower() in ("0", "none"):
        return None
    if not value.isdecimal():
        raise ValueError(f"{PREPARE}: expected a number, 0 for no prepared statements")
    return int(value)
