"""Stream ids by slug: looked up once per process, created when the stream is not there yet."""

import asyncio

from worker.errors import ApiRejectedError, PlanError
from worker.management import ManagementApi
from worker.plans import WantedSync


class Streams:
    """Remembers the stream id of each slug. Callers that ask for one slug at once share one request."""

    def __init__(self, api: ManagementApi) -> None:
        self._api = api
        self._ids: dict[str, str] = {}
        self._looking: dict[str, asyncio.Task[str]] = {}

    async def id_for(self, wanted: WantedSync) -> str:
        """The id that a create has to name."""
        if wanted.stream_id is not None:
            return wanted.stream_id
        if wanted.stream is None:
            raise PlanError("the plan names neither stream nor stream_id")
        known = self._ids.get(wanted.stream)
        return known if known is not None else await self._looked_up(wanted.stream)

    def forget(self) -> None:
        """Look again next time: a stream was deleted under us."""
        self._ids.clear()

    async def _looked_up(self, slug: str) -> str:
        task = self._looking.get(slug)
        if task is None:
            task = self._looking[slug] = asyncio.create_task(self._find_or_create(slug))
            task.add_done_callback(lambda _done: self._looking.pop(slug, None))
        found = await asyncio.shield(task)
        self._ids[slug] = found
        return found

    async def _find_or_create(self, slug: str) -> str:
        found = await self._find(slug)
        if found is not None:
            return found
        try:
            return (await self._api.create_stream(slug)).id
        except ApiRejectedError:
            found = await self._find(slug)  # another process may have created it in between
            if found is None:
                raise
            return found

    async def _find(self, slug: str) -> str | None:
        return next((stream.id for stream in await self._api.list_streams() if stream.slug == slug), None)
