"""the feed of changed syncs, and which tokens the settings gave

Revision 0002, after 0001. Adds only, so that the release before goes on working beside it; its changes of
syncs are noted too, as triggers note them.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

SHOWN = (
    *("id", "org_id", "created_at", "updated_at", "stream_id", "credential_id", "provider", "name", "status"),
    *("collection_ids", "rate_limit", "max_age_days", "sync_frequency", "metadata", "external_id"),
    *("health_status", "health_reason", "initial_backfill_completed_at", "removed_at"),
)
"""The columns that the API shows: a change of any of them is a change of the sync."""

# A transaction id orders changes by when they became visible: whoever reads only what is below the oldest
# transaction that still runs (`pg_snapshot_xmin`) meets every change once its turn has come, and none later.
XID = "pg_current_xact_id()::text::bigint"
OPEN_FEED = """
INSERT INTO sync_feed (id, epoch, home, last_change)
SELECT 1, replace(gen_random_uuid()::text, '-', ''), concat_ws('/',
  (SELECT system_identifier FROM pg_control_system()), (SELECT timeline_id FROM pg_control_checkpoint()), oid
), 0 FROM pg_database WHERE datname = current_database()
"""
FUNCTION = "CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {body} RETURN NULL; END $$"

KEPT = ("provider", "stream_id", "external_id", "metadata")
NOTE = """
INSERT INTO sync_change (sync_id, org_id, change, deleted_at, provider, stream_id, external_id, metadata)
VALUES (NEW.id, NEW.org_id, {change}, NEW.removed_at, {kept})
ON CONFLICT (sync_id) DO UPDATE SET change = excluded.change, deleted_at = excluded.deleted_at, {again};
"""
NOTE_DELETED = """
UPDATE sync_change SET change = {change}, deleted_at = {now}, {kept}
WHERE sync_id = OLD.id AND deleted_at IS NULL;
"""
FILL = """
INSERT INTO sync_change (sync_id, org_id, change, deleted_at, provider, stream_id, external_id, metadata)
SELECT id, org_id, {change}, removed_at, {kept} FROM sync
"""
COUNT = "UPDATE sync_feed SET last_change = last_change + 1 WHERE id = 1;"
COUNTED = "(SELECT last_change FROM sync_feed WHERE id = 1)"


def upgrade() -> None:
    op.add_column(
        "api_token", sa.Column("from_settings", sa.Boolean(), nullable=False, server_default=sa.false())
    )
    op.execute("UPDATE api_token SET from_settings = true WHERE name = 'bootstrap'")
    op.add_column(
        "organization",
        sa.Column("sync_changes_forgotten", sa.BigInteger(), nullable=False, server_default=sa.text("0")),
    )
    op.create_table(
        "sync_feed",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("epoch", sa.String(), nullable=False),
        sa.Column("home", sa.String(), nullable=True),
        sa.Column("last_change", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_sync_feed")),
    )
    op.create_table(
        "sync_change",
        sa.Column("sync_id", sa.Uuid(), nullable=False),
        sa.Column("org_id", sa.Uuid(), nullable=False),
        sa.Column("change", sa.BigInteger(), nullable=False),
        sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("provider", sa.String(), nullable=True),
        sa.Column("stream_id", sa.Uuid(), nullable=True),
        sa.Column("external_id", sa.String(), nullable=True),
        sa.Column("metadata", sa.JSON().with_variant(postgresql.JSONB(), "postgresql"), nullable=True),
        sa.ForeignKeyConstraint(["org_id"], ["organization.id"], name=op.f("fk_sync_change_org_id")),
        sa.PrimaryKeyConstraint("sync_id", name=op.f("pk_sync_change")),
    )
    if op.get_bind().dialect.name == "sqlite":
        _upgrade_sqlite()
    else:
        _upgrade_postgresql()
    op.create_index("ix_sync_change_order", "sync_change", ["org_id", "change", "sync_id"], unique=True)
    op.create_index(
        "ix_sync_change_deleted_at",
        "sync_change",
        ["deleted_at"],
        sqlite_where=sa.text("deleted_at IS NOT NULL"),
        postgresql_where=sa.text("deleted_at IS NOT NULL"),
    )


def _upgrade_sqlite() -> None:
    """Changes are numbered under the write lock."""
    is_changed = " OR ".join(f"OLD.{each} IS NOT NEW.{each}" for each in SHOWN)
    note, gone = (
        NOTE.format(change=COUNTED, kept=_kept("NEW."), again=_again()),
        NOTE_DELETED.format(
            change=COUNTED,
            now="strftime('%Y-%m-%d %H:%M:%f000', 'now')",
            kept=", ".join(f"{each} = OLD.{each}" for each in KEPT),
        ),
    )
    op.execute("INSERT INTO sync_feed (id, epoch, last_change) VALUES (1, lower(hex(randomblob(8))), 1)")
    op.execute(FILL.format(change="1", kept=_kept("")))
    op.execute(f"CREATE TRIGGER sync_created AFTER INSERT ON sync BEGIN {COUNT} {note} END")
    op.execute(f"CREATE TRIGGER sync_changed AFTER UPDATE ON sync WHEN {is_changed} BEGIN {COUNT} {note} END")
    op.execute(f"CREATE TRIGGER sync_deleted AFTER DELETE ON sync BEGIN {COUNT} {gone} END")


def _upgrade_postgresql() -> None:
    """The lock keeps syncs from changing between the filling of the table and the first trigger."""
    note, gone = (
        NOTE.format(change=XID, kept=_kept("NEW."), again=_again()),
        NOTE_DELETED.format(change=XID, now="now()", kept=", ".join(f"{each} = OLD.{each}" for each in KEPT)),
    )
    old, new = (f"({', '.join(f'{row}.{each}' for each in SHOWN)})" for row in ("OLD", "NEW"))
    op.execute("LOCK TABLE sync IN SHARE ROW EXCLUSIVE MODE")
    op.execute(OPEN_FEED)
    op.execute(FILL.format(change=XID, kept=_kept("")))
    for name, body in (("note_sync_change", note), ("note_sync_deletion", gone)):
        op.execute(FUNCTION.format(name=name, body=body))
    op.execute(
        "CREATE TRIGGER sync_created AFTER INSERT ON sync FOR EACH ROW EXECUTE FUNCTION note_sync_change()"
    )
    op.execute(
        f"CREATE TRIGGER sync_changed AFTER UPDATE ON sync FOR EACH ROW WHEN ({old} IS DISTINCT FROM {new}) "
        "EXECUTE FUNCTION note_sync_change()"
    )
    op.execute(
        "CREATE TRIGGER sync_deleted AFTER DELETE ON sync FOR EACH ROW EXECUTE FUNCTION note_sync_deletion()"
    )


def _kept(row: str) -> str:
    """What is kept of a sync once it is deleted, and nothing before."""
    return ", ".join(f"CASE WHEN {row}removed_at IS NULL THEN NULL ELSE {row}{each} END" for each in KEPT)


def _again() -> str:
    return ", ".join(f"{each} = excluded.{each}" for each in KEPT)


def downgrade() -> None:
    is_sqlite = op.get_bind().dialect.name == "sqlite"
    for name in ("sync_created", "sync_changed", "sync_deleted"):
        op.execute(f"DROP TRIGGER {name}" if is_sqlite else f"DROP TRIGGER {name} ON sync")
    if not is_sqlite:
        op.execute("DROP FUNCTION note_sync_change(), note_sync_deletion()")
    op.drop_table("sync_change")
    op.drop_table("sync_feed")
    op.drop_column("organization", "sync_changes_forgotten")
    op.drop_column("api_token", "from_settings")
