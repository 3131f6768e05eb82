"""The provider's addresses: its OAuth2 endpoints, its login, its CRM, and what only the tests may ask."""

import json
from datetime import UTC, datetime
from typing import Final

import httpx
from django.contrib.auth.views import LoginView
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import include, path, re_path
from django.utils import timezone
from django.views.decorators.csrf import csrf_exempt
from oauth2_provider import urls as oauth2_urls
from oauth2_provider.decorators import protected_resource_metadata
from oauth2_provider.models import AccessToken, RefreshToken

from tests.peers.providers.hubspot import HubSpot

CONTACTS: Final = "/crm/objects/2026-03/contacts"
OWNERS: Final = "/crm/owners/2026-03"
CRM: Final = HubSpot(access_tokens=["checked by then"])
CRM.fill(CONTACTS, 120)
CRM.fill(OWNERS, 3)


@csrf_exempt
@protected_resource_metadata(scopes=["crm.objects.contacts.read"], resource_metadata_url=None)
def crm(request: HttpRequest) -> HttpResponse:
    """HubSpot's CRM, for a token that django-oauth-toolkit has issued and checked."""
    asked = httpx.Request(
        request.method or "",
        f"https://{CRM.host}{request.get_full_path()}",
        headers={
            "authorization": f"Bearer {CRM.access_tokens[0]}",
            "content-type": request.content_type or "",
        },
        content=request.body,
    )
    answer = CRM(asked)
    return HttpResponse(answer.content, status=answer.status_code, content_type="application/json")


@csrf_exempt
def change(request: HttpRequest, number: int) -> HttpResponse:
    """A user of the provider changes a contact."""
    CRM.put(
        CONTACTS, number, datetime.now(UTC).isoformat(timespec="milliseconds"), **json.loads(request.body)
    )
    return HttpResponse(status=204)


@csrf_exempt
def expire(_request: HttpRequest) -> HttpResponse:
    """All access tokens end now, earlier than was announced."""
    AccessToken.objects.update(expires=timezone.now())
    return HttpResponse(status=204)


def state(_request: HttpRequest) -> JsonResponse:
    """All objects, and how many refresh tokens were issued and are still good."""
    issued = RefreshToken.objects
    tokens = {"issued": issued.count(), "good": issued.filter(revoked=None).count()}
    return JsonResponse({"objects": CRM.objects, "refresh_tokens": tokens})


urlpatterns = [
    path("o/", include((oauth2_urls.base_urlpatterns, oauth2_urls.app_name))),
    path("login/", LoginView.as_view()),
    re_path("^crm/", crm),
    path("_peer/contacts/<int:number>", change),
    path("_peer/expire", expire),
    path("_peer/state", state),
]
