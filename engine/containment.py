"""Whether a JSON column contains a value, as PostgreSQL's `@>` means it, on both databases."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from pydantic import JsonValue
from sqlalchemy import ColumnElement, SQLColumnExpression, and_, case, cast, false, func, literal, true
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlmodel import select

from engine.tables.base import JsonObject

INT64: Final = range(-(2**63), 2**63)
PLAIN_MEMBERS: Final = 3


@dataclass(frozen=True, slots=True)
class Size:
    """How large a JSON value is: its levels of nesting, and its values at all levels."""

    depth: int
    values: int


def size_of(value: JsonValue) -> Size:
    """Return the size of a value, however deep it is; a scalar has one level."""
    depth = values = 0
    level: list[JsonValue] = [value]
    while level:
        depth, values = depth + 1, values + len(level)
        level = [inner for each in level for inner in _inside(each)]
    return Size(depth, values)


def is_plain(wanted: JsonObject) -> bool:
    """Say whether the filter is a few scalars: such filters share a handful of statements."""
    return len(wanted) <= PLAIN_MEMBERS and not any(isinstance(each, dict | list) for each in wanted.values())


class Uncached(ColumnElement[bool]):
    """A condition that is always true and keeps the compiled statement out of SQLAlchemy's cache.

    Each shape of a filter compiles to another statement: callers could fill the memory with them.
    """

    inherit_cache = False


@compiles(Uncached)
def _compile_uncached(_element: Uncached, _compiler: SQLCompiler, **_: object) -> str:
    return "1 = 1"


def contains(
    column: SQLColumnExpression[JsonObject], wanted: JsonObject, *, on_sqlite: bool
) -> ColumnElement[bool]:
    """A condition: the column's map has all of `wanted`, however deep."""
    if on_sqlite:
        found = _object_has(func.json(column), wanted)
        return found if is_plain(wanted) else and_(Uncached(), found)
    return cast(column, JSONB).op("@>", is_comparison=True)(cast(wanted, JSONB))


def _inside(value: JsonValue) -> Iterable[JsonValue]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def _object_has(json: ColumnElement[str], wanted: JsonObject) -> ColumnElement[bool]:
    return and_(true(), *(_has_member(json, key, value) for key, value in wanted.items()))


def _has_member(json: ColumnElement[str], key: str, wanted: JsonValue) -> ColumnElement[bool]:
    entry = func.json_each(json).table_valued("key", "value", "type").alias()
    return select(1).where(entry.c.key == key, _matches(entry.c.type, entry.c.value, wanted)).exists()


def _has_element(json: ColumnElement[str], wanted: JsonValue) -> ColumnElement[bool]:
    entry = func.json_each(json).table_valued("key", "value", "type").alias()
    return select(1).where(_matches(entry.c.type, entry.c.value, wanted)).exists()


def _matches(kind: ColumnElement[str], value: ColumnElement[str], wanted: JsonValue) -> ColumnElement[bool]:
    match wanted:
        case None:
            return kind == "null"
        case bool():
            return kind == ("true" if wanted else "false")
        case int() | float():
            return and_(kind.in_(["integer", "real"]), value == literal(_sqlite_number(wanted)))
        case str():
            return and_(kind == "text", value == literal(wanted))
        case list():
            inside = case((kind == "array", value), else_="[]")
            return and_(kind == "array", *(_has_element(inside, each) for each in wanted))
        case dict():
            inside = case((kind == "object", value), else_="{}")
            return and_(kind == "object", _object_has(inside, wanted))
    return false()


def _sqlite_number(number: int | float) -> int | float:
    """SQLite reads whole numbers beyond 64 bits as doubles, and takes none as a parameter."""
    return number if isinstance(number, float) or number in INT64 else float(number)
