"""The settings that single commands need: no command asks for what it does not use."""

from typing import Annotated

from pydantic import AfterValidator, SecretStr

from foundation.database import check_database_url
from worker.settings import Readable, usable_webhook_secrets


def _usable_database(url: SecretStr) -> SecretStr:
    check_database_url(url.get_secret_value().strip())
    return SecretStr(url.get_secret_value().strip())


class StatusSettings(Readable):
    """What `gangway status` reads: the database, and of Redis what it can get."""

    database_url: Annotated[SecretStr, AfterValidator(_usable_database)]
    broker_url: SecretStr | None = None
    api_rate: float | None = None
    api_burst: int = 0


class SendSettings(Readable):
    """What `gangway send` signs with."""

    webhook_secrets: Annotated[dict[str, list[SecretStr]], AfterValidator(usable_webhook_secrets)]
