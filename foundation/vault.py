"""Authenticated encryption for secrets at rest, with several keys so that they can be rotated."""

import base64
import binascii
import os
import re
from collections.abc import Mapping
from typing import Final, Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

KEY_BYTES: Final = 32
NONCE_BYTES: Final = 12
KEY_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,32}")  # too short for a key that was given without an id


class VaultError(Exception):
    """A secret could not be sealed or opened. Says why, never what."""


class Vault:
    """Seals bytes with AES-256-GCM and binds each value to its owner.

    A sealed value reads `key_id.base64(nonce + ciphertext)`. The context (for example the tenant's id) is
    authenticated but not stored, so a value copied into another owner's row does not open.
    """

    def __init__(self, keys: Mapping[str, bytes]) -> None:
        if not keys:
            raise VaultError("no vault key: give at least one as id:base64 of 32 bytes")
        self._ciphers = {key_id: AESGCM(key) for key_id, key in keys.items()}
        self._newest = next(iter(keys))

    @classmethod
    def from_text(cls, text: str) -> Self:
        """Read `id:base64,id:base64`: the first key seals, every key opens."""
        keys: dict[str, bytes] = {}
        for number, entry in enumerate(filter(None, (part.strip() for part in text.split(","))), start=1):
            key_id, colon, encoded = entry.partition(":")
            if not colon or not KEY_ID.fullmatch(key_id):
                raise VaultError(f"vault key number {number}: expected id:base64, the id a short word")
            if key_id in keys:
                raise VaultError(f"vault key {key_id!r} is given twice: give the new one another id")
            keys[key_id] = _decoded_key(key_id, encoded)
        return cls(keys)

    def seal(self, secret: bytes, *, context: str) -> str:
        nonce = os.urandom(NONCE_BYTES)
        ciphertext = self._ciphers[self._newest].encrypt(nonce, secret, context.encode())
        return f"{self._newest}.{base64.urlsafe_b64encode(nonce + ciphertext).decode()}"

    def open(self, sealed: str, *, context: str) -> bytes:
        key_id, _, encoded = sealed.partition(".")
        cipher = self._ciphers.get(key_id)
        if cipher is None:
            named = repr(key_id) if KEY_ID.fullmatch(key_id) else "without a name"
            raise VaultError(f"sealed with key {named}, which is not among the vault keys")
        try:
            raw = base64.urlsafe_b64decode(encoded)
            return cipher.decrypt(raw[:NONCE_BYTES], raw[NONCE_BYTES:], context.encode())
        except (InvalidTag, binascii.Error, ValueError) as exc:
            raise VaultError(f"a value sealed with key {key_id!r} does not open for this owner") from exc

    def reseal(self, sealed: str, *, context: str) -> str:
        """The same secret, sealed with the newest key."""
        return self.seal(self.open(sealed, context=context), context=context)

    def is_current(self, sealed: str) -> bool:
        """Whether the newest key sealed it; if not, seal it again to finish a rotation."""
        return sealed.startswith(f"{self._newest}.")


def generate_key(key_id: str = "k1") -> str:
    """A fresh entry for the list of vault keys."""
    return f"{key_id}:{base64.urlsafe_b64encode(os.urandom(KEY_BYTES)).decode()}"


def _decoded_key(key_id: str, encoded: str) -> bytes:
    try:
        key = base64.b64decode(encoded.replace("-", "+").replace("_", "/"), validate=True)
    except (binascii.Error, ValueError) as exc:
        raise VaultError(f"vault key {key_id!r}: not base64") from exc
    if len(key) != KEY_BYTES:
        raise VaultError(f"vault key {key_id!r}: expected {KEY_BYTES} bytes, got {len(key)}")
    return key
