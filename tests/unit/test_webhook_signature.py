"""Signatures of webhooks: the official verifier for Python, and a fixed example."""

import sys
import time
from base64 import b64decode
from typing import Literal

import pytest
import standardwebhooks
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from image_service.domain.webhook_signature import SignerMissing, new_secret, public_key, signature_headers

BODY = (
    b'{"type":"contact.created","timestamp":"2022-11-03T20:26:10.344522Z",'
    b'"data":{"id":"1f81eb52-5198-4599-803e-771906343485"}}'
)
PRIVATE = "whsk_nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A="
"""The first key in section 7.1 of RFC 8032."""


def signed(*secrets: str, body: bytes = BODY, sent_at: int | None = None) -> dict[str, str]:
    return signature_headers(secrets, event_id="evt_1", sent_at=sent_at or int(time.time()), body=body)


def verify_v1a(public: str, headers: dict[str, str], body: bytes) -> None:
    key = Ed25519PublicKey.from_public_bytes(b64decode(public.removeprefix("whpk_")))
    content = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    key.verify(b64decode(headers["webhook-signature"].removeprefix("v1a,")), content)


def test_example_of_the_standard_signed_by_another_implementation() -> None:
    # Signed with Node.js: crypto.createHmac and crypto.sign.
    secrets = ("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", PRIVATE)
    event_id = "msg_2KWPBgLlAfxdpx2AI54pPJ85f4W"
    assert signature_headers(secrets, event_id=event_id, sent_at=1674087231, body=BODY) == {
        "webhook-id": event_id,
        "webhook-timestamp": "1674087231",
        "webhook-signature": "v1,ARw42xaAApl/nxRo+iPGYwSaMQaOwMo2eyH5JBRA+bQ= "
        "v1a,pbpYBMlty2hExn4zt0UTGb6BaP2Vq5AfyzjB9GGV3x/wCJKd8UjOCf8Qhaji6TKY9C5eNMnlF0GG4udaO6B7Ag==",
    }
    assert public_key(PRIVATE) == "whpk_11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="


def test_official_verifier_accepts_a_signature() -> None:
    secret = new_secret("v1")
    assert standardwebhooks.Webhook(secret).verify(BODY, signed(secret))["type"] == "contact.created"


@pytest.mark.parametrize("kind", ["v1", "v1a"])
def test_official_verifier_accepts_a_rotation_with_either_secret(kind: Literal["v1", "v1a"]) -> None:
    new, old = new_secret("v1"), new_secret("v1")
    headers = signed(new, new_secret(kind), old)
    assert headers["webhook-signature"].count(" ") == 2
    for secret in (new, old):
        standardwebhooks.Webhook(secret).verify(BODY, headers)


@pytest.mark.parametrize("change", [{"body": BODY + b" "}, {"webhook-id": "evt_2"}, {"webhook-timestamp": "+1"}])
def test_official_verifier_refuses_what_was_changed(change: dict[str, str]) -> None:
    secret, now = new_secret("v1"), int(time.time())
    headers = signed(secret, sent_at=now) | change
    headers["webhook-timestamp"] = headers["webhook-timestamp"].replace("+1", str(now + 1))
    body = change.get("body", BODY)
    with pytest.raises(standardwebhooks.WebhookVerificationError, match="No matching signature"):
        standardwebhooks.Webhook(secret).verify(body, headers)


def test_official_verifier_refuses_another_secret_and_an_old_timestamp() -> None:
    secret = new_secret("v1")
    with pytest.raises(standardwebhooks.WebhookVerificationError, match="No matching signature"):
        standardwebhooks.Webhook(new_secret("v1")).verify(BODY, signed(secret))
    with pytest.raises(standardwebhooks.WebhookVerificationError, match="too old"):
        standardwebhooks.Webhook(secret).verify(BODY, signed(secret, sent_at=int(time.time()) - 600))


def test_v1a_signatures_are_verified_with_the_public_key() -> None:
    secret = new_secret("v1a")
    public = public_key(secret)
    assert public is not None
    verify_v1a(public, signed(secret), BODY)
    with pytest.raises(InvalidSignature):
        verify_v1a(public, signed(secret), BODY + b" ")
    with pytest.raises(InvalidSignature):
        verify_v1a(public, signed(new_secret("v1a")), BODY)


@pytest.mark.parametrize(("kind", "prefix"), [("v1", "whsec_"), ("v1a", "whsk_")])
def test_secrets_are_random_and_of_32_bytes(kind: Literal["v1", "v1a"], prefix: str) -> None:
    first, second = new_secret(kind), new_secret(kind)
    assert first != second
    assert first.startswith(prefix)
    assert len(b64decode(first.removeprefix(prefix))) == 32


def test_a_shared_secret_has_no_public_key() -> None:
    assert public_key(new_secret("v1")) is None


@pytest.mark.parametrize(
    "secret", ["", "whsec_", "whsec_c2hvcnQ=", "whsec_*", "whsk_c2hvcnQ=", PRIVATE.removeprefix("whsk_"), "whpk_AAAA"]
)
def test_what_is_no_secret_is_refused_and_not_shown(secret: str) -> None:
    with pytest.raises(ValueError, match=r"^the secret is not whsec_ or whsk_ with a key in Base64$"):
        signed(secret)


@pytest.mark.parametrize("event_id", ["", "evt.1", "evt 1", "evt\r\n1", "évt", "x" * 256])
def test_ids_that_cannot_be_signed_are_refused(event_id: str) -> None:
    with pytest.raises(ValueError, match="id contains characters"):
        signature_headers([PRIVATE], event_id=event_id, sent_at=0, body=b"")


def test_nothing_is_sent_without_a_secret() -> None:
    with pytest.raises(ValueError, match="at least one secret"):
        signed()


def test_without_the_extra_v1_works_and_v1a_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.asymmetric.ed25519", None)
    assert signed(new_secret("v1"))
    for use in (lambda: new_secret("v1a"), lambda: public_key(PRIVATE), lambda: signed(PRIVATE)):
        with pytest.raises(SignerMissing, match=r"install image-processing-service\[ed25519\]"):
            use()
