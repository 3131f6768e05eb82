"""`POST /link/oauth2/token` (contract 6.3): the product exchanges a one-time code for the credential."""

from typing import Annotated, Any, Final
from urllib.parse import parse_qsl
from uuid import UUID

from fastapi import APIRouter, Depends, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field, JsonValue, ValidationError

from engine.api.body import JsonRoute, parse
from engine.api.caller import Services
from engine.api.shapes import Given
from engine.connect.codes import knows_secret, redeem
from engine.errors import BadRequestError, UnauthorizedError
from engine.oauth_apps import any_app
from foundation.database import utc_now

router = APIRouter(prefix="/link/oauth2", tags=["connect flow"], route_class=JsonRoute)
FORM: Final = "application/x-www-form-urlencoded"
MAX_FIELDS: Final = 50


class TokenBody(Given):
    """What the product sends for a code; `redirect_uri` is verified when given."""

    code: Annotated[str, Field(min_length=1, max_length=1_000, repr=False)]
    client_id: str = Field(description="our id of the OAuth app, not the provider's client id")
    client_secret: Annotated[str, Field(max_length=10_000)] = Field(repr=False)
    redirect_uri: str | None = None
    code_verifier: str | None = Field(default=None, repr=False)


class Captured(BaseModel):
    """Fit to be the body of `POST /v1/credentials`; the secrets are not masked."""

    oauth_app_id: UUID
    properties: dict[str, JsonValue]


class TokenAnswer(BaseModel):
    """The captured credential, and the state that the start link brought."""

    credential: Captured
    state: str


async def _token_body(request: Request) -> TokenBody:
    """JSON, or the form that OAuth2 clients send."""
    body = await request.body()
    given: object
    if request.headers.get("content-type", "").startswith(FORM):
        given = _form(body.decode(errors="replace"))
    else:
        given = parse(body)
    try:
        return TokenBody.model_validate(given)
    except ValidationError as exc:
        errors = exc.errors(include_input=False, include_url=False)
        located = [{**each, "loc": ("body", *each["loc"])} for each in errors]
        raise RequestValidationError(located) from None


def _form(text: str) -> dict[str, str]:
    """The fields of a form, or 400; it needs no token, so it must not cost much."""
    try:
        return dict(parse_qsl(text, keep_blank_values=True, max_num_fields=MAX_FIELDS))
    except ValueError:
        raise BadRequestError("Invalid form: too many fields") from None


BODY: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "content": {media: {"schema": TokenBody.model_json_schema()} for media in ("application/json", FORM)},
    }
}


@router.post("/token", openapi_extra=BODY)
def token(
    request: Request, response: Response, body: Annotated[TokenBody, Depends(_token_body)]
) -> TokenAnswer:
    """Exchange a one-time code for the captured credential. No bearer token: app id and secret speak."""
    services: Services = request.app.state.services
    app = any_app(services.database, body.client_id)
    if app is None or not knows_secret(services.safe, app, body.client_secret):
        raise UnauthorizedError("Unauthorized: unknown OAuth app or wrong client secret")
    with services.database.write() as session:
        grant = redeem(
            session,
            services.safe,
            app,
            body.code,
            utc_now(),
            redirect_uri=body.redirect_uri,
            verifier=body.code_verifier,
        )
    if grant is None:
        raise BadRequestError("Invalid code: unknown, expired, used before, or meant for another request")
    response.headers["Cache-Control"] = "no-store"
    return TokenAnswer(
        credential=Captured(oauth_app_id=app.id, properties=grant.properties), state=grant.state
    )
