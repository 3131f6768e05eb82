"""Is this message from whom it says? Standard Webhooks, over the raw body, with several secrets at once."""

import base64
import hmac
import re
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from pydantic import SecretStr

ID: Final = "webhook-id"
TIMESTAMP: Final = "webhook-timestamp"
SIGNATURE: Final = "webhook-signature"
MAX_ID_LENGTH: Final = 255
RawHeaders = Iterable[tuple[bytes, bytes]]
"""Headers as the server read them: names in lower case, a name as often as it was sent."""

_TIMESTAMP: Final = re.compile(rb"[0-9]{1,12}")
# One entry stands between blanks or commas: senders separate entries by blanks, proxies join lines by commas.
_V1_ENTRY: Final = re.compile(rb"(?<![^\s,])v1,([A-Za-z0-9+/]{43}=)(?![^\s,])")


class SignatureError(Exception):
    """The message does not prove where it comes from, or when. Says which check failed, and no more."""


@dataclass(frozen=True, slots=True)
class Signed:
    """The signed headers of a message; `signatures` are the well-formed ones, in base64."""

    message_id: bytes
    timestamp: bytes
    signatures: list[bytes]

    @classmethod
    def of(cls, headers: RawHeaders) -> "Signed":
        """Read `webhook-*`, or `svix-*`, which is the same under an older name."""
        found: dict[bytes, list[bytes]] = {}
        for name, value in headers:
            if value and name.startswith((b"webhook-", b"svix-")):
                found.setdefault(name, []).append(value)
        message_id, timestamp, signature = (_lines(found, name) for name in (ID, TIMESTAMP, SIGNATURE))
        return cls(message_id[0], timestamp[0], _V1_ENTRY.findall(b" ".join(signature)))


class Verifier:
    """Checks the messages of one source."""

    def __init__(self, secrets: Iterable[SecretStr], *, tolerance_s: float) -> None:
        self._keys = [decoded(secret.get_secret_value()) for secret in secrets]
        self._tolerance_s = tolerance_s

    def verify(self, body: bytes, headers: RawHeaders) -> str:
        """Return the message's id if any of the secrets signed it within the tolerance; otherwise raise."""
        signed = Signed.of(headers)
        self._check_age(signed.timestamp)
        message_id = _text_of(signed.message_id)
        content = b"%b.%b.%b" % (signed.message_id, signed.timestamp, body)
        # every secret and every entry is tried, so that the time taken does not tell which one matched
        matches = [
            hmac.compare_digest(entry, expected)
            for expected in [_signature(key, content) for key in self._keys]
            for entry in signed.signatures
        ]
        if True not in matches:
            raise SignatureError(f"{SIGNATURE}: no signature of this body with a known secret")
        return message_id

    def _check_age(self, timestamp: bytes) -> None:
        if not _TIMESTAMP.fullmatch(timestamp):
            raise SignatureError(f"{TIMESTAMP}: expected seconds since 1970")
        if abs(time.time() - int(timestamp)) > self._tolerance_s:
            limit = f"{self._tolerance_s:.0f} s"
            raise SignatureError(f"{TIMESTAMP}: more than {limit} from now; sign and send again")


def decoded(secret: str) -> bytes:
    """The key in a secret (`whsec_` and base64). Raises `ValueError` if a character is no base64."""
    encoded = secret.removeprefix("whsec_").rstrip("=")
    return base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)


def _signature(key: bytes, content: bytes) -> bytes:
    return base64.b64encode(hmac.digest(key, content, "sha256"))


def _lines(found: dict[bytes, list[bytes]], name: str) -> list[bytes]:
    lines = found.get(name.encode()) or found.get(name.replace("webhook-", "svix-").encode())
    if not lines:
        raise SignatureError(f"{name}: header missing")
    return lines


def _text_of(message_id: bytes) -> str:
    try:
        text = message_id.decode()
    except UnicodeDecodeError:
        raise SignatureError(f"{ID}: expected UTF-8") from None
    if len(text) > MAX_ID_LENGTH:
        raise SignatureError(f"{ID}: expected 1 to {MAX_ID_LENGTH} characters")
    return text
