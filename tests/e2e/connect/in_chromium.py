"""The connect flow in a real browser, and what only a browser shows: `make browser`, see docs/connect.md.

Product, engine and provider are three sites with TLS; the consent page's form may lead to the engine only.
"""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.e2e.connect.agent import HttpAgent
from tests.e2e.connect.chromium import Chromium, binaries
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
from tests.e2e.connect.tls import Front
from tests.e2e.harness import HOST

PHONE = {"width": 360, "height": 640, "deviceScaleFactor": 2, "mobile": True}


@pytest.fixture(scope="session", autouse=True)
def chromium_is_here() -> None:
    """Or else say how to get it, once."""
    try:
        binaries()
    except LookupError as exc:
        pytest.exit(str(exc), returncode=2)


@pytest.fixture(scope="module")
def stage(new_machine) -> Iterator[Stage]:
    machine = new_machine()
    with (
        Front(machine.home, ["product.test", "engine.test", "provider.test"]) as front,
        Stage(machine, lambda name, port: f"https://{name}.test:{front.before(port)}") as stage,
    ):
        yield stage


@pytest.fixture
def agent(stage: Stage) -> Iterator[Chromium]:
    with Chromium(stage.machine) as chromium:
        yield chromium


def test_a_connected_account_syncs(agent: Chromium, stage: Stage) -> None:
    """Login, consent, code, credential, backfill; then a change, read with a token that was renewed."""
    come_to_consent(agent, stage)
    agent.press("Authorize")

    check_connected(agent, stage)
    check_syncs(stage)
    check_kept_secret(stage)


def test_declining(agent: Chromium, stage: Stage) -> None:
    come_to_consent(agent, stage)
    agent.press("Cancel")

    check_declined(agent, stage)


def test_nothing_stays_behind(agent: Chromium, stage: Stage) -> None:
    """No address of the engine is in the history or in a referrer, and nothing of it is cached."""
    come_to_consent(agent, stage)
    agent.press("Authorize")
    check_connected(agent, stage)

    events = agent.network()
    referrers = [
        value for headers in sent(events) for name, value in headers.items() if name.lower() == "referer"
    ]
    assert any(stage.origins["provider"] in each for each in agent.history)
    for secret in (stage.origins["engine"], stage.product.arrivals[-1].query["code"]):
        assert not any(secret in each for each in [*agent.history, *referrers])
    assert agent.run("return document.referrer") == ""
    controls = [
        headers["cache-control"]
        for url, headers in answers(events)
        if url.startswith(stage.origins["engine"])
    ]
    assert controls == ["no-store", "no-store"]


def test_the_cookie(agent: Chromium, stage: Stage) -> None:
    """One for this host alone, out of the reach of scripts, that comes back from the provider's site."""
    come_to_consent(agent, stage)
    ((name, before),) = ours(agent).items()
    agent.press("Authorize")
    check_connected(agent, stage)
    after = ours(agent)[name]

    assert {key: before[key] for key in ("domain", "path", "secure", "httpOnly", "sameSite")} == {
        "domain": "engine.test",
        "path": "/",
        "secure": True,
        "httpOnly": True,
        "sameSite": "Lax",
    }
    assert name.startswith("__Host-")
    assert after["value"] == "used"


def test_going_back_and_agreeing_again(agent: Chromium, stage: Stage) -> None:
    """Back leads to the provider's question; a second answer meets a page that says how things are."""
    come_to_consent(agent, stage)
    agent.press("Authorize")
    check_connected(agent, stage)
    exchanged = len(stage.product.answers)

    agent.back()
    agent.sees("Authorize Gangway?")
    agent.press("Authorize")
    agent.sees(USED)
    agent.reload()
    agent.sees(USED)

    assert len(stage.product.answers) == exchanged


def test_somebody_elses_journey(agent: Chromium, stage: Stage) -> None:
    """A link that ends another browser's journey connects nothing here, and still works there."""
    way = Way(ends_at=stage.callback_url)
    with HttpAgent(way) as attacker:
        come_to_consent(attacker, stage)
        attacker.press("Authorize")
        come_to_consent(agent, stage)
        arrived = len(stage.product.arrivals)

        agent.open(attacker.url)

        agent.sees(ELSEWHERE)
        assert len(stage.product.arrivals) == arrived
        way.ends_at = None
        attacker.open(attacker.url)
        check_connected(attacker, stage)


def test_two_tabs(agent: Chromium, stage: Stage) -> None:
    """Each ends its own journey."""
    come_to_consent(agent, stage)
    first, second = agent.windows()[0], agent.new_tab()
    come_to_consent(agent, stage)
    states = []
    for window in (first, second):
        agent.look_at(window)
        agent.press("Authorize")
        check_connected(agent, stage)
        states.append(stage.product.arrivals[-1].query["state"])

    assert len(set(states)) == 2


def test_a_popup(agent: Chromium, stage: Stage) -> None:
    """The product may keep its own page, and have the accounts connected beside it."""
    agent.open(f"{stage.product.origin}/")
    agent.run("window.open('/connect', 'connect', 'popup,width=400,height=600')")
    agent.look_at(agent.windows()[1])
    agent.press("Log in", **stage.provider.USER)
    agent.press("Authorize")

    check_connected(agent, stage)


def test_pages_are_readable_on_a_phone(agent: Chromium, stage: Stage) -> None:
    """Their style is accepted by their own policy, nothing is cut off, and the letters are large enough."""
    agent.devtools("Emulation.setDeviceMetricsOverride", **PHONE)
    agent.open(f"{stage.origins['engine']}/link/oauth2/start")

    assert "The link names an OAuth app that does not exist here." in agent.text
    assert agent.run("return document.documentElement.scrollWidth") == PHONE["width"]
    sizes = agent.run(
        "return [...document.querySelectorAll('h1, p')].map(e => parseFloat(getComputedStyle(e).fontSize))"
    )
    assert sizes == [24, 18, 18]


def test_pages_cannot_be_framed(agent: Chromium, stage: Stage) -> None:
    agent.open(f"{stage.product.origin}/")
    agent.network()
    frame = (
        "const f = document.createElement('iframe'); f.onload = () => arguments[1](); f.src = arguments[0];"
    )
    agent.run_async(f"{frame} document.body.append(f)", f"{stage.origins['engine']}/link/oauth2/start")

    failures = [
        each["params"]["errorText"] for each in agent.network() if each["method"] == "Network.loadingFailed"
    ]
    assert failures == ["net::ERR_BLOCKED_BY_RESPONSE"]


class Way(httpx.HTTPTransport):
    """A plain client's way through TLS to the same three sites, which may end before an address."""

    def __init__(self, ends_at: str | None) -> None:
        super().__init__(verify=False, trust_env=False)
        self.ends_at = ends_at

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        if self.ends_at is not None and str(request.url).startswith(self.ends_at):
            return httpx.Response(204)
        return super().handle_request(
            httpx.Request(
                request.method,
                request.url.copy_with(host=HOST),
                headers=request.headers,
                stream=request.stream,
                extensions={**request.extensions, "sni_hostname": request.url.host},
            )
        )


def ours(agent: Chromium) -> dict[str, dict[str, Any]]:
    """The engine's cookies."""
    return {name: each for name, each in agent.cookies.items() if "gangway" in name}


def sent(events: list[dict[str, Any]]) -> list[dict[str, str]]:
    """The headers of all requests as they went out."""
    return [
        each["params"]["headers"] for each in events if each["method"] == "Network.requestWillBeSentExtraInfo"
    ]


def answers(events: list[dict[str, Any]]) -> list[tuple[str, dict[str, str]]]:
    """The address and the headers of all answers, redirects among them."""
    found = []
    for params in (each["params"] for each in events):
        response = params.get("redirectResponse") or params.get("response")
        if response is not None and "headers" in response:
            found.append(
                (response["url"], {name.lower(): value for name, value in response["headers"].items()})
            )
    return found
