"""The base of the worker's tables: an own registry, so that another service's tables never mix in."""

from sqlalchemy.orm import registry
from sqlmodel import SQLModel


class Row(SQLModel, registry=registry()):
    """A row of one of the worker's tables. Table classes do not validate untrusted data."""
