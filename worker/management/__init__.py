"""The Management API, in our language: one method per operation, typed results, errors by what to do."""

from worker.management.client import AsyncManagementApi, ManagementApi
from worker.management.shapes import Health, RemoteCredential, RemoteStream, RemoteSync

__all__ = [
    "AsyncManagementApi",
    "Health",
    "ManagementApi",
    "RemoteCredential",
    "RemoteStream",
    "RemoteSync",
]
