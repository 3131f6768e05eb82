"""The pure decisions: health, verdicts, waits, paging, providers' files."""

import random
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest
from pydantic import ValidationError

from engine.backfill.deaths import rest_s
from engine.backfill.outcome import is_looping
from engine.backfill.verdict import Failure, judge, retry_after, wait_s
from engine.health import PATIENCE, Health, HealthStatus, Reading, Trouble, TroubleCode, decide, since
from engine.providers.answer import Answer, UnreadableAnswerError
from engine.providers.catalogue import FILES, Provider, load_catalogue, read_provider
from engine.providers.paths import dig, instant
from engine.providers.records import read_page
from engine.tables import Progress

NOW = datetime(2026, 1, 1, tzinfo=UTC)
CREDENTIAL, PROVIDER, LIMITED, COLLECTION, DIED = TroubleCode


def trouble(code: TroubleCode, began: datetime = NOW) -> Trouble:
    return Failure(code, "message").trouble(began, "stripe:customer")


@pytest.mark.parametrize(
    ("readings", "status", "code"),
    [
        ([Reading(False, None)], HealthStatus.INITIALIZING, None),
        ([Reading(False, None), Reading(True, None)], HealthStatus.HEALTHY, None),
        ([Reading(True, trouble(LIMITED))], HealthStatus.WARNING, LIMITED),
        ([Reading(False, trouble(PROVIDER))], HealthStatus.WARNING, PROVIDER),
        ([Reading(True, trouble(PROVIDER, NOW - PATIENCE))], HealthStatus.ERROR, PROVIDER),
        ([Reading(True, trouble(COLLECTION)), Reading(True, None)], HealthStatus.ERROR, COLLECTION),
        ([Reading(True, trouble(DIED))], HealthStatus.WARNING, DIED),
        ([Reading(True, trouble(DIED, NOW - PATIENCE))], HealthStatus.ERROR, DIED),
        (
            [Reading(True, trouble(COLLECTION)), Reading(True, trouble(CREDENTIAL))],
            HealthStatus.ERROR,
            CREDENTIAL,
        ),
    ],
)
def test_health(readings: list[Reading], status: HealthStatus, code: TroubleCode | None) -> None:
    """The gravest trouble tells; without any, a page read means healthy."""
    health = decide(readings, NOW)

    assert health.status is status
    assert (health.reason.code if health.reason else None) == code


def test_health_without_readings() -> None:
    assert decide([], NOW) == Health(HealthStatus.INITIALIZING)


def test_the_same_trouble_keeps_its_beginning() -> None:
    earlier = trouble(PROVIDER, NOW - timedelta(hours=1))

    assert since(trouble(PROVIDER), earlier).since == earlier.since
    assert since(trouble(LIMITED), earlier).since == NOW


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (401, CREDENTIAL),
        (403, CREDENTIAL),
        (429, LIMITED),
        (408, PROVIDER),
        (425, PROVIDER),
        (500, PROVIDER),
        (503, PROVIDER),
        (301, COLLECTION),
        (400, COLLECTION),
        (404, COLLECTION),
    ],
)
def test_judge(status: int, code: TroubleCode) -> None:
    """Each status is somebody's trouble."""
    assert judge("Stripe", "stripe:customer", status, {}, NOW).code is code


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("7", 7.0),
        ("0.5", 0.5),
        ("soon", None),
        ("nan", None),
        ("-3", None),
        ("Thu, 01 Jan 2026 00:00:30 GMT", 30.0),
        ("Wed, 31 Dec 2025 23:00:00 GMT", 0.0),
        ("999999999", 86_400.0),
    ],
)
def test_retry_after(value: str | None, seconds: float | None) -> None:
    """Both forms are understood, nonsense is ignored, and nobody may ask for more than a day."""
    assert retry_after(value, NOW) == seconds


def test_waits_are_bounded_and_jittered() -> None:
    """A wait grows to its bound and no further; trouble that needs a person waits longer."""
    draw = random.Random(1)  # noqa: S311  # a test repeats itself

    quick = [wait_s(Failure(PROVIDER, ""), failures, draw) for failures in range(1, 200)]
    slow = [wait_s(Failure(CREDENTIAL, ""), failures, draw) for failures in range(1, 200)]

    assert quick[0] <= 1
    assert max(quick) <= 60
    assert len(set(quick)) == len(quick)
    assert min(slow) >= 30
    assert max(slow) <= 900


def test_deaths_cost_ever_longer_rests() -> None:
    """What may be chance costs nothing; nothing rests for more than a quarter of an hour."""
    assert [rest_s(deaths) for deaths in range(1, 9)] == [0, 0, 0, 0, 10, 20, 40, 80]
    assert rest_s(10_000) == 900


@pytest.mark.parametrize(
    ("pages", "stale", "looping"), [(1, 0, False), (2, 1, False), (3, 2, True), (8, 4, False)]
)
def test_is_looping(pages: int, stale: int, looping: bool) -> None:
    """A walk over known pages may be as long as the way before it."""
    progress = Progress(sync_id=uuid4(), collection_id="c", pages_read=pages, stale_pages=stale)

    assert is_looping(progress) is looping


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0, datetime(1970, 1, 1, tzinfo=UTC)),
        ("2026-01-01T00:00:00Z", NOW),
        ("2026-01-01", NOW),
        ("2026-01-01T00:00:00Z+0000", NOW),
        (True, None),
        (None, None),
        ("yesterday", None),
        (1e30, None),
        ([], None),
    ],
)
def test_instant(value: object, expected: datetime | None) -> None:
    assert instant(value) == expected  # type: ignore[arg-type]  # any JSON value may come


def test_dig() -> None:
    assert dig({"a": {"b": 1}}, "a.b") == 1
    assert dig({"a": []}, "a.b") is None


@pytest.mark.parametrize("payload", [None, [], {}, {"data": {}}, {"data": [1]}, {"data": [{"id": True}]}])
def test_unreadable_answers(payload: object) -> None:
    """A successful answer that is no list of records with ids is said to be so."""
    provider = load_catalogue({})["stripe"]

    with pytest.raises(UnreadableAnswerError):
        read_page(provider, "stripe:customer", Answer(payload))  # type: ignore[arg-type]  # any JSON value may come


@pytest.mark.parametrize("path", sorted(FILES.glob("*.yaml")), ids=lambda path: path.stem)
def test_provider_files(path: Path) -> None:
    """Every provider's file is valid and named after it."""
    assert read_provider(path).name == path.stem


def test_provider_files_allow_nothing_unknown() -> None:
    valid = read_provider(FILES / "stripe.yaml").model_dump()

    with pytest.raises(ValidationError):
        Provider.model_validate(valid | {"surprise": 1})
