"""JSON over HTTP to the Management API: with httpx, or tuned, with urllib3, which costs half as much."""

import json
from typing import Any, Final

import httpx
import urllib3

from benchmarks.rival.settings import API_TOKEN, API_URL, TUNED

TIMEOUT_S: Final = 10.0
CONNECT_S: Final = 3.0
MOST_CONNECTIONS: Final = 64
_HEADERS: Final = {"authorization": f"Bearer {API_TOKEN}", "content-type": "application/json"}


class ApiError(Exception):
    """An answer that is no success; dramatiq tries again."""


def call(method: str, path: str, body: object = None, fields: dict[str, str] | None = None) -> Any:
    """Send one request; returns the answer's JSON or raises."""
    content = None if body is None else json.dumps(body)
    status, answer = (_with_urllib3 if TUNED else _with_httpx)(method, path, content, fields)
    if status >= 300:
        raise ApiError(f"{method} {path}: {status}")
    return json.loads(answer)


def _with_httpx(
    method: str, path: str, content: str | None, fields: dict[str, str] | None
) -> tuple[int, bytes]:
    answer = _httpx.request(method, path, content=content, params=fields)
    return answer.status_code, answer.content


def _with_urllib3(
    method: str, path: str, content: str | None, fields: dict[str, str] | None
) -> tuple[int, bytes]:
    answer = _urllib3.request(method, path, body=content, fields=fields)
    return answer.status, answer.data


_httpx = httpx.Client(
    base_url=API_URL,
    headers=_HEADERS,
    timeout=httpx.Timeout(TIMEOUT_S, connect=CONNECT_S),
    limits=httpx.Limits(max_connections=MOST_CONNECTIONS, max_keepalive_connections=MOST_CONNECTIONS),
    trust_env=False,
)
_urllib3 = urllib3.connection_from_url(
    API_URL,
    maxsize=MOST_CONNECTIONS,
    headers=_HEADERS,
    retries=False,
    timeout=urllib3.Timeout(TIMEOUT_S, connect=CONNECT_S),
)
