"""Sign an event like a webhook sender would, and post it to the intake."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Final
from uuid import uuid4

import httpx
from standardwebhooks.webhooks import Webhook

from worker.cli.needed import SendSettings
from worker.settings import STACK_FILE, default_data_dir
from worker.stack.envfile import read_env_file
from worker.stack.ports import DEFAULT_PORTS, remembered_ports
from worker.supervisor import HOST

TIMEOUT: Final = httpx.Timeout(10.0, connect=3.0)


class SendError(Exception):
    """The event could not be sent; says why and what to do."""


def post_event(
    body: bytes, *, source: str, secret: str, base_url: str, message_id: str | None = None
) -> httpx.Response:
    """Post the event, signed with this secret; the same message id twice counts once."""
    url = f"{base_url.rstrip('/')}/webhooks/{source}"
    headers = signed_headers(body, secret, message_id or f"msg_{uuid4().hex}")
    try:
        is_here = httpx.URL(url).host == HOST  # no proxy on the way to this machine
        return httpx.post(url, content=body, headers=headers, timeout=TIMEOUT, trust_env=not is_here)
    except (httpx.HTTPError, httpx.InvalidURL) as exc:
        raise SendError(f"{url}: {exc}. Is the intake up (`gangway up`), or is --url wrong?") from exc


def local_intake(data_dir: Path | None = None) -> str:
    """Where `gangway up` put the intake of this machine."""
    ports = remembered_ports(read_env_file((data_dir or default_data_dir()) / STACK_FILE))
    return f"http://{HOST}:{ports.get('web', DEFAULT_PORTS['web'])}"


def signed_headers(
    body: bytes, secret: str, message_id: str, *, now: datetime | None = None
) -> dict[str, str]:
    """The headers of a Standard Webhooks message."""
    sent_at = now or datetime.now(UTC)
    try:
        text = body.decode()
    except UnicodeDecodeError as exc:
        raise SendError(f"the event is not UTF-8 text ({exc.reason} at byte {exc.start})") from exc
    return {
        "content-type": "application/json",
        "webhook-id": message_id,
        "webhook-timestamp": str(int(sent_at.timestamp())),
        "webhook-signature": Webhook(secret).sign(message_id, sent_at, text),
    }


def secret_of(source: str, data_dir: Path | None = None) -> str:
    """The secret that signs for a source: the first one configured."""
    known = SendSettings.load(data_dir).webhook_secrets
    if source not in known:
        raise SendError(
            f"no webhook secret for source {source!r}; GANGWAY_WEBHOOK_SECRETS has {', '.join(sorted(known))}"
        )
    return known[source][0].get_secret_value()
