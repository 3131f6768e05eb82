"""The connect flow against an OAuth2 provider that nobody here wrote, up to a credential that syncs.

`in_chromium.py` beside this file tells the same story in a real browser.
"""

import pytest

from tests.e2e.connect.agent import HttpAgent
from tests.e2e.connect.stage import Stage
from tests.e2e.connect.story import (
    ELSEWHERE,
    USED,
    check_connected,
    check_declined,
    check_kept_secret,
    check_syncs,
    come_to_consent,
)

pytestmark = pytest.mark.e2e


def test_a_connected_account_syncs(agent: HttpAgent, stage: Stage) -> None:
    """Login, consent, code, credential, backfill; then a change, read with a token that was renewed."""
    come_to_consent(agent, stage)
    agent.press("Authorize")

    check_connected(agent, stage)
    check_syncs(stage)
    check_kept_secret(stage)


def test_declining(agent: HttpAgent, stage: Stage) -> None:
    """The product hears of it, and gets no code."""
    come_to_consent(agent, stage)
    agent.press("Cancel")

    check_declined(agent, stage)


def test_nothing_works_twice(agent: HttpAgent, stage: Stage) -> None:
    """Neither the provider's answer, in this browser or another, nor the code that the product was given."""
    come_to_consent(agent, stage)
    agent.press("Authorize")
    check_connected(agent, stage)
    answer = next(url for url in agent.visited if url.startswith(stage.callback_url))
    session, query = stage.product.arrivals[-1].session, stage.product.arrivals[-1].query

    again = stage.product.exchange(query["code"], stage.product.verifiers[session, query["state"]])
    agent.open(answer)
    with HttpAgent() as stranger:
        stranger.open(answer)

    assert again.status_code == 400
    agent.sees(USED)
    stranger.sees(ELSEWHERE)
    assert agent.url == stranger.url == answer
