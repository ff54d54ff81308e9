"""Signatures of webhooks, verified as receivers in JavaScript do: with the official library, and v1a with Node.js."""

import json
import time

from harness.webhook_verifiers import Received, javascript_verdicts
from image_service.domain.webhook_signature import new_secret, public_key, signature_headers

BODY = json.dumps({"type": "image.done", "data": {"filename": "Straße 🖼️.png"}}, ensure_ascii=False)
REFUSED = "No matching signature found"


def received(secret: str, *signed_with: str, body: str = BODY, age: int = 0) -> Received:
    headers = signature_headers(signed_with, event_id="evt_1", sent_at=int(time.time()) - age, body=BODY.encode())
    return {"secret": secret, "headers": headers, "body": body}


def test_receivers_in_javascript_accept_what_was_signed_and_refuse_all_else() -> None:
    new, old, other, private = new_secret("v1"), new_secret("v1"), new_secret("v1"), new_secret("v1a")
    public, other_public = public_key(private), public_key(new_secret("v1a"))
    assert public is not None
    assert other_public is not None
    tried = [
        (received(new, new), "ok"),
        (received(new, new, old), "ok"),
        (received(old, new, old), "ok"),
        (received(old, private, old), "ok"),
        (received(public, private), "ok"),
        (received(public, private, old), "ok"),
        (received(other, new, old, private), REFUSED),
        (received(other_public, new, old, private), REFUSED),
        (received(new, new, body=BODY + " "), REFUSED),
        (received(public, private, body=BODY + " "), REFUSED),
        (received(new, new, age=600), "Message timestamp too old"),
    ]
    assert javascript_verdicts([each for each, _ in tried]) == [verdict for _, verdict in tried]
