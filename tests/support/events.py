"""Webhook messages for tests, and signing them by hand as the specification says."""

import base64
import hashlib
import hmac
import json
import time
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
AT = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)
CANARY = "sk_test_c4naryc4naryc4nary"


def at(minute: float) -> str:
    return (AT + timedelta(minutes=minute)).isoformat()


def stripe(secret: str | None = CANARY, **more: Any) -> dict[str, Any]:
    """A connection to Stripe with a credential, unless told otherwise."""
    wish: dict[str, Any] = {"provider": "stripe"}
    if secret is not None:
        wish["credential"] = {"properties": {"kind": "stripe_key", "secret": secret}}
    return wish | more


def event(kind: str, *connections: dict[str, Any], minute: float = 0, **data: Any) -> dict[str, Any]:
    """A message's body; which tenant it is about unless told otherwise is org_1."""
    data = {"external_id": "org_1"} | data
    if connections:
        data["connections"] = list(connections)
    return {"type": kind, "timestamp": at(minute), "data": data}


def signature(message_id: str, timestamp: str, body: bytes, secret: str = SECRET) -> str:
    key = base64.b64decode(secret.removeprefix("whsec_"))
    signed = f"{message_id}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()


def signed(
    body: bytes,
    *,
    secret: str = SECRET,
    message_id: str | None = None,
    ago_s: float = 0,
    style: str = "webhook",
) -> dict[str, str]:
    """The headers of a signed message."""
    message_id = message_id or f"msg_{uuid4().hex}"
    timestamp = str(int(time.time() - ago_s))
    return {
        "content-type": "application/json",
        f"{style}-id": message_id,
        f"{style}-timestamp": timestamp,
        f"{style}-signature": signature(message_id, timestamp, body, secret),
    }


def encoded(message: Any) -> bytes:
    return json.dumps(message).encode()
