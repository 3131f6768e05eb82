"""The Management API, in our language: one method per operation, typed results, errors by what to do."""

from worker.management.changes import ChangesPage, DeletedSync
from worker.management.client import ManagementApi
from worker.management.shapes import Health, RemoteCredential, RemoteStream, RemoteSync

__all__ = [
    "ChangesPage",
    "DeletedSync",
    "Health",
    "ManagementApi",
    "RemoteCredential",
    "RemoteStream",
    "RemoteSync",
]
