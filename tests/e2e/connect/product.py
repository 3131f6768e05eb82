"""The product whose customers connect their accounts: a small web server that does as it is told to."""

import base64
import hashlib
import secrets
import threading
from dataclasses import dataclass, field
from html import escape
from http.cookies import SimpleCookie
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx


@dataclass
class Product:
    """Sends browsers to the engine and exchanges the codes that they come back with."""

    port: int
    origin: str
    engine_origin: str
    engine_url: str
    """Where its server, not its customers' browsers, reaches the engine."""
    app: dict[str, Any] = field(default_factory=dict)
    client_secret: str = ""
    verifiers: dict[tuple[str, str], str] = field(default_factory=dict)
    """Of PKCE, by session and state."""
    arrivals: list["Arrival"] = field(default_factory=list)
    answers: list[httpx.Response] = field(default_factory=list)
    """What the engine said to each exchange."""

    @property
    def return_url(self) -> str:
        return f"{self.origin}/connected"

    @property
    def credential(self) -> dict[str, Any]:
        """The one that was captured last."""
        return dict(self.answers[-1].json()["credential"])

    def __enter__(self) -> Self:
        handler = type("Handler", (Pages,), {"product": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def start_url(self, session: str) -> str:
        """A new journey of this session."""
        state, verifier = secrets.token_urlsafe(16), secrets.token_urlsafe(48)
        self.verifiers[session, state] = verifier
        digest = hashlib.sha256(verifier.encode()).digest()
        query = {
            "response_type": "code",
            "client_id": self.app["id"],
            "redirect_uri": self.return_url,
            "state": state,
            "code_challenge": base64.urlsafe_b64encode(digest).decode().rstrip("="),
            "code_challenge_method": "S256",
        }
        return f"{self.engine_origin}/link/oauth2/start?{urlencode(query)}"

    def exchange(self, code: str, verifier: str) -> httpx.Response:
        """Turn a code into a credential, from server to server."""
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "client_id": self.app["id"],
            "client_secret": self.client_secret,
            "redirect_uri": self.return_url,
            "code_verifier": verifier,
        }
        self.answers.append(httpx.post(f"{self.engine_url}/link/oauth2/token", data=form, trust_env=False))
        return self.answers[-1]


@dataclass(frozen=True)
class Arrival:
    """A browser that came back from the engine."""

    session: str
    query: dict[str, str]
    referer: str | None


class Pages(BaseHTTPRequestHandler):
    """`/`, the way out and back, and how it ended; no address that stays in sight tells anything."""

    product: Product

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        match url.path:
            case "/":
                self._page("Product", '<a href="/connect">Connect</a>')
            case "/connect":
                session = self._session() or secrets.token_urlsafe(16)
                self._onward(self.product.start_url(session), cookie=f"session={session}")
            case "/connected":
                self._onward(self._arrive(query))
            case "/done":
                self._page("Connected", "The account is connected.")
            case "/sorry":
                self._page("Not connected", escape(query.get("error", "")))
            case _:
                self.send_error(404)

    def _arrive(self, query: dict[str, str]) -> str:
        session = self._session()
        self.product.arrivals.append(Arrival(session, query, self.headers.get("referer")))
        verifier = self.product.verifiers.get((session, query.get("state", "")))
        if verifier is None:
            return "/sorry?error=not+asked+for"
        if "code" not in query:
            return f"/sorry?{urlencode({'error': query.get('error', '')})}"
        return (
            "/done" if self.product.exchange(query["code"], verifier).is_success else "/sorry?error=refused"
        )

    def _session(self) -> str:
        cookie = SimpleCookie(self.headers.get("cookie", "")).get("session")
        return cookie.value if cookie else ""

    def _onward(self, url: str, cookie: str = "") -> None:
        self.send_response(303)
        self.send_header("Location", url)
        if cookie:
            secure = "; Secure" if self.product.origin.startswith("https") else ""
            self.send_header("Set-Cookie", f"{cookie}; HttpOnly; SameSite=Lax; Path=/{secure}")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _page(self, title: str, content: str) -> None:
        html = f"<!doctype html><title>{title}</title><h1>{title}</h1><p>{content}</p>".encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(html)))
        self.end_headers()
        self.wfile.write(html)

    def log_message(self, *_: object) -> None:
        """Say nothing."""
