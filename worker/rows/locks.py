"""The one order in which rows of several connections are locked, so that nobody locks anybody else out."""

from sqlalchemy import collate
from sqlmodel import Session, col
from sqlmodel.sql.expression import SelectOfScalar

from models import Connection, Tenant


def in_lock_order(session: Session, connections: SelectOfScalar[Connection]) -> SelectOfScalar[Connection]:
    """By tenant, as the inbox takes its messages, and then by id.

    SQLite has one lock for everything. PostgreSQL would order texts as people do, and not as Python does.
    """
    external_id = col(Tenant.external_id)
    if session.get_bind().dialect.name == "postgresql":
        by_tenant = collate(external_id, "C").asc()
    else:
        by_tenant = external_id.asc()
    joined = connections.join(Tenant, col(Tenant.id) == col(Connection.tenant_id))
    return joined.order_by(by_tenant, col(Connection.id))
