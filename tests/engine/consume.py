"""A consumer as a process of its own: appends what it reads to a file, then acknowledges it."""

import json
import sys
import time
from pathlib import Path
from typing import TextIO

import httpx


def main(url: str, token: str, consumer_id: str, path: str) -> None:
    headers = {"Authorization": f"Bearer {token}"}
    with (
        httpx.Client(base_url=url, headers=headers, timeout=10) as api,
        Path(path).open("a", encoding="utf-8") as file,
    ):
        file.write("\n")  # who was killed before us may have left half a line
        while True:
            try:
                consume(api, f"/v1/http-consumers/{consumer_id}", file)
            except httpx.HTTPError:  # it starts anew, perhaps; what was not acknowledged comes again
                time.sleep(0.1)


def consume(api: httpx.Client, at: str, file: TextIO) -> None:
    asked = {"batch_size": 200, "wait_for": 500}
    batch = api.get(f"{at}/next", params=asked).raise_for_status().json()["data"]
    file.writelines(json.dumps(message["record"]) + "\n" for message in batch)
    file.flush()
    if batch:
        tokens = [message["ack_token"] for message in batch]
        api.post(f"{at}/ack", json={"ack_tokens": tokens}).raise_for_status()


if __name__ == "__main__":
    main(*sys.argv[1:])
