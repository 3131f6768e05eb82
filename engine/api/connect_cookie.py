"""How a browser is recognised when it comes back: a cookie for each journey (RFC 9700, 4.7)."""

from typing import Final

from fastapi import Request, Response

from engine.connect.journey import LASTS, Journey

USED: Final = "used"
"""What the cookie holds from a journey's end to its time's end."""


def remember(answer: Response, base_url: str, journey: Journey, value: str) -> None:
    """Have the browser keep the journey's key, or that the journey is over."""
    answer.set_cookie(
        _name(base_url, journey),
        value,
        max_age=int(LASTS.total_seconds()),
        secure=base_url.startswith("https"),
        httponly=True,
        samesite="lax",  # the way back is a navigation from the provider's site
    )


def recall(request: Request, base_url: str, journey: Journey) -> str | None:
    """What this browser keeps of the journey."""
    return request.cookies.get(_name(base_url, journey))


def _name(base_url: str, journey: Journey) -> str:
    """One per journey, so that two tabs do not get in each other's way.

    With TLS, its beginning keeps neighbours below the same domain from planting one.
    """
    prefix = "__Host-" if base_url.startswith("https") else ""
    return f"{prefix}gangway_connect_{journey.browser[:8]}"
