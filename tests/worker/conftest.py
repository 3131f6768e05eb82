"""A worker with its network replaced, on both databases."""

from collections.abc import Iterator

import fakeredis
import httpx
import pytest
import structlog
from pydantic import SecretStr

from foundation.database import Database
from foundation.vault import generate_key
from tests.support.remote import Remote
from worker.limits import RedisLimits
from worker.management import ManagementApi
from worker.runtime import Runtime
from worker.settings import Settings

WEBHOOK_SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
REFUSED = "redis://127.0.0.1:1/0"


@pytest.fixture(scope="session", autouse=True)
def plain_tracebacks() -> None:
    """Expected trouble is logged in few lines and little time."""
    renderer = structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
    structlog.configure(processors=[structlog.stdlib.add_log_level, renderer])


@pytest.fixture
def settings(database_url: str) -> Settings:
    """Settings as an operator would give them; the broker refuses connections."""
    return Settings(
        database_url=SecretStr(database_url),
        broker_url=SecretStr(REFUSED),
        api_url="http://api.test",
        api_token=SecretStr("a-token-of-the-api"),
        webhook_secrets={"app": [SecretStr(WEBHOOK_SECRET)]},
        vault_keys=SecretStr(generate_key()),
        operator_token=SecretStr("a-token-of-operators"),
    )


@pytest.fixture
def remote() -> Remote:
    return Remote()


@pytest.fixture
def redis_server() -> fakeredis.FakeRedis:
    return fakeredis.FakeRedis()


@pytest.fixture
def api(remote: Remote) -> ManagementApi:
    """A client of the API in memory; nothing in it needs to be closed."""
    return ManagementApi("http://api.test", "a-token", transport=httpx.MockTransport(remote))


@pytest.fixture
def limits(redis_server: fakeredis.FakeRedis) -> RedisLimits:
    """The limits without a rate, on a Redis in memory."""
    return RedisLimits(redis_server)


@pytest.fixture
def runtime(settings: Settings, api: ManagementApi, limits: RedisLimits) -> Iterator[Runtime]:
    """Everything the steps use, with the API and Redis in memory."""
    with Runtime.open(settings, api=api, limits=limits) as opened:
        yield opened


@pytest.fixture
def shared_database(runtime: Runtime) -> Database:
    """The database of the runtime."""
    return runtime.database
