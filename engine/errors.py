"""What the API refuses, by the status code the contract gives it (section 1.4)."""

from collections.abc import Mapping, Sequence
from typing import TypeAlias

from starlette.exceptions import HTTPException  # and not FastAPI: workers import this too

Reasons: TypeAlias = Mapping[str, "Sequence[str] | Reasons"]
"""Field to reasons; a nested object has a nested map."""


class ApiError(HTTPException):
    """An answer other than success: a status code and a summary a person can act on."""

    def __init__(self, status_code: int, summary: str, reasons: Reasons | None = None) -> None:
        super().__init__(status_code, summary)
        self.summary = summary
        self.reasons = reasons


class BadRequestError(ApiError):
    def __init__(self, summary: str) -> None:
        super().__init__(400, summary)


class UnauthorizedError(ApiError):
    def __init__(self, summary: str) -> None:
        super().__init__(401, summary)


class ForbiddenError(ApiError):
    def __init__(self, scope: str) -> None:
        super().__init__(403, f"Forbidden: the token lacks the scope {scope}")


class NotFoundError(ApiError):
    def __init__(self, noun: str) -> None:
        super().__init__(404, f"Not found: no {noun} matching the given id")


class GoneError(ApiError):
    """What the caller refers to is no longer kept."""

    def __init__(self, summary: str) -> None:
        super().__init__(410, summary)


class TooLargeError(ApiError):
    def __init__(self, limit: int) -> None:
        super().__init__(413, f"The body is larger than {limit} bytes")


class InvalidError(ApiError):
    """422: the request is understood and refused, field by field."""

    def __init__(self, reasons: Reasons | None = None, *, summary: str = "Validation failed") -> None:
        super().__init__(422, summary, reasons)


class TooManyRequestsError(ApiError):
    """429: the same request may be made again after a while."""

    def __init__(self, summary: str, retry_after_s: int) -> None:
        super().__init__(429, summary)
        self.headers = {"Retry-After": str(retry_after_s)}


class DeadlineError(ApiError):
    def __init__(self) -> None:
        super().__init__(504, "Timeout: nothing was changed, the request may be repeated")


class ClientGoneError(ApiError):
    """Nobody reads this answer: whoever asked has hung up."""

    def __init__(self) -> None:
        super().__init__(499, "The client closed the request")
