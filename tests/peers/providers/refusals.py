"""What the fakes of providers have in common: they refuse what they were not asked properly."""

import json
from abc import ABC, abstractmethod
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

import httpx


class RefusedError(Exception):
    """Answer this instead."""

    def __init__(self, status: int, body: object, headers: dict[str, str] | None = None) -> None:
        super().__init__(status, body)
        self.answer = httpx.Response(status, json=body, headers=headers)


@dataclass
class Fake(ABC):
    """One provider on one host, and perhaps another for tokens; requests elsewhere never arrive."""

    host: str
    token_host: str | None = None
    requests: list[httpx.Request] = field(default_factory=list)

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if request.url.scheme != "https" or request.url.host not in {self.host, self.token_host}:
            raise httpx.ConnectError(f"nobody at {request.url.host}")
        self.requests.append(request)
        try:
            return self.answer(request)
        except RefusedError as refused:
            return refused.answer

    @abstractmethod
    def answer(self, request: httpx.Request) -> httpx.Response:
        """What the provider answers; raises `RefusedError` for what it refuses."""


def form(request: httpx.Request) -> dict[str, str]:
    """A form's fields, if it is one."""
    if request.headers.get("content-type") != "application/x-www-form-urlencoded":
        raise RefusedError(415, {"error": "not a form"})
    return dict(parse_qsl(request.content.decode()))


def body(request: httpx.Request) -> dict[str, Any]:
    """A JSON object, if it is one."""
    if request.headers.get("content-type") != "application/json":
        raise RefusedError(415, {"error": "not JSON"})
    value = json.loads(request.content)
    if not isinstance(value, dict):
        raise RefusedError(400, {"error": "not an object"})
    return value


def query(request: httpx.Request, allowed: Collection[str], refusal: object) -> dict[str, str]:
    """The parameters, each once and all of them known."""
    pairs = request.url.params.multi_items()
    if len(dict(pairs)) < len(pairs) or not set(dict(pairs)) <= set(allowed):
        raise RefusedError(400, refusal)
    return dict(pairs)


def limit(value: str | None, default: int, most: int, refusal: object) -> int:
    """A page's size, refused beyond the most there is."""
    if value is None:
        return default
    if not value.isdecimal() or not 1 <= int(value) <= most:
        raise RefusedError(400, refusal)
    return int(value)


def dated(number: int) -> str:
    return f"2025-01-01T{number // 3600:02}:{number // 60 % 60:02}:{number % 60:02}Z"


Objects = dict[str, list[dict[str, Any]]]
