"""Is this message from whom it says? Standard Webhooks, over the raw body, with several secrets at once."""

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from pydantic import SecretStr
from standardwebhooks.webhooks import Webhook

ID: Final = "webhook-id"
TIMESTAMP: Final = "webhook-timestamp"
SIGNATURE: Final = "webhook-signature"
MAX_ID_LENGTH: Final = 255


class SignatureError(Exception):
    """The message does not prove where it comes from, or when. Says which check failed, and no more."""


@dataclass(frozen=True, slots=True)
class Signed:
    """The signed headers of a message."""

    message_id: str
    timestamp: str
    signature: str

    @classmethod
    def of(cls, headers: Mapping[str, str]) -> "Signed":
        """Read `webhook-*`, or `svix-*`, which is the same under an older name."""
        return cls(*(_header(headers, name) for name in (ID, TIMESTAMP, SIGNATURE)))


def verify(
    body: bytes, headers: Mapping[str, str], secrets: Iterable[SecretStr], *, tolerance_s: float
) -> str:
    """The message's id, if any of the secrets signed it within the tolerance; otherwise raise."""
    signed = Signed.of(headers)
    _check_age(signed.timestamp, tolerance_s)
    if not 0 < len(signed.message_id) <= MAX_ID_LENGTH:
        raise SignatureError(f"{ID}: expected 1 to {MAX_ID_LENGTH} characters")
    # every secret is tried, so that the time taken does not tell which one matched
    matches = [_signed_by(secret, body, signed) for secret in secrets]
    if True not in matches:
        raise SignatureError(f"{SIGNATURE}: no signature of this body with a known secret")
    return signed.message_id


def _header(headers: Mapping[str, str], name: str) -> str:
    value = headers.get(name) or headers.get(name.replace("webhook-", "svix-"))
    if not value:
        raise SignatureError(f"{name}: header missing")
    return value


def _check_age(timestamp: str, tolerance_s: float) -> None:
    if not timestamp.isascii() or not timestamp.isdigit() or len(timestamp) > 12:
        raise SignatureError(f"{TIMESTAMP}: expected seconds since 1970")
    if abs(time.time() - int(timestamp)) > tolerance_s:
        raise SignatureError(f"{TIMESTAMP}: more than {tolerance_s:.0f} s from now; sign and send again")


def _signed_by(secret: SecretStr, body: bytes, signed: Signed) -> bool:
    headers = {ID: signed.message_id, TIMESTAMP: signed.timestamp, SIGNATURE: signed.signature}
    try:
        Webhook(secret.get_secret_value()).verify(body, headers, json_parse=False)
    except Exception:  # noqa: BLE001  # beyond its own error it leaks whatever odd input makes it stumble over
        return False
    return True
