"""The worker's HTTP face: the webhook intake, the status of tenants, and whether we are well."""

from worker.web.app import create_app

__all__ = ["create_app"]
