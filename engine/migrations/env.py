"""Alembic's entry: runs on the connection that `foundation.migrations` hands over."""

from alembic import context

from engine.tables import Row
from foundation.migrations import render_item

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Row.metadata,
    compare_type=True,
    render_as_batch=True,
    render_item=render_item,
)
context.run_migrations()
