"""Run an OAuth2 provider by other people, django-oauth-toolkit behind Django's own login, on 127.0.0.1.

Authorisation, tokens, their rotation and the check of every request are theirs; only what the tokens give
access to, the contacts of a small CRM, is ours.
"""

import argparse
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

import django
import uvicorn
from django.conf import settings
from django.core.management import call_command
from oauth2_site.settings import site_settings


def main(argv: Sequence[str] | None = None) -> None:
    """Serve until SIGTERM or SIGINT."""
    options = parser().parse_args(argv)
    settings.configure(**site_settings(options))
    django.setup()
    fill(options)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))
    serve(options)


def fill(options: argparse.Namespace) -> None:
    """Create the tables, a user who can log in, and a confidential application."""
    from django.contrib.auth.models import User
    from oauth2_provider.models import Application

    call_command("migrate", run_syncdb=True, verbosity=0)
    user = User.objects.create_user(options.username, password=options.password)
    Application.objects.create(
        name=options.application,
        user=user,
        client_id=options.client_id,
        client_secret=options.client_secret,
        client_type=Application.CLIENT_CONFIDENTIAL,
        authorization_grant_type=Application.GRANT_AUTHORIZATION_CODE,
        redirect_uris=options.redirect_uri,
    )


def serve(options: argparse.Namespace) -> None:
    """Listen, and say where."""
    from django.core.asgi import get_asgi_application

    config = uvicorn.Config(
        get_asgi_application(), log_config=None, lifespan="off", timeout_graceful_shutdown=1
    )
    with socket.create_server(("127.0.0.1", options.port), backlog=1024) as listener:
        if options.port_file is not None:
            write_port(options.port_file, listener.getsockname()[1])
        uvicorn.Server(config).run(sockets=[listener])


def write_port(port_file: Path, port: int) -> None:
    """Write the port so that a reader sees all of it or nothing."""
    draft = port_file.with_name(f"{port_file.name}.draft")
    draft.write_text(f"{port}\n")
    draft.replace(port_file)


def parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    result = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    result.add_argument("--home", type=Path, required=True, help="an empty directory for its database")
    result.add_argument("--port", type=int, default=0, help="0 takes a free one")
    result.add_argument("--port-file", type=Path, help="gets the port once the server listens")
    result.add_argument(
        "--origin", default="", help="where browsers reach it, when that is not where it listens"
    )
    result.add_argument(
        "--form-action", default="", help="where the consent page's form may lead to, of its CSP"
    )
    result.add_argument("--username", default="ada")
    result.add_argument("--password", default="a password of the tests")
    result.add_argument("--application", default="Gangway", help="the name on the consent page")
    result.add_argument("--client-id", default="application-1")
    result.add_argument("--client-secret", default="application-secret-1")
    result.add_argument("--redirect-uri", required=True)
    result.add_argument("--scopes", default="crm.objects.contacts.read", help="separated by spaces")
    result.add_argument("--lifetime", type=int, default=3_600, help="of access tokens, in seconds")
    return result


if __name__ == "__main__":
    main()
