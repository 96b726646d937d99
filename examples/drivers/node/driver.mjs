// A keystore in a folder, and an example of a driver in Node: AES-256-GCM with associated data, RSA and Ed25519
// signatures, versions, states and deletion. It follows protocol/SPEC.md and uses the standard library only.

import path from "node:path";

import { Crypto, MECHANISMS, MOST_INPUT, MOST_RANDOM } from "./crypto.mjs";
import { Keys, NAMESPACE, USAGES, WINDOW_DAYS } from "./keys.mjs";
import { isFolder, main, setting } from "./session.mjs";
import { Store } from "./store.mjs";

const LEAST_SECRET = 32;

const CONFIG_SCHEMA = {
  $schema: "https://json-schema.org/draft/2020-12/schema",
  type: "object",
  additionalProperties: false,
  required: ["folder", "secret"],
  properties: {
    folder: { type: "string", format: "path", description: "The folder that holds the keys; it has to exist." },
    secret: {
      type: "string",
      minLength: LEAST_SECRET,
      writeOnly: true,
      description: "What the keys are sealed under: random, as from `openssl rand -base64 32`.",
    },
  },
};

const GCM = {
  key_algorithm: "AES_256_GCM",
  mechanism: "AES_256_GCM",
  associated_data: "bytes",
  versions_addressable: true,
  protection: "software",
};
const SEALS = { ...GCM, max_input_bytes: MOST_INPUT, wrap_algorithm: "A256GCM" };
const SIGNERS = [...USAGES.keys()].filter((algorithm) => USAGES.get(algorithm) === "SIGN_VERIFY");

const CAPABILITIES = [
  ...[...USAGES].map(([key_algorithm, usage]) => ({ operation: "key.create", key_algorithm, usage })),
  ...["get", "list", "list_versions", "rotate", "enable", "disable", "cancel_deletion", "purge", "reconcile"].map(
    (name) => ({ operation: `key.${name}` }),
  ),
  { operation: "key.schedule_deletion", deletion_window_days: WINDOW_DAYS },
  ...SIGNERS.map((key_algorithm) => ({ operation: "key.get_public_key", key_algorithm })),
  { operation: "crypto.encrypt", ...SEALS },
  { operation: "crypto.decrypt", ...SEALS },
  { operation: "crypto.generate_data_key", ...GCM },
  ...SIGNERS.flatMap((key_algorithm) =>
    ["crypto.sign", "crypto.verify"].map((operation) => ({
      operation,
      key_algorithm,
      mechanism: MECHANISMS.get(key_algorithm),
      max_input_bytes: MOST_INPUT,
      versions_addressable: true,
      protection: "software",
    })),
  ),
  { operation: "crypto.random", max_input_bytes: MOST_RANDOM },
];

/** Opens the keystore that the settings name, or with *dryRun* looks whether it could. */
function open({ folder, secret }, dryRun) {
  if (typeof folder !== "string" || !path.isAbsolute(folder) || !isFolder(folder)) {
    throw setting("folder", "folder has to be the absolute path of a folder that exists");
  }
  if (typeof secret !== "string" || secret.length < LEAST_SECRET) {
    throw setting("secret", `secret has to be a text of at least ${LEAST_SECRET} characters`);
  }
  const store = new Store(folder, secret);
  return { identity: store.identify(dryRun), namespace: NAMESPACE, operations: operations(store), health: () => health(store) };
}

function operations(store) {
  const keys = new Keys(store);
  const crypto = new Crypto(store);
  return new Map([
    ["key.create", (params) => keys.create(params)],
    ["key.get", (params) => keys.get(params)],
    ["key.list", (params) => keys.list(params)],
    ["key.list_versions", (params) => keys.listVersions(params)],
    ["key.rotate", (params) => keys.rotate(params)],
    ["key.enable", (params) => keys.enable(params)],
    ["key.disable", (params) => keys.disable(params)],
    ["key.schedule_deletion", (params) => keys.scheduleDeletion(params)],
    ["key.cancel_deletion", (params) => keys.cancelDeletion(params)],
    ["key.purge", (params) => keys.purge(params)],
    ["key.reconcile", (params) => keys.reconcile(params)],
    ["key.get_public_key", (params) => keys.publicKey(params)],
    ["crypto.encrypt", (params) => crypto.encrypt(params)],
    ["crypto.decrypt", (params) => crypto.decrypt(params)],
    ["crypto.generate_data_key", (params) => crypto.dataKey(params)],
    ["crypto.sign", (params) => crypto.sign(params)],
    ["crypto.verify", (params) => crypto.verify(params)],
    ["crypto.random", (params) => crypto.random(params)],
  ]);
}

/** Looks deeply: can the folder be read, and does the secret still open it? */
function health(store) {
  try {
    store.identify(true);
    return [{ name: "keystore", healthy: true }];
  } catch {
    const detail = "the folder cannot be read, or the secret no longer opens it";
    return [{ name: "keystore", healthy: false, detail }];
  }
}

main({
  name: "node-example",
  version: "1.0",
  configSchema: CONFIG_SCHEMA,
  capabilities: CAPABILITIES,
  maxConcurrency: 4, // threads that Node makes RSA keys on
  open,
});
