"""What to run: one process, its surroundings and how to see that it is ready."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from worker.supervisor.probes import Probe


@dataclass(frozen=True, slots=True)
class ProcessSpec:
    """One process. It starts when those it comes `after` are ready and is stopped before they are."""

    name: str
    argv: Sequence[str]
    env: Mapping[str, str] = field(repr=False)
    """The whole environment. Secrets belong here or in a file, since every user can read an argv."""
    after: frozenset[str] = frozenset()
    ready: Probe | None = None
    """Without a probe it counts as ready once it runs."""
    runs_once: bool = False
    """It has a job to finish: ready when it ends with status 0, then not started again."""


def dependents(specs: Iterable[ProcessSpec]) -> dict[str, frozenset[str]]:
    """For each process the ones that come after it; raises on a name that nobody has."""
    by_name = {spec.name: spec for spec in specs}
    for spec in by_name.values():
        if unknown := spec.after - by_name.keys():
            raise ValueError(f"{spec.name} comes after {', '.join(sorted(unknown))}: no such process")
    return {name: frozenset(s.name for s in by_name.values() if name in s.after) for name in by_name}
