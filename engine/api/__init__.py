"""The Management API over HTTP (contract 1 to 10)."""

from engine.api.app import create_app

__all__ = ["create_app"]
