"""The few pages that people see: what went wrong in the connect flow, in words, and nothing to click."""

from html import escape
from string import Template
from typing import Final

from fastapi.responses import HTMLResponse, RedirectResponse

PRIVATE: Final = {
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",  # the URL holds a code
    "X-Content-Type-Options": "nosniff",
}
CONTAINED: Final = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'"}

PAGE: Final = Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>
body { font: 1.1rem/1.5 system-ui, sans-serif; max-width: 34rem; margin: 15vh auto 0; padding: 0 1.5rem; }
h1 { font-size: 1.5rem; }
</style>
</head>
<body>
<h1>$title</h1>
<p>$sentence</p>
<p>$advice</p>
</body>
</html>
""")


def error_page(sentence: str, advice: str, *, status: int = 400) -> HTMLResponse:
    """Says what happened and what to do; never leads anywhere."""
    texts = {"title": "This account could not be connected", "sentence": sentence, "advice": advice}
    page = PAGE.substitute({name: escape(text) for name, text in texts.items()})
    return HTMLResponse(page, status_code=status, headers=PRIVATE | CONTAINED)


def onward(url: str) -> RedirectResponse:
    """Send the browser on, with nothing left behind in caches or referrers."""
    return RedirectResponse(url, status_code=302, headers=PRIVATE)
