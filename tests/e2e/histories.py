"""What a stream has to be like, whatever happened while it was filled: pure checks of what a consumer saw.

A customer's name says which version of it one is looking at: the first has a name of the provider's making,
later ones are `v1`, `v2` and so on.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

Record = Mapping[str, Any]
GONE: Final = 10**9


@dataclass(frozen=True, slots=True)
class Version:
    """What one place in the stream held."""

    updated_idx: int
    record_id: str
    upstream_id: str
    number: int
    """Deleted is the last of all."""


def read_lines(path: Path) -> Iterator[Record]:
    """The records that a consumer wrote down; it may have been killed amid a line, which then comes again."""
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            try:
                yield json.loads(line)
            except ValueError:
                continue


def version_of(record: Record) -> Version:
    name = record["data"].get("name", "")
    number = int(name[1:]) if name.startswith("v") else 0
    return Version(
        record["updated_idx"], record["id"], record["upstream_id"], GONE if record["deleted"] else number
    )


def faults_in(versions: Iterable[Version]) -> list[str]:
    """What is wrong: a place that held two things, a version with two places, or one that came too late."""
    by_idx = dict[int, Version]()
    faults = list[str]()
    for each in versions:
        if by_idx.setdefault(each.updated_idx, each) != each:
            faults.append(f"one place held {each} and {by_idx[each.updated_idx]}")
    by_record = dict[str, list[Version]]()
    for idx in sorted(by_idx):
        by_record.setdefault(by_idx[idx].record_id, []).append(by_idx[idx])
    for history in by_record.values():
        faults += [
            f"{later} follows {sooner}"
            for sooner, later in pairwise(history)
            if later.number <= sooner.number
        ]
    twice = len(by_record) - len({history[0].upstream_id for history in by_record.values()})
    return faults + [f"{twice} upstream objects have more than one record"] * bool(twice)


def latest(records: Iterable[Record]) -> dict[str, Record]:
    """What a consumer holds that guards its writes with `updated_idx`, by upstream id."""
    held = dict[str, Record]()
    for record in records:
        before = held.get(record["upstream_id"])
        if before is None or before["updated_idx"] < record["updated_idx"]:
            held[record["upstream_id"]] = record
    return held


def differences(held: Mapping[str, Record], upstream: Mapping[str, Any]) -> list[str]:
    """How what is held differs from what the provider lists."""
    alive = {upstream_id: each["data"] for upstream_id, each in held.items() if not each["deleted"]}
    missing, surplus = upstream.keys() - alive.keys(), alive.keys() - upstream.keys()
    changed = [each for each in alive.keys() & upstream.keys() if alive[each] != upstream[each]]
    named = {"missing": missing, "not deleted": surplus, "not as upstream": changed}
    return [f"{len(ids)} {what}, such as {next(iter(ids))}" for what, ids in named.items() if ids]
