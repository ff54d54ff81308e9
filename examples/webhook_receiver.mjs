// Receives webhooks: verifies each, and acts on it once.
//
//     npm install standardwebhooks
//     WEBHOOK_SECRET=whsec_… PORT=9000 node webhook_receiver.mjs
//
// Register its URL with POST /webhooks; the answer has the secret. In production, a server that speaks https is in front.

import { createServer } from "node:http";
import { Webhook } from "standardwebhooks";

const LARGEST_BODY = 1_000_000;
const REMEMBERED = 10_000;

const webhook = new Webhook(process.env.WEBHOOK_SECRET);
// Ids of events, the oldest first. In production a table with the id as its key, in the transaction of the work.
const handled = new Set();

// Does the work. Take long work to a queue: the service waits for an answer for WEBHOOK_TIMEOUT seconds only.
function handle(event) {
  console.log(event.type, event.data.id, event.data.status ?? "", event.data.metadata ?? "");
}

// Answers 204 once an event is handled; after every other answer, or none, it is sent again.
async function receive(request) {
  const pieces = [];
  let length = 0;
  for await (const piece of request) {
    length += piece.length;
    if (length > LARGEST_BODY) return 413;
    pieces.push(piece);
  }
  let event;
  try {
    // Verified as it came: JSON that is parsed and written again may differ.
    event = webhook.verify(Buffer.concat(pieces).toString(), request.headers);
  } catch {
    return 401;
  }
  const id = request.headers["webhook-id"];
  if (!handled.has(id)) {  // every event comes at least once
    handle(event);
    handled.add(id);
    if (handled.size > REMEMBERED) handled.delete(handled.values().next().value);
  }
  return 204;
}

const server = createServer((request, response) => {
  receive(request).then(
    (status) => response.writeHead(status).end(),
    () => response.writeHead(500).end(),
  );
});
server.requestTimeout = 30_000;
server.listen(Number(process.env.PORT ?? 9000), "127.0.0.1", () => {
  console.log(`listening on http://127.0.0.1:${server.address().port}`);
});
