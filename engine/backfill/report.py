"""What one task has read, in a line without secrets: the queue's monitor shows it as the task's result."""

from dataclasses import dataclass, field

from engine.health import TroubleCode
from engine.tables import ALL_COLLECTIONS


@dataclass(slots=True)
class Report:
    """Filled by the readings of one task, one after the other."""

    pages: int = 0
    records: int = 0
    collections: set[str] = field(default_factory=set)
    failures: dict[str, TroubleCode] = field(default_factory=dict)

    def note_page(self, collection_id: str, records: int) -> None:
        """Count one answer of the provider."""
        self.pages += 1
        self.records += records
        self.collections.add(collection_id)

    def note_failure(self, collection_id: str, code: TroubleCode) -> None:
        """Remember that a collection could not be read."""
        self.failures[collection_id] = code

    def __str__(self) -> str:
        told = [self._read()] if self.pages else []
        told += [f"{_name(each)} failed: {code}" for each, code in sorted(self.failures.items())]
        return "; ".join(told) or "nothing to read"

    def _read(self) -> str:
        which = [_name(each) for each in self.collections]
        where = which[0] if len(which) == 1 else f"{len(which)} collections"
        return f"{counted(self.pages, 'page')}, {counted(self.records, 'record')} of {where}"


def _name(collection_id: str) -> str:
    return "events" if collection_id == ALL_COLLECTIONS else collection_id


def counted(number: int, noun: str) -> str:
    """Return the number with its noun, in the plural unless it is one."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
