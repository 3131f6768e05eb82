"""One request to a provider: what it ends in, whatever it met."""

import httpx
import pytest
from structlog.testing import capture_logs

from engine.app import create_celery
from engine.backfill.fetch import Access, FetchError, get
from engine.backfill.reader import Reader
from engine.health import TroubleCode
from engine.hints import READ
from engine.providers.catalogue import load_catalogue
from engine.providers.walk import Request

STRIPE = load_catalogue({})["stripe"]
PASTED = "sk_test_\u200b4eC39HqLyjWDarjtT1zdp7dc"
"""With a blank that has no width."""


@pytest.fixture
def client() -> httpx.Client:
    return httpx.Client(transport=httpx.MockTransport(lambda _request: httpx.Response(200, json={})))


@pytest.mark.parametrize(
    ("token", "path", "code"),
    [
        (PASTED, "/v1/customers", TroubleCode.CREDENTIAL_REJECTED),
        ("sk_test\n", "/v1/customers", TroubleCode.CREDENTIAL_REJECTED),
        ("", "/v1/customers", TroubleCode.CREDENTIAL_REJECTED),
        ("sk_test", "/v1/\x00", TroubleCode.COLLECTION_FAILED),
        ("sk_test", "/v1/\ud800", TroubleCode.COLLECTION_FAILED),
    ],
)
def test_requests_that_cannot_be_made(client: httpx.Client, token: str, path: str, code: TroubleCode) -> None:
    """They are somebody's trouble like any other, and the message quotes nothing."""
    with pytest.raises(FetchError) as failed:
        get(client, STRIPE, "stripe:customer", Access("https://api.stripe.com", token), Request(path))

    assert failed.value.failure.code is code
    assert not failed.value.failure.message.count("sk_test")
    assert failed.value.__suppress_context__ or failed.value.__context__ is None


def test_errors_of_tasks_are_not_quoted(
    reader: Reader, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The task has failed, and nobody repeats the error's words: only what and where it was is told."""

    def fail(*_: object) -> None:
        PASTED.encode("ascii")

    monkeypatch.setattr(Reader, "read", fail)
    task = create_celery("redis://127.0.0.1:1/0", reader).tasks[READ]

    with capture_logs() as logs:
        outcome = task.apply(args=[[]])

    assert outcome.failed()
    assert str(outcome.result).startswith("UnicodeEncodeError at test_fetch.py:")
    assert "TaskFailedError" in outcome.traceback
    assert not any(
        words in text for text in (outcome.traceback, caplog.text) for words in (PASTED, ascii(PASTED)[1:-1])
    )
    assert logs[0]["error"] == "UnicodeEncodeError"
    assert logs[0]["at"].startswith("test_fetch.py:")
    assert PASTED not in repr(logs)
