"""A consumer as a process of its own: appends what it reads to a file, then acknowledges it."""

import json
import sys
from pathlib import Path

import httpx


def main(url: str, token: str, consumer_id: str, path: str) -> None:
    headers = {"Authorization": f"Bearer {token}"}
    at = f"/v1/http-consumers/{consumer_id}"
    with (
        httpx.Client(base_url=url, headers=headers, timeout=10) as api,
        Path(path).open("a", encoding="utf-8") as file,
    ):
        while True:
            batch = api.get(f"{at}/next", params={"batch_size": 100, "wait_for": 500}).json()["data"]
            file.writelines(json.dumps(message["record"]) + "\n" for message in batch)
            file.flush()
            if batch:
                tokens = [message["ack_token"] for message in batch]
                api.post(f"{at}/ack", json={"ack_tokens": tokens})


if __name__ == "__main__":
    main(*sys.argv[1:])
