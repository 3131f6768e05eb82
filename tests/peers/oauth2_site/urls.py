"""The provider's addresses: its OAuth2 endpoints, its login, its CRM, and what only the tests may ask."""

import json

from django.contrib.auth.views import LoginView
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import include, path
from django.utils import timezone
from django.views.decorators.csrf import csrf_exempt
from oauth2_provider import urls as oauth2_urls
from oauth2_provider.decorators import protected_resource_metadata
from oauth2_provider.models import AccessToken, RefreshToken
from oauth2_site.crm import Crm, InvalidError

CRM = Crm()
checked = protected_resource_metadata(scopes=["crm.objects.contacts.read"], resource_metadata_url=None)


@checked
def listed(request: HttpRequest, path: str) -> JsonResponse:
    """One page of a list."""
    try:
        return JsonResponse(CRM.page(f"/crm/v3/{path}", request.GET.dict()))
    except InvalidError as exc:
        return refused(exc)


@csrf_exempt
@checked
def searched(request: HttpRequest, path: str) -> JsonResponse:
    """One page of what a search finds."""
    try:
        return JsonResponse(CRM.search(f"/crm/v3/{path}", json.loads(request.body)))
    except InvalidError as exc:
        return refused(exc)


def refused(exc: InvalidError) -> JsonResponse:
    return JsonResponse({"status": "error", "category": "VALIDATION_ERROR", "message": str(exc)}, status=400)


@csrf_exempt
def change(request: HttpRequest, number: int) -> JsonResponse:
    """A user of the provider changes a contact."""
    return JsonResponse(CRM.change(number, json.loads(request.body)))


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
    path("crm/v3/<path:path>/search", searched),
    path("crm/v3/<path:path>", listed),
    path("_peer/contacts/<int:number>", change),
    path("_peer/expire", expire),
    path("_peer/state", state),
]
