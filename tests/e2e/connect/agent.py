"""Somebody with a browser: a protocol, and a plain HTTP client that follows it by reading the HTML."""

from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Final, Protocol, Self
from urllib.parse import urljoin

import httpx

Attributes = dict[str, str]
NAVIGATION: Final = {"Accept": "text/html", "User-Agent": "Mozilla/5.0 (a test)"}


class UserAgent(Protocol):
    """What a person can do, and what they see."""

    @property
    def url(self) -> str: ...

    @property
    def html(self) -> str: ...

    def open(self, url: str) -> None: ...

    def press(self, label: str, **fields: str) -> None:
        """Fill in the page's fields by their names, then press the button or link with that label."""

    def sees(self, text: str) -> None:
        """Go on once the page shows this."""


class HttpAgent:
    """A browser without scripts, pictures or a way back."""

    def __init__(self, transport: httpx.BaseTransport | None = None) -> None:
        self._http = httpx.Client(
            transport=transport, follow_redirects=True, headers=NAVIGATION, timeout=30, trust_env=False
        )
        self.visited: list[str] = []
        """All addresses on the way here, those that only led on as well."""
        self.html = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    @property
    def url(self) -> str:
        return self.visited[-1]

    def open(self, url: str) -> None:
        self._show(self._http.get(url))

    def press(self, label: str, **fields: str) -> None:
        page = Page.of(self.html)
        if (link := page.links.get(label)) is not None:
            self.open(urljoin(self.url, link))
            return
        form, button = page.button(label)
        assert fields.keys() <= form.values.keys(), f"the form has {sorted(form.values)}"
        data = {**form.values, **fields} | ({button["name"]: label} if "name" in button else {})
        assert form.method == "post"
        self._show(self._http.post(urljoin(self.url, form.action), data=data))

    def sees(self, text: str) -> None:
        assert text in self.html, f"{self.url} shows: {self.html}"

    def _show(self, answer: httpx.Response) -> None:
        self.visited += [str(each.url) for each in (*answer.history, answer)]
        self.html = answer.text
        if (url := Page.of(self.html).leads_to) is not None:
            self.open(url)


@dataclass
class Form:
    """What a form would send, and its submit buttons."""

    action: str
    method: str
    values: dict[str, str] = field(default_factory=dict)
    buttons: list[Attributes] = field(default_factory=list)


@dataclass
class Page(HTMLParser):
    """The forms of a page, its links by their text, and where it leads by itself."""

    forms: list[Form] = field(default_factory=list)
    links: dict[str, str] = field(default_factory=dict)
    leads_to: str | None = None
    _link: str | None = None

    def __post_init__(self) -> None:
        super().__init__()

    @classmethod
    def of(cls, html: str) -> Self:
        page = cls()
        page.feed(html)
        return page

    def button(self, label: str) -> tuple[Form, Attributes]:
        """The button with that label, and the form it belongs to."""
        for form in self.forms:
            for button in form.buttons:
                if button.get("value") == label:
                    return form, button
        raise AssertionError(f"no {label!r} on the page, but {self.forms} and {self.links}")

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if tag == "form":
            self.forms.append(Form(given.get("action", ""), given.get("method", "get").lower()))
        elif tag == "input" and self.forms:
            if given.get("type") == "submit":
                self.forms[-1].buttons.append(given)
            elif "name" in given:
                self.forms[-1].values[given["name"]] = given.get("value", "")
        elif tag == "a":
            self._link = given.get("href")
        elif tag == "meta" and given.get("http-equiv") == "refresh":
            self.leads_to = given["content"].partition("url=")[2]

    def handle_data(self, data: str) -> None:
        if self._link is not None and data.strip():
            self.links[data.strip()] = self._link
            self._link = None
