"""Secrets are known by their shape, whoever issued them, and looking for them takes no time worth naming."""

import time

import pytest

from foundation.secret_shapes import MASK, SECRET_VALUES

HEX = "0123456789abcdef"
WORD = "AbCdEf0123456789"
SECRETS = {
    "Stripe": f"sk_live_{WORD}",
    "Stripe, restricted": f"rk_test_{WORD}",
    "Standard Webhooks": f"whsec_{WORD}+/==",
    "GitHub, personal": f"ghp_{WORD}{WORD}",
    "GitHub, OAuth": f"gho_{WORD}{WORD}",
    "GitHub, App": f"ghs_{WORD}{WORD}",
    "GitHub, fine-grained": f"github_pat_{WORD}_{WORD}",
    "HubSpot": "pat-na1-01234567-89ab-cdef-0123-456789abcdef",
    "HubSpot, Europe": "pat-eu1-01234567-89ab-cdef-0123-456789abcdef",
    "Shopify": f"shpat_{HEX}{HEX}",
    "Shopify, shared secret": f"shpss_{HEX}{HEX}",
    "Airtable": f"pat{WORD[:14]}.{HEX * 4}",
    "Airtable, old": f"key{WORD[:14]}",
    "Salesforce": f"00D5g00000AbCdE!{WORD}.{WORD}_{WORD}",
    "SendGrid": f"SG.{WORD}_-{WORD}.{WORD}-{WORD}",
    "Linear": f"lin_api_{WORD}{WORD}",
    "Linear, OAuth": f"lin_oauth_{HEX}{HEX}",
    "Marketo": "01234567-89ab-cdef-0123-456789abcdef:lon",
    "QuickBooks, refresh": f"AB11638{WORD}{WORD}",
    "Slack": "xoxb-1234567890-AbCdEfGhIjKl",
    "AWS": "AKIA0123456789ABCDEF",
    "JWT": f"eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJodHRwcyJ9.{WORD}-_{WORD}",
    "JWT without signature": "eyJhbGciOiJub25lIn0.eyJpc3MiOiJodHRwcyJ9.",
    "JWT, encrypted": f"eyJhbGciOiJkaXIiLCJlbmMi..{WORD}.{WORD}.{WORD}".replace("..", f".{WORD}."),
    "a URL's login": f"a-user:{WORD}",
    "a URL's token": f"{WORD}{WORD}",
    "Bearer": f"{WORD}~{WORD}",
    "Basic": "YS11c2VyOmEtcGFzc3dvcmQ=",
    "Basic without padding": "YS11c2VyOmEtcGFzc3dv",
}
AROUND = {"a URL's login": "https://{}@h.example/x", "a URL's token": "https://{}@h.example/x"}
AROUND |= {"Bearer": "authorization: bearer {}", "Basic": "Basic {}", "Basic without padding": "basic {}"}


@pytest.mark.parametrize("name", SECRETS)
@pytest.mark.parametrize("sentence", ["{}", "(key {}, refused)", '{{"key": "{}"}}', "key={}&x=1", "a\n{}\nb"])
def test_every_form_is_masked(name: str, sentence: str) -> None:
    """Wherever it stands in a text, nothing of it is left, and the text around it stays."""
    said = sentence.format(AROUND.get(name, "{}").format(SECRETS[name]))

    masked = SECRET_VALUES.sub(MASK, said)

    assert MASK in masked
    assert SECRETS[name] not in masked
    assert len(masked) <= len(said) - len(SECRETS[name]) + len(MASK)
    assert masked.split(MASK)[0] == said[: len(masked.split(MASK)[0])]


ORDINARY = [
    "stripe:customer",
    "https://api.example.com/v1/syncs?mail=a@b.example",
    "01a22163-81a6-72eb-94f4-45bb54ef7386",
    "postgresql://h/name",
    "keyboard shortcuts of the patient",
    "Basic authentication failed",
    "a skeleton key, path-of-the-file, pattern.html",
    "cus_NffrFeUfNV2Hib and evt_1NG8Du2eZvKYlo2CUI79vXWy",
    "2026-11-28T09:18:28.589778Z",
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
]


@pytest.mark.parametrize("text", ORDINARY)
def test_ordinary_texts_stay(text: str) -> None:
    """Ids, addresses and words are what an operator needs to read."""
    assert SECRET_VALUES.sub(MASK, text) == text


LONG = 30_000
PIECES = [
    *(
        "a",
        "-",
        " ",
        "eyJ",
        "eyJ-",
        "eyJaaaaaaaa.",
        "SG.",
        "SG.a",
        "://",
        "://a:",
        "://a@",
        "bearer ",
        "basic ",
    ),
    *(
        "basic a",
        "pat",
        "pat-na1-",
        "key",
        "key1",
        "xoxb-",
        "00D",
        "00Daaaaaaaaaaaa!",
        "AB1234567",
        "0123abcd-",
    ),
    *("ghp_", "shpat_", "lin_api_", "AKIA", "sk_live_", "whsec_"),
]


@pytest.mark.parametrize("piece", PIECES)
@pytest.mark.parametrize("start", ["", "eyJ", "SG.", "://", "bearer ", "basic ", "https://a:"])
def test_no_text_makes_the_search_slow(start: str, piece: str) -> None:
    """The worst takes about as long as prose: the time grows with the length, not with its square."""
    text = start + piece * (LONG // len(piece))

    began = time.process_time()
    SECRET_VALUES.sub(MASK, text)

    assert time.process_time() - began < 1
