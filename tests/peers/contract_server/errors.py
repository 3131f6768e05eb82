"""Errors as the contract words them: a summary, and for 422 the reasons per field."""

from collections.abc import Mapping
from typing import Union

Reasons = Union[list[str], "FieldErrors"]
FieldErrors = dict[str, Reasons]


class ApiError(Exception):
    """A request is refused with this status."""

    def __init__(
        self,
        status: int,
        summary: str,
        fields: FieldErrors | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(status, summary, fields, headers)
        self.status = status
        self.summary = summary
        self.fields = fields
        self.headers = headers or {}


def invalid(fields: FieldErrors) -> ApiError:
    """Refuse a body because of some of its fields."""
    return ApiError(422, "Validation failed", fields)


def not_found(noun: str) -> ApiError:
    """Refuse an id nobody knows."""
    return ApiError(404, f"Not found: no {noun} matching the given id")
