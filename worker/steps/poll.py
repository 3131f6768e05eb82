"""Poll: read the syncs of many connections with few requests: lists where they pay, else one by one."""

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from typing import Final

from worker.errors import ProvisioningError, UnusableAnswerError
from worker.management import ManagementApi, RemoteSync
from worker.queue.verdict import Claim

Read = RemoteSync | ProvisioningError
Answers = Sequence[tuple[Claim, Read]]

LIST_AT_LEAST: Final = 5
LISTED_PER_GET: Final = 40  # reading one more sync in a list costs about a fortieth of a request
LIST_AT_MOST: Final = 20_000
SIZE_HOLDS_S: Final = 600.0


class StreamSizes:
    """How many syncs each stream listed when it was last read: tells whether a list pays."""

    def __init__(self) -> None:
        self._sizes: dict[str, tuple[int, float]] = {}

    def note(self, stream_id: str, size: int) -> None:
        self._sizes[stream_id] = (size, time.monotonic())

    def known(self, stream_id: str) -> int | None:
        size, at = self._sizes.get(stream_id, (0, -SIZE_HOLDS_S))
        return size if time.monotonic() - at < SIZE_HOLDS_S else None


def pays(due: int, size: int | None) -> bool:
    """Whether one list of a stream of this size is cheaper than reading its due syncs one by one."""
    return due >= LIST_AT_LEAST and (size is None or size <= worth_listing(due))


def worth_listing(due: int) -> int:
    """How many syncs a list may hold, at most, to be cheaper than reading the due ones one by one."""
    return min(due * LISTED_PER_GET, LIST_AT_MOST)


async def read_syncs(
    claims: Sequence[Claim], sizes: StreamSizes, api: ManagementApi
) -> AsyncIterator[Answers]:
    """Read the sync of every claim and yield the answers as they arrive.

    A list that fails is an answer for all its connections: asking for each of them would only add to the
    trouble. Only a list that is too long or cannot be read is done without.
    What a list lacks is asked for by its id before it counts as gone.
    """
    by_stream: defaultdict[str | None, list[Claim]] = defaultdict(list)
    for claim in claims:
        by_stream[claim.remote_stream_id].append(claim)
    jobs: list[asyncio.Task[Answers]] = []
    for stream_id, due in by_stream.items():
        if stream_id is not None and pays(len(due), sizes.known(stream_id)):
            jobs.append(asyncio.create_task(_listed(stream_id, due, sizes, api)))
        else:
            jobs += [asyncio.create_task(read_one_by_one([claim], api)) for claim in due]
    try:
        for job in asyncio.as_completed(jobs):
            yield await job
    finally:  # whoever ends us ends the reads too
        for each in jobs:
            each.cancel()
        await asyncio.gather(*jobs, return_exceptions=True)


async def _listed(stream_id: str, due: Sequence[Claim], sizes: StreamSizes, api: ManagementApi) -> Answers:
    wanted = {str(claim.remote_sync_id) for claim in due}
    try:
        found, size = await api.list_syncs(stream_id=stream_id, only=wanted, at_most=worth_listing(len(due)))
    except UnusableAnswerError:  # too long, or not a list: then no list of this stream pays
        sizes.note(stream_id, LIST_AT_MOST + 1)
        return await read_one_by_one(due, api)
    except ProvisioningError as exc:
        return [(claim, exc) for claim in due]
    sizes.note(stream_id, size)
    present = [
        (claim, found[str(claim.remote_sync_id)]) for claim in due if str(claim.remote_sync_id) in found
    ]
    missing = [claim for claim in due if str(claim.remote_sync_id) not in found]
    return [*present, *await read_one_by_one(missing, api)]


async def read_one_by_one(claims: Sequence[Claim], api: ManagementApi) -> Answers:
    """The sync of every claim, or the error that kept us from it."""
    reads = await asyncio.gather(*(_get(str(claim.remote_sync_id), api) for claim in claims))
    return list(zip(claims, reads, strict=True))


async def _get(sync_id: str, api: ManagementApi) -> Read:
    try:
        return await api.get_sync(sync_id)
    except ProvisioningError as exc:
        return exc
