"""One page of a collection, asked for and read as a reading does, without its pace and its rows."""

import httpx

from engine.backfill.fetch import Access, get, understood
from engine.providers.catalogue import Provider
from engine.providers.paging import Cursor
from engine.providers.records import Page, read_page
from engine.providers.walk import request


def page_at(
    client: httpx.Client, provider: Provider, collection_id: str, access: Access, cursor: Cursor | None
) -> Page:
    answer = get(client, provider, collection_id, access, request(provider, collection_id, cursor))
    return understood(provider, lambda: read_page(provider, collection_id, answer, cursor))
