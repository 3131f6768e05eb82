"""Sealed secrets: authenticated, bound to their owner, rotatable, and never quoted."""

import base64

import pytest

from foundation.vault import KEY_BYTES, Vault, VaultError, generate_key

OLD = generate_key("old")
NEW = generate_key("new")
CANARY = "c4nary" * 8


def encoded(key: bytes) -> str:
    return base64.urlsafe_b64encode(key).decode()


@pytest.mark.parametrize("secret", [b"", b"sk_test_1", bytes(range(256)), b"x" * 1_000_000])
def test_opens_what_it_sealed(secret: bytes) -> None:
    """What was sealed for an owner opens for that owner, byte for byte."""
    vault = Vault.from_text(NEW)

    sealed = vault.seal(secret, context="tenant-1")

    assert vault.open(sealed, context="tenant-1") == secret
    assert sealed.isascii()


def test_same_secret_never_seals_alike() -> None:
    """Two seals of one secret differ, so that equal secrets cannot be recognised."""
    vault = Vault.from_text(NEW)

    seals = {vault.seal(b"secret", context="tenant-1") for _ in range(100)}

    assert len(seals) == 100


def test_sealed_value_shows_nothing_of_the_secret() -> None:
    """Neither the secret nor its encoding is found in what is stored."""
    sealed = Vault.from_text(NEW).seal(CANARY.encode(), context="tenant-1")

    raw = base64.urlsafe_b64decode(sealed.partition(".")[2])

    assert CANARY not in sealed
    assert CANARY.encode() not in raw


def test_rotation_keeps_old_values_readable() -> None:
    """The first key seals, every listed key opens, and what an older key sealed is known to be so."""
    before = Vault.from_text(OLD)
    sealed_before = before.seal(b"secret", context="tenant-1")

    after = Vault.from_text(f"{NEW}, {OLD}")
    sealed_after = after.seal(b"secret", context="tenant-1")

    assert after.open(sealed_before, context="tenant-1") == b"secret"
    assert not after.is_current(sealed_before)
    assert after.is_current(sealed_after)
    assert Vault.from_text(NEW).open(sealed_after, context="tenant-1") == b"secret"


def test_retired_key_is_named() -> None:
    """A value whose key has left the list does not open, and the error says which key to put back."""
    sealed = Vault.from_text(OLD).seal(b"secret", context="tenant-1")

    with pytest.raises(VaultError, match="'old'"):
        Vault.from_text(NEW).open(sealed, context="tenant-1")


def test_other_owner_cannot_open() -> None:
    """A value copied into another owner's row does not open there."""
    vault = Vault.from_text(NEW)
    sealed = vault.seal(b"secret", context="tenant-1")

    with pytest.raises(VaultError, match="does not open for this owner"):
        vault.open(sealed, context="tenant-2")


def test_every_flipped_byte_is_noticed() -> None:
    """A change of any byte, of the nonce, the text or the tag, keeps the value from opening."""
    vault = Vault.from_text(NEW)
    key_id, _, text = vault.seal(b"secret", context="tenant-1").partition(".")
    raw = base64.urlsafe_b64decode(text)

    for position in range(len(raw)):
        changed = bytearray(raw)
        changed[position] ^= 1
        with pytest.raises(VaultError):
            vault.open(f"{key_id}.{encoded(bytes(changed))}", context="tenant-1")


@pytest.mark.parametrize("sealed", ["", "new", "new.", "new.A", "new.AAAA", "new.ä", ".", "new." + "A" * 16])
def test_malformed_value_is_refused(sealed: str) -> None:
    """What was never sealed ends in the vault's own error, not in one of a library beneath."""
    with pytest.raises(VaultError):
        Vault.from_text(NEW).open(sealed, context="tenant-1")


@pytest.mark.parametrize(
    "newest", [NEW.replace("new:", "k:"), NEW.replace("new:", "Key_2-b:")], ids=["letter", "word"]
)
def test_key_ids_may_be_words(newest: str) -> None:
    """Letters, digits, dash and underscore make a key id."""
    assert Vault.from_text(newest).seal(b"x", context="t").partition(".")[0] == newest.partition(":")[0]


def test_standard_and_url_safe_base64_are_both_understood() -> None:
    """A key made with any common tool works: `openssl rand -base64 32` uses the other alphabet."""
    key = b"\xfb\xff" * (KEY_BYTES // 2)
    sealed = Vault.from_text(f"k:{base64.b64encode(key).decode()}").seal(b"secret", context="t")

    assert Vault.from_text(f"k:{encoded(key)}").open(sealed, context="t") == b"secret"


@pytest.mark.parametrize("text", ["", " ", ",", " , "])
def test_no_key_is_refused(text: str) -> None:
    """A vault without keys cannot be made."""
    with pytest.raises(VaultError, match="at least one"):
        Vault.from_text(text)


MALFORMED = {
    "no id at all": CANARY,
    "no id, of the right length": encoded(b"\x00" * KEY_BYTES),
    "empty id": f":{CANARY}",
    "id with a dot": f"a.b:{encoded(CANARY.encode()[:KEY_BYTES])}",
    "id and key swapped": f"{encoded(CANARY.encode()[:KEY_BYTES])}:k1",
    "too short": f"k1:{encoded(CANARY.encode()[:16])}",
    "too long": f"k1:{encoded(CANARY.encode())}",
    "not base64": f"k1:{CANARY}!",
    "with foreign characters inside": f"k1:{encoded(CANARY.encode()[:KEY_BYTES])[:20]} !{CANARY}",
    "not ASCII": f"k1:{CANARY}ä",
    "second one malformed": f"{NEW},{CANARY}",
}


@pytest.mark.parametrize("text", MALFORMED.values(), ids=MALFORMED.keys())
def test_malformed_key_is_described_and_never_quoted(text: str) -> None:
    """The error says what was expected; no piece of the entry that could be key material is in it."""
    with pytest.raises(VaultError) as caught:
        Vault.from_text(text)

    said = str(caught.value)
    assert "vault key" in said
    secrets = [part for part in text.replace(",", ":").split(":") if len(part) > 16]
    assert not [secret for secret in secrets if secret in said]


def test_malformed_key_is_named() -> None:
    """With several keys the error says which one is meant."""
    with pytest.raises(VaultError, match="'second'"):
        Vault.from_text(f"{NEW},second:AAAA")


def test_same_id_twice_is_refused() -> None:
    """Two keys under one id would silently make one of them useless for opening."""
    with pytest.raises(VaultError, match="'new' is given twice"):
        Vault.from_text(f"{NEW},{generate_key('new')}")
