"""What is true: the engine's tables."""

from engine.tables.access import ApiToken, IdempotencyKey, Organization, Scope
from engine.tables.base import JsonMapping, JsonObject, Row
from engine.tables.collection_refresh import CollectionRefresh, RefreshStatus
from engine.tables.connect_code import ConnectCode
from engine.tables.consumer import Consumer, Delivery
from engine.tables.credential import Credential
from engine.tables.oauth_app import OAuthApp
from engine.tables.stream import Record, Stream
from engine.tables.sync import (
    ALL_COLLECTIONS,
    INITIALIZING,
    Progress,
    ReadingKind,
    Sync,
    SyncFrequency,
    SyncStatus,
)
from engine.tables.sync_change import SyncChange, SyncFeed

__all__ = [
    "ALL_COLLECTIONS",
    "INITIALIZING",
    "ApiToken",
    "CollectionRefresh",
    "ConnectCode",
    "Consumer",
    "Credential",
    "Delivery",
    "IdempotencyKey",
    "JsonMapping",
    "JsonObject",
    "OAuthApp",
    "Organization",
    "Progress",
    "ReadingKind",
    "Record",
    "RefreshStatus",
    "Row",
    "Scope",
    "Stream",
    "Sync",
    "SyncChange",
    "SyncFeed",
    "SyncFrequency",
    "SyncStatus",
]
