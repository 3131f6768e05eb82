"""What a program does with a consumer: make one, receive, acknowledge."""

from typing import Any

import httpx


def consumer(api: httpx.Client, stream: str, **more: Any) -> str:
    """A new consumer's path."""
    answer = api.post("/v1/http-consumers", json={"stream_id": stream} | more)
    assert answer.status_code == 200, answer.text
    return f"/v1/http-consumers/{answer.json()['id']}"


def receive(api: httpx.Client, path: str, **params: int) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """The next messages, and what is said of the rest."""
    answer = api.get(f"{path}/next", params=params)
    assert answer.status_code == 200, answer.text
    return answer.json()["data"], answer.json()["info"]


def tokens(messages: list[dict[str, Any]]) -> dict[str, list[str]]:
    """A body that acknowledges them."""
    return {"ack_tokens": [message["ack_token"] for message in messages]}
