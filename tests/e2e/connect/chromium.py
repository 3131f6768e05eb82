"""A real browser: headless Chromium, driven through the WebDriver protocol of its chromedriver."""

import json
import shutil
from typing import Any, Final, Self

import httpx

from tests.e2e.harness import HOST, Machine, free_port

CHROMIUM: Final = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
MISSING: Final = """the checks in a browser need {}, which is not on the PATH.
Debian: apt-get install chromium chromium-driver; elsewhere: Chrome, and the chromedriver of its version."""
FLAGS: Final = (
    "--headless",
    "--no-sandbox",  # it cannot be had by root, which containers run as
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP *.test 127.0.0.1, MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)
LABELLED: Final = (
    "//input[@type='submit'][@value={0}] | //button[normalize-space()={0}] | //a[normalize-space()={0}]"
)
ELEMENT: Final = "element-6066-11e4-a52e-4f735466cecf"  # the key under which WebDriver names an element


def binaries() -> tuple[str, str]:
    """Where Chromium and its driver are; raises with what to do about it when they are not."""
    browser = next(filter(None, map(shutil.which, CHROMIUM)), None)
    driver = shutil.which("chromedriver")
    if browser is None or driver is None:
        raise LookupError(MISSING.format("chromium" if browser is None else "chromedriver"))
    return browser, driver


class Chromium:
    """A user agent whose profile is new and goes with the machine it runs on."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        browser, driver = binaries()
        port = free_port()
        name = f"chromedriver-{port}"
        self._driver = machine.add(name, (driver, f"--port={port}")).start()
        machine.wait_for_port(port, "chromedriver")
        profile = machine.home / f"profile-{port}"
        options = {"binary": browser, "args": [*FLAGS, f"--user-data-dir={profile}"]}
        wanted = {
            "browserName": "chrome",
            "acceptInsecureCerts": True,
            "goog:chromeOptions": options,
            "goog:loggingPrefs": {"performance": "ALL"},
        }
        self._http = httpx.Client(base_url=f"http://{HOST}:{port}", timeout=60, trust_env=False)
        created = self._call("POST", "/session", {"capabilities": {"alwaysMatch": wanted}})
        self._session = f"/session/{created['sessionId']}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._call("DELETE", self._session)
        self._http.close()
        self._driver.terminate()

    @property
    def url(self) -> str:
        return str(self._ask("/url"))

    @property
    def html(self) -> str:
        return str(self._ask("/source"))

    @property
    def text(self) -> str:
        """What is to be read on the page."""
        return str(self.run("return document.body?.innerText"))

    @property
    def history(self) -> list[str]:
        """The addresses that the back and forward buttons lead to, and the present one."""
        return [each["url"] for each in self.devtools("Page.getNavigationHistory")["entries"]]

    @property
    def cookies(self) -> dict[str, dict[str, Any]]:
        """All cookies of all sites."""
        return {each["name"]: each for each in self.devtools("Network.getAllCookies")["cookies"]}

    def open(self, url: str) -> None:
        self._tell("/url", url=url)

    def press(self, label: str, **fields: str) -> None:
        for name, value in fields.items():
            self._tell(f"{self._find(f'//input[@name={json.dumps(name)}]')}/value", text=value)
        self._tell(f"{self._find(LABELLED.format(json.dumps(label)))}/click")

    def sees(self, text: str) -> None:
        self._machine.wait_until(lambda: text in self.text, f"the page shows {text!r}", 20)

    def back(self) -> None:
        self._tell("/back")

    def reload(self) -> None:
        self._tell("/refresh")

    def run(self, script: str, *args: object) -> Any:
        """What a script returns that runs in the page."""
        return self._tell("/execute/sync", script=script, args=args)

    def run_async(self, script: str, *args: object) -> Any:
        """What a script gives to the function that is its last argument."""
        return self._tell("/execute/async", script=script, args=args)

    def devtools(self, method: str, **params: object) -> Any:
        return self._tell("/goog/cdp/execute", cmd=method, params=params)

    def network(self) -> list[dict[str, Any]]:
        """What happened on the network since this was last asked."""
        entries = self._tell("/se/log", type="performance")
        return [json.loads(each["message"])["message"] for each in entries]

    def new_tab(self) -> str:
        """Open a tab, and look at it."""
        window = str(self._tell("/window/new", type="tab")["handle"])
        self.look_at(window)
        return window

    def windows(self) -> list[str]:
        return list(self._ask("/window/handles"))

    def look_at(self, window: str) -> None:
        self._tell("/window", handle=window)

    def _find(self, xpath: str) -> str:
        found = self._tell("/element", using="xpath", value=xpath)
        return f"/element/{found[ELEMENT]}"

    def _ask(self, path: str) -> Any:
        return self._call("GET", self._session + path)

    def _tell(self, path: str, **body: object) -> Any:
        return self._call("POST", self._session + path, body)

    def _call(self, method: str, path: str, body: object = None) -> Any:
        answer = self._http.request(method, path, json=body)
        value = answer.json()["value"]
        assert answer.is_success, f"{value['error']}: {value['message']}"
        return value
