"""A content security policy such as careful providers have on their consent pages."""

from collections.abc import Callable

from django.conf import settings
from django.http import HttpRequest, HttpResponse


class FormActionMiddleware:
    """Forms lead to the provider itself and to where the application's users are sent back, no further."""

    sync_capable = True
    async_capable = False

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        response = self._get_response(request)
        if settings.FORM_ACTION:
            response["Content-Security-Policy"] = f"form-action 'self' {settings.FORM_ACTION}"
        return response
