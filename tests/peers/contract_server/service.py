"""The server as a whole: the API, the faults that befall it, and the operator's view on both."""

import asyncio
from typing import Final

from .api import ManagementApi
from .errors import ApiError
from .faults import Dice, Fault
from .operator_view import PREFIX, OperatorView
from .store import Store
from .tally import Tally
from .wire import Drop, Reply, Request, Response

GATEWAY_PATIENCE_S: Final = 0.1


class Double:
    """Receives every request, counts it, and lets the faults have their way."""

    def __init__(self, api: ManagementApi, dice: Dice, store: Store) -> None:
        self._api = api
        self._dice = dice
        self._tally = Tally()
        self._view = OperatorView(store, dice, self._tally)

    def receive(self, request: Request) -> Reply:
        """Answer a request, or not."""
        if request.path.startswith(PREFIX):
            return Reply(self._operate(request))
        self._tally.enter()
        route = self._api.route(request)
        fault = self._dice.draw(route)
        reply = self._reply(request, route, fault)
        self._tally.note(request, route, reply.outcome, fault)
        return reply

    def finished(self, request: Request) -> None:
        """Count the request out."""
        if not request.path.startswith(PREFIX):
            self._tally.leave()

    def _operate(self, request: Request) -> Response:
        try:
            return self._view.handle(request)
        except ApiError as error:
            return self._api.refuse(error)

    def _reply(self, request: Request, route: str, fault: Fault | None) -> Reply:
        latency_s = self._dice.settings.latency_ms / 1000
        match fault:
            case None:
                return Reply(self._api.handle(request, route), latency_s)
            case Fault.RESET:
                return Reply(Drop(reset=True), latency_s)
            case Fault.RATE_429:
                header = {"retry-after": self._dice.retry_after()}
                return Reply(self._refuse(429, "Too many requests", header), latency_s)
            case Fault.FAIL_500:
                return Reply(self._refuse(500, "Internal server error"), latency_s)
            case Fault.LATE_COMMIT:
                late_s = self._dice.settings.late_commit_s
                asyncio.get_running_loop().call_later(late_s, self._api.handle, request, route)
                return Reply(self._refuse(504, "Gateway timeout"), latency_s + GATEWAY_PATIENCE_S)
            case Fault.LOSE_REPLY:
                self._api.handle(request, route)
                return Reply(Drop(reset=False), latency_s)

    def _refuse(self, status: int, summary: str, headers: dict[str, str] | None = None) -> Response:
        return self._api.refuse(ApiError(status, summary, headers=headers))
