"""Receives webhooks: verifies each, and acts on it once.

    pip install standardwebhooks
    WEBHOOK_SECRET=whsec_… PORT=9000 python webhook_receiver.py

Register its URL with POST /webhooks; the answer has the secret. In production, a server that speaks https is in front.
"""

import os
from collections import OrderedDict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock
from typing import Any

from standardwebhooks import Webhook, WebhookVerificationError

LARGEST_BODY = 1_000_000
REMEMBERED = 10_000

webhook = Webhook(os.environ["WEBHOOK_SECRET"])
handled: OrderedDict[str, None] = OrderedDict()
"""Ids of events, the oldest first. In production a table with the id as its key, in the transaction of the work."""
lock = Lock()


def handle(event: dict[str, Any]) -> None:
    """Do the work. Take long work to a queue: the service waits for an answer for WEBHOOK_TIMEOUT seconds only."""
    data = event["data"]
    print(event["type"], data["id"], data.get("status", ""), data.get("metadata") or "", flush=True)


class Receiver(BaseHTTPRequestHandler):
    """Answers 204 once an event is handled; after every other answer, or none, it is sent again."""

    timeout = 30  # seconds in which a request must arrive

    def do_POST(self) -> None:
        """Receive one event."""
        length = int(self.headers.get("Content-Length") or 0)
        if not 0 < length <= LARGEST_BODY:
            return self.answer(413)
        body = self.rfile.read(length)  # verified as it came: JSON that is decoded and encoded again may differ
        try:
            event = webhook.verify(body, dict(self.headers))
        except (WebhookVerificationError, ValueError):
            return self.answer(401)
        event_id = self.headers["webhook-id"]
        with lock:
            if event_id not in handled:  # every event comes at least once
                handle(event)
                handled[event_id] = None
                if len(handled) > REMEMBERED:
                    handled.popitem(last=False)
        return self.answer(204)

    def answer(self, status: int) -> None:
        """Answer without a body."""
        self.send_response(status)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Log no requests: ``handle`` prints."""


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", int(os.environ.get("PORT", "9000"))), Receiver)
    print(f"listening on http://127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()
