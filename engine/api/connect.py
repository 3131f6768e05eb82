"""`/link/oauth2` (contract 6.3), the browser's part: to the provider, and back to the product with a code."""

import re
from typing import Annotated, Any, Final

import structlog
from fastapi import APIRouter, Query, Request, Response
from starlette.concurrency import run_in_threadpool

from engine.api.caller import Services
from engine.api.connect_cookie import USED, recall, remember
from engine.api.pages import error_page, onward, onward_page, reads_html
from engine.api.shapes import Failure
from engine.connect.exchange import ExchangeError
from engine.connect.journey import Journey, open_journey, seal_journey
from engine.oauth_apps import any_app
from engine.providers.connect import Connect, authorize_url, missing_inputs, with_query
from foundation.database import utc_now

PAGE: Final[dict[str, Any]] = {"description": "A page for people", "content": {"text/html": {}}}
router = APIRouter(
    prefix="/link/oauth2", tags=["connect flow"], responses={200: PAGE, 400: PAGE, 404: {"model": Failure}}
)
log = structlog.get_logger(__name__)

MAX_STATE: Final = 5_000
CODE_CHALLENGE: Final = re.compile(r"[A-Za-z0-9_-]{43}")
ELSEWHERE: Final = "The connection was started in another browser, or cookies are off."
AGAIN: Final = "Go back to the product that you came from and start again."
TELL: Final = "Please tell the people who run the product that you came from."


@router.get("/start", status_code=302, response_class=Response)
def start(
    request: Request,
    client_id: Annotated[str, Query(description="our id of the OAuth app")] = "",
    redirect_uri: Annotated[str, Query(description="one of the app's `redirect_uris`, exactly")] = "",
    state: Annotated[str, Query(description="comes back unchanged")] = "",
    response_type: str = "code",
    scope: Annotated[str | None, Query(description="the provider's usual scopes when omitted")] = None,
    code_challenge: str | None = None,
    code_challenge_method: str | None = None,
) -> Response:
    """Send a browser to the provider, where its user agrees."""
    services: Services = request.app.state.services
    base_url = _base_url(services, request)
    app = any_app(services.database, client_id)
    if app is None:
        return error_page("The link names an OAuth app that does not exist here.", TELL)
    if redirect_uri not in app.redirect_uris:
        return error_page("The link leads back to an address that the OAuth app does not allow.", TELL)
    provider = services.catalogue.get(app.provider)
    connect = provider.connect if provider else None
    refusal = _refusal(connect, request, response_type, state, code_challenge, code_challenge_method)
    if connect is None or refusal is not None:
        answer = refusal or {"error": "server_error"}
        return _back(request, base_url, redirect_uri, state[:MAX_STATE], answer)
    journey = Journey(
        oauth_app_id=app.id,
        redirect_uri=redirect_uri,
        state=state,
        code_challenge=code_challenge,
        inputs={name: request.query_params[name] for name in connect.inputs},
    )
    url = authorize_url(
        connect,
        client_id=app.client_id,
        redirect_uri=_callback_url(base_url, app.provider),
        state=seal_journey(services.safe, journey),
        scope=scope,
        inputs=journey.inputs,
        verifier=journey.verifier,
    )
    response = onward(url)
    remember(response, base_url, journey, journey.browser)
    return response


@router.get("/callback/{provider}", status_code=302, response_class=Response)
async def callback(request: Request, provider: str, state: str = "") -> Response:
    """The provider sends the browser back; it goes on to the product with a one-time code."""
    services: Services = request.app.state.services
    base_url = _base_url(services, request)
    journey = open_journey(services.safe, state, utc_now())
    if journey is None:
        return error_page("The link has expired, or was not started here.", AGAIN)
    if (recalled := recall(request, base_url, journey)) != journey.browser:
        return _used_page() if recalled == USED else error_page(ELSEWHERE, AGAIN)
    app = await run_in_threadpool(any_app, services.database, journey.oauth_app_id)
    if app is None or app.provider != provider or journey.redirect_uri not in app.redirect_uris:
        return error_page("The OAuth app has been changed in the meantime.", AGAIN)
    try:
        callback_url = _callback_url(base_url, provider)
        answer = {"code": await services.capture.run(app, journey, callback_url, request.query_params)}
    except ExchangeError as exc:
        log.info("connect.failed", oauth_app_id=str(app.id), error=exc.error)
        answer = {"error": exc.error, "error_description": exc.sentence}
    response = _back(request, base_url, journey.redirect_uri, journey.state, answer)
    remember(response, base_url, journey, USED)
    return response


def _refusal(
    connect: Connect | None,
    request: Request,
    response_type: str,
    state: str,
    code_challenge: str | None,
    method: str | None,
) -> dict[str, str] | None:
    """Why the product's link cannot be followed, as RFC 6749 words it."""
    if connect is None:
        return _error("server_error", "Accounts of this provider cannot be connected in a browser.")
    if response_type != "code":
        return _error("unsupported_response_type", "response_type must be code.")
    if len(state) > MAX_STATE:
        return _error("invalid_request", f"state is longer than {MAX_STATE} characters.")
    if code_challenge is not None and (method != "S256" or not CODE_CHALLENGE.fullmatch(code_challenge)):
        return _error("invalid_request", "code_challenge must be that of code_challenge_method S256.")
    if missing := missing_inputs(connect, request.query_params):
        return _error("invalid_request", f"missing or malformed: {', '.join(missing)}.")
    return None


def _error(error: str, sentence: str) -> dict[str, str]:
    return {"error": error, "error_description": sentence}


def _back(request: Request, base_url: str, redirect_uri: str, state: str, answer: dict[str, str]) -> Response:
    """To the product; only ever called with a URL that its app allows."""
    given = {"state": state} if state else {}
    url = with_query(redirect_uri, {**answer, **given, "iss": base_url})  # RFC 9207
    return onward_page(url) if reads_html(request) else onward(url)


def _used_page() -> Response:
    """For the back button, and for reloading: the product has heard of this journey's end."""
    sentence = "The provider's answer has been used, and each is used only once."
    advice = "Go back to the product that you came from: it shows whether the account is connected."
    return error_page(sentence, advice, title="This step is done already")


def _base_url(services: Services, request: Request) -> str:
    return services.public_url or str(request.base_url).rstrip("/")


def _callback_url(base_url: str, provider: str) -> str:
    return f"{base_url}/link/oauth2/callback/{provider}"
