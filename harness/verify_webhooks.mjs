// Verifies webhooks as a receiver in JavaScript does: v1 with the official library, v1a with Node's own Ed25519.
// Reads a list of {secret, headers, body} as JSON from stdin; writes for each "ok" or why it is refused, as JSON.
import { createPublicKey, verify } from "node:crypto";
import { createRequire } from "node:module";
import { readFileSync } from "node:fs";

const { Webhook } = createRequire(`${process.argv[2]}/`)("standardwebhooks");
const SPKI = Buffer.from("302a300506032b6570032100", "hex"); // what precedes the 32 bytes of a public key (RFC 8410)

function verifyAsymmetric(secret, headers, body) {
  const key = createPublicKey({
    key: Buffer.concat([SPKI, Buffer.from(secret.slice("whpk_".length), "base64")]),
    format: "der",
    type: "spki",
  });
  const signed = Buffer.from(`${headers["webhook-id"]}.${headers["webhook-timestamp"]}.${body}`);
  const signatures = headers["webhook-signature"].split(" ").filter((each) => each.startsWith("v1a,"));
  if (!signatures.some((each) => verify(null, signed, key, Buffer.from(each.slice(4), "base64")))) {
    throw new Error("No matching signature found");
  }
}

const verdicts = JSON.parse(readFileSync(0, "utf8")).map(({ secret, headers, body }) => {
  try {
    if (secret.startsWith("whpk_")) verifyAsymmetric(secret, headers, body);
    else new Webhook(secret).verify(body, headers);
    return "ok";
  } catch (error) {
    return error.message;
  }
});
process.stdout.write(JSON.stringify(verdicts));
