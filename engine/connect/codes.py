"""One-time codes: each stands for a captured credential, works once and soon expires."""

import hmac
import secrets
from datetime import datetime, timedelta
from typing import Final

from pydantic import BaseModel, Field
from sqlmodel import Session, col, delete, select

from engine.connect.journey import Journey
from engine.oauth_apps import open_secret
from engine.providers.connect import challenge
from engine.sealing import Safe
from engine.tables import ConnectCode, JsonObject, OAuthApp
from engine.tokens import hash_token

LASTS: Final = timedelta(minutes=5)


class Grant(BaseModel):
    """What a code stands for, and what has to come with it."""

    properties: JsonObject = Field(repr=False)
    state: str
    redirect_uri: str
    code_challenge: str | None


def mint(
    session: Session, safe: Safe, app: OAuthApp, journey: Journey, properties: JsonObject, now: datetime
) -> str:
    """Store a captured credential and give the code for it; codes that have expired go."""
    session.exec(delete(ConnectCode).where(col(ConnectCode.expires_at) <= now))
    code = secrets.token_urlsafe(32)
    grant = Grant(
        properties=properties,
        state=journey.state,
        redirect_uri=journey.redirect_uri,
        code_challenge=journey.code_challenge,
    )
    held = ConnectCode(
        org_id=app.org_id,
        oauth_app_id=app.id,
        code_hash=hash_token(code),
        sealed_grant="",
        expires_at=now + LASTS,
    )
    held.sealed_grant = safe.seal_text(grant.model_dump_json(), context=code_context(held))
    session.add(held)
    return code


def redeem(
    session: Session,
    safe: Safe,
    app: OAuthApp,
    code: str,
    now: datetime,
    *,
    redirect_uri: str | None,
    verifier: str | None,
) -> Grant | None:
    """What the code stands for, this once; nothing when it is spent, another app's or badly accompanied."""
    wanted = select(ConnectCode).where(
        ConnectCode.code_hash == hash_token(code),
        ConnectCode.oauth_app_id == app.id,
        ConnectCode.expires_at > now,
    )
    held = session.exec(wanted.with_for_update()).first()
    if held is None:
        return None
    opened = safe.open_text(held.sealed_grant, context=code_context(held))
    grant = Grant.model_validate_json(opened)
    if not accompanied(grant, redirect_uri, verifier):
        return None
    session.delete(held)
    return grant


def accompanied(grant: Grant, redirect_uri: str | None, verifier: str | None) -> bool:
    """The redirect URI may be left out (the contract does not name it); a promised verifier may not.

    Nor may one come that was not promised: somebody took the promise out of the link (RFC 9700, 4.8.2).
    """
    if redirect_uri is not None and redirect_uri != grant.redirect_uri:
        return False
    if grant.code_challenge is None or verifier is None:
        return grant.code_challenge is verifier
    return hmac.compare_digest(challenge(verifier), grant.code_challenge)


def knows_secret(safe: Safe, app: OAuthApp, client_secret: str) -> bool:
    """Compared in constant time."""
    return hmac.compare_digest(open_secret(safe, app).encode(), client_secret.encode())


def code_context(held: ConnectCode) -> str:
    """What the credential behind a code is bound to."""
    return f"connect code:{held.org_id}:{held.oauth_app_id}:{held.code_hash}"
