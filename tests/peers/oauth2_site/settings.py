"""Django's settings: the strictest that django-oauth-toolkit offers."""

import argparse
import secrets
from pathlib import Path
from typing import Any, Final

APPS: Final = ["contenttypes", "auth", "sessions"]
STRICT: Final = (
    "IMPLICIT_GRANT",
    "PASSWORD_GRANT",
    "PKCE_METHOD",
    "ACCESS_TOKEN_TRANSPORT",
    "AUTHZ_RESPONSE_ISS",
    "TOKEN_STORAGE",
)


def site_settings(options: argparse.Namespace) -> dict[str, Any]:
    """What `settings.configure` takes."""
    return {
        "SECRET_KEY": secrets.token_urlsafe(50),
        "ALLOWED_HOSTS": ["*"],
        "USE_TZ": True,
        "ROOT_URLCONF": "oauth2_site.urls",
        "LOGIN_URL": "/login/",
        "CSRF_TRUSTED_ORIGINS": [options.origin] if options.origin else [],
        "FORM_ACTION": options.form_action,
        "INSTALLED_APPS": [*(f"django.contrib.{name}" for name in APPS), "oauth2_provider"],
        "MIGRATION_MODULES": dict.fromkeys([*APPS, "oauth2_provider"]),  # tables at once, without a history
        "DATABASES": {"default": database(options.home / "provider.db")},
        "PASSWORD_HASHERS": ["django.contrib.auth.hashers.MD5PasswordHasher"],  # quick, of client secrets too
        "MIDDLEWARE": [
            "oauth2_site.policy.FormActionMiddleware",
            "django.middleware.security.SecurityMiddleware",
            "django.contrib.sessions.middleware.SessionMiddleware",
            "django.middleware.csrf.CsrfViewMiddleware",
            "django.contrib.auth.middleware.AuthenticationMiddleware",
            "django.middleware.clickjacking.XFrameOptionsMiddleware",
        ],
        "TEMPLATES": [
            {
                "BACKEND": "django.template.backends.django.DjangoTemplates",
                "DIRS": [Path(__file__).parent / "templates"],
                "APP_DIRS": True,
                "OPTIONS": {"context_processors": ["django.template.context_processors.request"]},
            }
        ],
        "STATIC_URL": "/static/",
        "OAUTH2_PROVIDER": {
            "SCOPES": {name: f"Use {name}" for name in options.scopes.split()},
            "ACCESS_TOKEN_EXPIRE_SECONDS": options.lifetime,
            "REFRESH_TOKEN_REUSE_PROTECTION": True,
            "PKCE_REQUIRED": True,
            **{f"COMPLIANT_BCP_RFC9700_{name}": True for name in STRICT},
        },
    }


def database(path: Path) -> dict[str, Any]:
    return {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": path,
        "OPTIONS": {
            "timeout": 10,
            "transaction_mode": "IMMEDIATE",
            "init_command": "PRAGMA journal_mode=wal; PRAGMA synchronous=off",
        },
    }
