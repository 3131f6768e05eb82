"""Section 1.4 under fire: Schemathesis reads our OpenAPI document and tries what it allows, and what not.

Never a 5xx, never an undocumented status, header or shape, never a body accepted that the document refuses
or refused that it allows, nothing without a token, nothing of another organisation. `make fuzz` is the same
at length: many more examples, other ones each time.
"""

import json
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
import structlog

from engine.backfill.reader import Reader
from engine.hints import READ
from engine.settings import Settings
from foundation.database import Database

CONFIG: Final = Path(__file__).with_name("schemathesis.toml")
EXAMPLES: Final = int(os.environ.get("FUZZ_EXAMPLES", "0"))
"""Per operation; without it the test is short, and the same each time."""
SHORT: Final = ("--max-examples=3", "--generation-deterministic")
SHORT_CONFIG: Final = '[phases.coverage.generation]\nmode = "positive"\n'
WITHOUT_COVERAGE: Final = "--phases=fuzzing,stateful"
"""On SQLite, when it shall be short: examples and limits of parameters hardly depend on the database."""
OF_EACH: Final = 5
"""Some are deleted on the way."""


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """The server tells of trouble only; thousands of answers are of no interest."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    yield
    structlog.reset_defaults()


@pytest.fixture
def url(settings: Settings, serve: Callable[..., AbstractContextManager[str]]) -> Iterator[str]:
    """A server that is about to stop, so that nobody's `wait_for` takes long."""
    stopping = threading.Event()
    stopping.set()
    with serve(settings, stopping=stopping) as url:
        yield url


@pytest.fixture
def ids(
    api: httpx.Client, sync_body: dict[str, Any], upstream: Any, reader: Reader, hints: Any
) -> dict[str, list[str]]:
    """Ids of objects that exist, by kind: streams with records in them, and all that hangs on a stream."""
    upstream.account = None
    upstream.fill("/v1/customers", 3)
    upstream.fill("/v1/invoices", 3)
    made: dict[str, list[str]] = {}

    def make(kind: str, path: str, **body: Any) -> str:
        made.setdefault(kind, []).append(api.post(path, json=body).raise_for_status().json()["id"])
        return made[kind][-1]

    for number in range(OF_EACH):
        stream = make("stream", "/v1/streams", slug=f"s{number}")
        properties = {"kind": "stripe_key", "secret": f"sk_{number}"}
        credential = make("credential", "/v1/credentials", properties=properties)
        inline = {"credential": None, "credential_id": credential, "stream_id": stream}
        make("sync", "/v1/syncs", **(sync_body | inline))
        make("consumer", "/v1/http-consumers", stream_id=stream, ack_wait_ms=1)
        app = {"provider": "stripe", "client_id": "c", "client_secret": "s", "name": "n"}
        make("app", "/v1/oauth-apps", **app, redirect_uris=["https://product.test/connected"])
    reader.read(hints.of(READ))
    return made


@pytest.mark.timeout(0 if EXAMPLES else 240)
def test_schemathesis_finds_nothing(
    url: str,
    api: httpx.Client,
    other: httpx.Client,
    database: Database,
    ids: Mapping[str, list[str]],
    tmp_path: Path,
) -> None:
    """Section 1.4: the document and the engine say the same."""
    tokens = {"ours": api.headers["Authorization"], "theirs": other.headers["Authorization"]}
    (tmp_path / "users.yaml").write_text(json.dumps({"auth": [user(*each) for each in tokens.items()]}))
    (tmp_path / "schemathesis.toml").write_text(configured(ids))
    short = (*SHORT, WITHOUT_COVERAGE) if database.is_sqlite else SHORT
    bounds = (f"--max-examples={EXAMPLES}", "--continue-on-failure") if EXAMPLES else short

    command = (sys.executable, "-m", "schemathesis.cli", "run", f"{url}/openapi.json", "--no-color", *bounds)
    tried = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    print(tried.stdout)  # noqa: T201  # how many cases, and with which seed
    assert tried.returncode == 0, tried.stdout + tried.stderr


def configured(ids: Mapping[str, list[str]]) -> str:
    """The configuration, with what only this test knows."""
    tables = [f"[dictionaries.{kind}]\nvalues = {json.dumps(values)}\n" for kind, values in ids.items()]
    return "\n".join([CONFIG.read_text(), *tables, "" if EXAMPLES else SHORT_CONFIG])


def user(name: str, authorization: str) -> dict[str, Any]:
    return {"name": name, "fixedHeaders": [{"name": "Authorization", "value": authorization}]}
