"""The few pages that people see: what went wrong in the connect flow, in words, and the one that leads on."""

import base64
import hashlib
from html import escape
from string import Template
from typing import Final
from urllib.parse import urlsplit

from fastapi import Request
from fastapi.responses import HTMLResponse, RedirectResponse

STYLE: Final = """
:root { color-scheme: light dark; }
body { font: 1.125rem/1.5 system-ui, sans-serif; max-width: 34rem; margin: 15vh auto 0; padding: 0 1.5rem; }
h1 { font-size: 1.5rem; line-height: 1.25; }
p { overflow-wrap: anywhere; }
"""
PAGE: Final = Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="robots" content="noindex">
$refresh<title>$title</title>
<style>$style</style>
</head>
<body>
<main>
<h1>$title</h1>
$paragraphs
</main>
</body>
</html>
""")
REFRESH: Final = Template('<meta http-equiv="refresh" content="0;url=$url">\n')

POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        f"style-src 'sha256-{base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()}'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
PRIVATE: Final = {
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",  # the URL holds a code
    "X-Content-Type-Options": "nosniff",
}
CONTAINED: Final = {"Content-Security-Policy": POLICY, "X-Frame-Options": "DENY"}


def reads_html(request: Request) -> bool:
    """A browser, rather than a program."""
    return "text/html" in request.headers.get("accept", "")


def error_page(
    sentence: str, advice: str, *, title: str = "This account could not be connected", status: int = 400
) -> HTMLResponse:
    """Says what happened and what to do; never leads anywhere."""
    return _page(title, f"<p>{escape(sentence)}</p>\n<p>{escape(advice)}</p>", status=status)


def onward_page(url: str) -> HTMLResponse:
    """Leads on by itself, and with a link where a browser does not.

    Unlike a redirect it ends what a form at the provider began: browsers hold every redirect that follows the
    form against the `form-action` of the provider's page, which names this service and not the product.
    """
    refresh = REFRESH.substitute(url=escape(url))
    link = f'<p><a href="{escape(url)}">Continue</a></p>'
    sentence = f"<p>You are being taken back to {escape(urlsplit(url).netloc)}.</p>"
    return _page("One moment", f"{sentence}\n{link}", refresh=refresh, status=200)


def onward(url: str) -> RedirectResponse:
    """Send the browser on, with nothing left behind in caches or referrers."""
    return RedirectResponse(url, status_code=302, headers=PRIVATE)


def _page(title: str, paragraphs: str, *, refresh: str = "", status: int) -> HTMLResponse:
    page = PAGE.substitute(title=escape(title), style=STYLE, paragraphs=paragraphs, refresh=refresh)
    return HTMLResponse(page, status_code=status, headers=PRIVATE | CONTAINED)
