"""Signatures of webhooks, by Standard Webhooks 1.0.0: ``v1`` (HMAC-SHA256) and ``v1a`` (Ed25519).

A secret's prefix says its kind, so that an endpoint may rotate from one kind to the other. The package `cryptography`,
an optional dependency, is loaded only where a ``v1a`` secret is used.
"""

import hashlib
import hmac
import re
import secrets as random
from base64 import b64decode, b64encode
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

_SHARED: Final = "whsec_"
_PRIVATE: Final = "whsk_"
_PUBLIC: Final = "whpk_"
_KEY_BYTES: Final = 32
"""Of new shared secrets, where the standard takes 24 to 64, and of the keys of Ed25519 (RFC 8032)."""
_SECRET_BYTES: Final = range(24, 65)
_EVENT_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,255}")
"""Without a full stop, which separates what is signed."""


class SignerMissing(Exception):
    """Signatures v1a need the package cryptography: install image-processing-service[ed25519]."""

    def __init__(self) -> None:
        super().__init__((type(self).__doc__ or "").strip())


def new_secret(kind: Literal["v1", "v1a"]) -> str:
    """Returns a new random secret: ``whsec_`` and a shared secret, or ``whsk_`` and a private key, in Base64.

    Raises:
        SignerMissing: for v1a, if `cryptography` is not installed.
    """
    if kind == "v1a":
        _private_key(bytes(_KEY_BYTES))  # raises here instead of at the first delivery
    return (_SHARED if kind == "v1" else _PRIVATE) + _text(random.token_bytes(_KEY_BYTES))


def public_key(secret: str) -> str | None:
    """Returns what receivers verify with: ``whpk_`` and the public key of a v1a secret; None for a shared secret.

    Raises:
        SignerMissing: `cryptography` is not installed.
        ValueError: it is no secret.
    """
    kind, key = _parse(secret)
    if kind == _SHARED:
        return None
    return _PUBLIC + _text(_private_key(key).public_key().public_bytes_raw())


def signature_headers(secrets: Sequence[str], *, event_id: str, sent_at: int, body: bytes) -> dict[str, str]:
    """Returns the three headers of a webhook, signed with each secret: the new and the old one during a rotation.

    Args:
        secrets: one or more, of any kind.
        event_id: the same for each attempt; letters, digits, ``_`` and ``-`` only.
        sent_at: of this attempt, in Unix seconds: receivers refuse what is older than some minutes.
        body: exactly what is sent.

    Raises:
        SignerMissing: one is a v1a secret, and `cryptography` is not installed.
        ValueError: an argument is not as described.
    """
    if not secrets:
        raise ValueError("a webhook is signed with at least one secret")
    if not _EVENT_ID.fullmatch(event_id):
        raise ValueError("the event's id contains characters that cannot be signed unambiguously")
    signed = b"%s.%d.%s" % (event_id.encode(), sent_at, body)
    return {
        "webhook-id": event_id,
        "webhook-timestamp": str(sent_at),
        "webhook-signature": " ".join(_signature(secret, signed) for secret in secrets),
    }


def _signature(secret: str, signed: bytes) -> str:
    kind, key = _parse(secret)
    if kind == _SHARED:
        return "v1," + _text(hmac.digest(key, signed, hashlib.sha256))
    return "v1a," + _text(_private_key(key).sign(signed))


def _parse(secret: str) -> tuple[str, bytes]:
    """Returns the prefix and the key. No error shows a secret."""
    prefix, separator, encoded = secret.partition("_")
    try:
        key = b64decode(encoded, validate=True)
    except ValueError:
        key = b""
    kind = prefix + separator
    lengths = {_SHARED: _SECRET_BYTES, _PRIVATE: (_KEY_BYTES,)}.get(kind, ())
    if len(key) not in lengths:
        raise ValueError("the secret is not whsec_ or whsk_ with a key in Base64")
    return kind, key


def _private_key(key: bytes) -> "Ed25519PrivateKey":
    try:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import (  # noqa: PLC0415 — an optional dependency
            Ed25519PrivateKey,
        )
    except ModuleNotFoundError:
        raise SignerMissing from None
    return Ed25519PrivateKey.from_private_bytes(key)


def _text(key: bytes) -> str:
    return b64encode(key).decode()
