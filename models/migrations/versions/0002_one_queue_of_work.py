"""One queue of work: the `work` table takes over from the columns of `connection`.

Revision 0002, after 0001.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_LIFECYCLE = """
INSERT INTO work (connection_id, lane, tenant_id, step, due_at, turn_at, fence, attempts, lost_leases)
SELECT id, 'lifecycle', tenant_id,
       CASE state WHEN 'requested' THEN 'credential.capture' WHEN 'captured' THEN 'sync.create'
                  WHEN 'removing' THEN 'sync.remove' ELSE 'sync.poll' END,
       COALESCE(due_at, updated_at), COALESCE(due_at, updated_at), fence, 0, 0
FROM connection
WHERE state IN ('requested', 'captured', 'removing', 'backfilling', 'ready', 'degraded', 'paused')
   OR (state = 'failed' AND remote_sync_id IS NOT NULL)
"""
_CHANGES = """
INSERT INTO work (connection_id, lane, tenant_id, step, due_at, turn_at, fence, attempts, lost_leases)
SELECT id, 'changes', tenant_id, 'sync.update', updated_at, updated_at, 0, 0, 0
FROM connection
WHERE state IN ('backfilling', 'ready', 'degraded', 'paused') AND applied_revision < revision
"""


def upgrade() -> None:
    op.create_table(
        "change_cursor",
        sa.Column("name", sa.String(length=32), nullable=False),
        sa.Column("cursor", sa.String(length=1024), nullable=True),
        sa.Column("is_supported", sa.Boolean(), nullable=True),
        sa.Column("caught_up_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("failing_since", sa.DateTime(timezone=True), nullable=True),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("leased_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("fence", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "work",
        sa.Column("connection_id", sa.Uuid(), nullable=False),
        sa.Column("lane", sa.String(length=32), nullable=False),
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("step", sa.String(length=32), nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("turn_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("leased_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("fence", sa.Integer(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("lost_leases", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["connection_id"],
            ["connection.id"],
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id"],
            ["tenant.id"],
        ),
        sa.PrimaryKeyConstraint("connection_id", "lane"),
    )
    with op.batch_alter_table("work", schema=None) as batch_op:
        batch_op.create_index(
            "ix_work_surplus",
            ["step", "turn_at"],
            unique=False,
            sqlite_where=sa.text("turn_at > due_at"),
            postgresql_where=sa.text("turn_at > due_at"),
        )
        batch_op.create_index("ix_work_tenant", ["tenant_id", "step", "due_at"], unique=False)
        batch_op.create_index(
            "ix_work_turn",
            ["step", "turn_at"],
            unique=False,
            sqlite_where=sa.text("turn_at IS NOT NULL"),
            postgresql_where=sa.text("turn_at IS NOT NULL"),
        )

    # before the columns that say so are dropped
    op.execute(_LIFECYCLE)
    op.execute(_CHANGES)

    with op.batch_alter_table("attempt", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_attempt_connection_id"))
        batch_op.drop_index(batch_op.f("ix_attempt_tenant_id"))
        batch_op.create_index("ix_attempt_tenant_finished_at", ["tenant_id", "finished_at"], unique=False)

    with op.batch_alter_table("connection", schema=None) as batch_op:
        batch_op.add_column(sa.Column("released_credential_id", sa.String(length=64), nullable=True))
        batch_op.add_column(sa.Column("refused_at", sa.DateTime(timezone=True), nullable=True))
        batch_op.add_column(
            sa.Column(
                "change_problem", sa.JSON().with_variant(postgresql.JSONB(), "postgresql"), nullable=True
            )
        )
        batch_op.drop_index("ix_connection_due", sqlite_where=sa.text("due_at IS NOT NULL"))
        batch_op.drop_index(batch_op.f("ix_connection_state"))
        batch_op.drop_index(batch_op.f("ix_connection_tenant_id"))
        batch_op.create_index(
            "ix_connection_problem",
            ["error_code", "provider"],
            unique=False,
            sqlite_where=sa.text("error_code IS NOT NULL"),
            postgresql_where=sa.text("error_code IS NOT NULL"),
        )
        batch_op.create_index(
            "ix_connection_refused",
            ["provider", "refused_at"],
            unique=False,
            sqlite_where=sa.text("refused_at IS NOT NULL"),
            postgresql_where=sa.text("refused_at IS NOT NULL"),
        )
        batch_op.create_index(
            "ix_connection_released",
            ["released_credential_id"],
            unique=False,
            sqlite_where=sa.text("released_credential_id IS NOT NULL"),
            postgresql_where=sa.text("released_credential_id IS NOT NULL"),
        )
        batch_op.create_index(batch_op.f("ix_connection_remote_sync_id"), ["remote_sync_id"], unique=False)
        batch_op.create_index("ix_connection_state_created", ["state", "created_at"], unique=False)
        batch_op.create_index("ix_connection_tenant_state", ["tenant_id", "state"], unique=False)
        batch_op.drop_column("fence")
        batch_op.drop_column("leased_until")
        batch_op.drop_column("hinted_until")
        batch_op.drop_column("due_at")
        batch_op.drop_column("polls")
        batch_op.drop_column("attempts")
        batch_op.drop_column("polled_at")

    with op.batch_alter_table("tenant", schema=None) as batch_op:
        batch_op.add_column(sa.Column("spread_after", sa.Uuid(), nullable=True))
        batch_op.create_index(
            "ix_tenant_unannounced",
            ["updated_at"],
            unique=False,
            sqlite_where=sa.text("NOT is_announced"),
            postgresql_where=sa.text("NOT is_announced"),
        )
        batch_op.create_index(
            "ix_tenant_spreading",
            ["id"],
            unique=False,
            sqlite_where=sa.text("spread_after IS NOT NULL"),
            postgresql_where=sa.text("spread_after IS NOT NULL"),
        )

    with op.batch_alter_table("transition", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_transition_connection_id"))
        batch_op.drop_index(batch_op.f("ix_transition_tenant_id"))
        batch_op.create_index("ix_transition_tenant_at", ["tenant_id", "at"], unique=False)


def downgrade() -> None:
    with op.batch_alter_table("transition", schema=None) as batch_op:
        batch_op.drop_index("ix_transition_tenant_at")
        batch_op.create_index(batch_op.f("ix_transition_tenant_id"), ["tenant_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_transition_connection_id"), ["connection_id"], unique=False)

    with op.batch_alter_table("tenant", schema=None) as batch_op:
        batch_op.drop_index(
            "ix_tenant_unannounced",
            sqlite_where=sa.text("NOT is_announced"),
            postgresql_where=sa.text("NOT is_announced"),
        )
        batch_op.drop_index(
            "ix_tenant_spreading",
            sqlite_where=sa.text("spread_after IS NOT NULL"),
            postgresql_where=sa.text("spread_after IS NOT NULL"),
        )
        batch_op.drop_column("spread_after")

    with op.batch_alter_table("connection", schema=None) as batch_op:
        batch_op.add_column(sa.Column("polled_at", sa.DateTime(timezone=True), nullable=True))
        batch_op.add_column(sa.Column("attempts", sa.Integer(), nullable=False, server_default="0"))
        batch_op.add_column(sa.Column("polls", sa.Integer(), nullable=False, server_default="0"))
        batch_op.add_column(sa.Column("due_at", sa.DateTime(timezone=True), nullable=True))
        batch_op.add_column(sa.Column("hinted_until", sa.DateTime(timezone=True), nullable=True))
        batch_op.add_column(sa.Column("leased_until", sa.DateTime(timezone=True), nullable=True))
        batch_op.add_column(sa.Column("fence", sa.Integer(), nullable=False, server_default="0"))
        batch_op.drop_index("ix_connection_tenant_state")
        batch_op.drop_index("ix_connection_state_created")
        batch_op.drop_index(batch_op.f("ix_connection_remote_sync_id"))
        batch_op.drop_index(
            "ix_connection_released",
            sqlite_where=sa.text("released_credential_id IS NOT NULL"),
            postgresql_where=sa.text("released_credential_id IS NOT NULL"),
        )
        batch_op.drop_index(
            "ix_connection_refused",
            sqlite_where=sa.text("refused_at IS NOT NULL"),
            postgresql_where=sa.text("refused_at IS NOT NULL"),
        )
        batch_op.drop_index(
            "ix_connection_problem",
            sqlite_where=sa.text("error_code IS NOT NULL"),
            postgresql_where=sa.text("error_code IS NOT NULL"),
        )
        batch_op.create_index(batch_op.f("ix_connection_tenant_id"), ["tenant_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_connection_state"), ["state"], unique=False)
        batch_op.create_index(
            "ix_connection_due",
            ["due_at"],
            unique=False,
            sqlite_where=sa.text("due_at IS NOT NULL"),
            postgresql_where=sa.text("due_at IS NOT NULL"),
        )
        batch_op.drop_column("change_problem")
        batch_op.drop_column("refused_at")
        batch_op.drop_column("released_credential_id")

    with op.batch_alter_table("attempt", schema=None) as batch_op:
        batch_op.drop_index("ix_attempt_tenant_finished_at")
        batch_op.create_index(batch_op.f("ix_attempt_tenant_id"), ["tenant_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_attempt_connection_id"), ["connection_id"], unique=False)

    with op.batch_alter_table("work", schema=None) as batch_op:
        batch_op.drop_index(
            "ix_work_turn",
            sqlite_where=sa.text("turn_at IS NOT NULL"),
            postgresql_where=sa.text("turn_at IS NOT NULL"),
        )
        batch_op.drop_index("ix_work_tenant")
        batch_op.drop_index(
            "ix_work_surplus",
            sqlite_where=sa.text("turn_at > due_at"),
            postgresql_where=sa.text("turn_at > due_at"),
        )

    op.drop_table("work")
    op.drop_table("change_cursor")
