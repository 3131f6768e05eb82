"""Which stream a slug means: looked up once per process, created when it is not there yet."""

import threading

from worker.errors import ApiRejectedError, PlanError
from worker.management import ManagementApi
from worker.plans import WantedSync


class Streams:
    """Stream ids by slug. Safe to use from many threads, and beside other processes."""

    def __init__(self, api: ManagementApi) -> None:
        self._api = api
        self._ids: dict[str, str] = {}
        self._lock = threading.Lock()

    def id_for(self, wanted: WantedSync) -> str:
        """The id that a create has to name."""
        if wanted.stream_id is not None:
            return wanted.stream_id
        if wanted.stream is None:
            raise PlanError("the plan names neither stream nor stream_id")
        with self._lock:
            if wanted.stream not in self._ids:
                self._ids[wanted.stream] = self._find_or_create(wanted.stream)
            return self._ids[wanted.stream]

    def forget(self) -> None:
        """Look again next time: a stream was deleted under us."""
        with self._lock:
            self._ids.clear()

    def _find_or_create(self, slug: str) -> str:
        found = self._find(slug)
        if found is not None:
            return found
        try:
            return self._api.create_stream(slug).id
        except ApiRejectedError:
            found = self._find(slug)  # somebody else may have created it in between
            if found is None:
                raise
            return found

    def _find(self, slug: str) -> str | None:
        return next((stream.id for stream in self._api.list_streams() if stream.slug == slug), None)
