// A keystore in a folder, and an example of a driver in Node: AES-256-GCM with associated data, RSA and Ed25519
// signatures, versions, states and deletion. It follows protocol/SPEC.md and uses the standard library only.

import fs from "node:fs";
import path from "node:path";

import { Crypto, MECHANISMS, MOST_INPUT, MOST_RANDOM } from "./crypto.mjs";
import { Keys, NAMESPACE, USAGES, WINDOW_DAYS } from "./keys.mjs";
import { Params } from "./params.mjs";
import { Store } from "./store.mjs";
import * as wire from "./wire.mjs";

const { Refusal, malformed } = wire;
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

const description = (limit) => ({
  protocol_version: "1",
  driver: { name: "node-example", version: "1.0" },
  max_frame_bytes: limit,
  max_concurrency: 4, // threads that Node makes RSA keys on
  config_schema: CONFIG_SCHEMA,
  capabilities: CAPABILITIES,
});

const setting = (name, message) => new Refusal("CONFIGURATION_ERROR", message, { path: name });

class Driver {
  phase = "NEW";
  limit = wire.HANDSHAKE_LIMIT;
  #operations = new Map([["plugin.health", () => undefined]]);

  constructor() {
    for (const { operation } of CAPABILITIES) this.#operations.set(operation, () => undefined);
  }

  /** Carries out one request; returns a result, or a promise of one for what takes its time. */
  call(method, params) {
    switch (method) {
      case "plugin.ping":
        return {};
      case "plugin.initialize":
        if (this.phase !== "NEW") throw new Refusal("INVALID_ARGUMENT", "the session is initialized already");
        return this.#initialize(params);
      case "plugin.configure":
        if (this.phase !== "INITIALIZED") {
          throw new Refusal("INVALID_ARGUMENT", "configure comes once, after initialize");
        }
        return this.#configure(params);
    }
    const operation = this.#operations.get(method);
    if (operation === undefined) {
      throw new Refusal("UNSUPPORTED_OPERATION", "this driver does not offer that", { number: wire.METHOD_NOT_FOUND });
    }
    if (this.phase !== "READY") {
      throw new Refusal("INVALID_ARGUMENT", "not before plugin.configure", { number: wire.INVALID_REQUEST });
    }
    return operation(params);
  }

  #initialize(params) {
    const offered = params.get("protocol_versions");
    const good = Array.isArray(offered) && offered.length > 0 && offered.every((name) => typeof name === "string");
    if (!good) throw malformed("protocol_versions");
    if (!wire.isObject(params.get("host"))) throw malformed("host");
    const limit = params.number("max_frame_bytes", wire.HANDSHAKE_LIMIT, 1 << 26, wire.OWN_LIMIT);
    if (!offered.includes("1")) throw new Refusal("UNSUPPORTED_OPERATION", "this driver speaks protocol version 1");
    this.phase = "INITIALIZED";
    this.limit = Math.min(limit, wire.OWN_LIMIT);
    return description(this.limit);
  }

  #configure(params) {
    const config = params.get("config");
    const dryRun = params.flag("dry_run", false);
    if (!wire.isObject(config)) throw malformed("config");
    for (const name of Object.keys(config)) {
      if (!Object.hasOwn(CONFIG_SCHEMA.properties, name)) throw setting(name, "there is no such setting");
    }
    const { folder, secret } = config;
    if (typeof folder !== "string" || !path.isAbsolute(folder) || !isFolder(folder)) {
      throw setting("folder", "folder has to be the absolute path of a folder that exists");
    }
    if (typeof secret !== "string" || secret.length < LEAST_SECRET) {
      throw setting("secret", `secret has to be a text of at least ${LEAST_SECRET} characters`);
    }
    const store = new Store(folder, secret);
    const identity = store.identify(dryRun);
    if (!dryRun) this.#open(store);
    return { identity, key_namespace: [NAMESPACE] };
  }

  #open(store) {
    const keys = new Keys(store);
    const crypto = new Crypto(store);
    this.phase = "READY";
    this.#operations = new Map([
      ["plugin.health", (params) => this.#health(params, store)],
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

  #health(params, store) {
    params.only("depth", "shallow", "deep");
    if (params.get("depth") !== "deep") return { healthy: true };
    try {
      store.identify(true);
      return { healthy: true, checks: [{ name: "keystore", healthy: true }] };
    } catch {
      const detail = "the folder cannot be read, or the secret no longer opens it";
      return { healthy: false, checks: [{ name: "keystore", healthy: false, detail }] };
    }
  }
}

function isFolder(name) {
  return fs.statSync(name, { throwIfNoEntry: false })?.isDirectory() ?? false;
}

/** Makes a refusal of any error; what nobody foresaw has one fixed sentence (SPEC.md 7.6-2). */
function typed(error) {
  if (error instanceof Refusal) return error;
  if (["ENOSPC", "EACCES", "EROFS", "EIO"].includes(error?.code)) {
    return new Refusal("PROVIDER_UNAVAILABLE", "the folder of the keystore cannot be read or written");
  }
  const name = error?.constructor?.name ?? "Error";
  console.error(JSON.stringify({ level: "ERROR", logger: "node-example", message: "a defect", exception: name }));
  return new Refusal("INTERNAL_ERROR", "the driver failed; its log says more", { number: wire.INTERNAL_ERROR });
}

/** One session over stdin and stdout. */
class Session {
  #driver = new Driver();
  #lines = new wire.Lines();
  #pending = new Map(); // by id, as JSON: 7 and "7" differ
  #leaving = false;

  run() {
    process.stdin.on("data", (data) => this.#lines.feed(data, (line) => this.#onLine(line)));
    process.stdin.on("end", () => process.exit(0));
    process.stdin.on("error", () => process.exit(0));
    process.stdout.on("error", () => process.exit(1));
  }

  #onLine(line) {
    if (line === null) {
      const long = new Refusal("INVALID_ARGUMENT", "the line is longer than the limit", { number: wire.INVALID_REQUEST });
      this.#write(undefined, null, long);
    } else if (!wire.isBlank(line)) {
      try {
        const request = wire.parse(wire.decode(line));
        if (request?.id !== undefined) this.#onRequest(request);
        // plugin.cancel needs no care: what takes long is nearly done when it comes.
      } catch (refusal) {
        this.#write(refusal.id, null, typed(refusal));
      }
    }
  }

  #onRequest({ id, method, params }) {
    const name = JSON.stringify(id);
    if (this.#pending.has(name) || this.#leaving) {
      const text = this.#leaving ? "the session is over" : "this id is in use";
      throw Object.assign(new Refusal("INVALID_ARGUMENT", text, { number: wire.INVALID_REQUEST }), { id });
    }
    if (method === "plugin.shutdown") {
      this.#leaving = true;
      Promise.allSettled(this.#pending.values()).then(() => {
        process.stdout.write(wire.response(id, {}, null, this.#driver.limit), () => process.exit(0));
      });
      return;
    }
    try {
      const result = this.#driver.call(method, new Params(params));
      if (result instanceof Promise) {
        const answered = result
          .then((found) => this.#write(id, found, null))
          .catch((error) => this.#write(id, null, typed(error)))
          .finally(() => this.#pending.delete(name));
        this.#pending.set(name, answered);
      } else {
        this.#write(id, result, null);
        this.#lines.limit = this.#driver.limit; // the new limit holds after the answer to plugin.initialize
      }
    } catch (error) {
      this.#write(id, null, typed(error));
    }
  }

  #write(id, result, refusal) {
    process.stdout.write(wire.response(id, result, refusal, this.#driver.limit));
  }
}

/** Opens the keystore with the settings in a file, looks deeply and reports (SPEC.md 1.3-3). */
function check(name) {
  let report;
  try {
    const driver = new Driver();
    driver.phase = "INITIALIZED";
    driver.call("plugin.configure", new Params({ config: wire.decode(fs.readFileSync(name)) }));
    report = driver.call("plugin.health", new Params({ depth: "deep" }));
  } catch (error) {
    const refusal = error.code === "ENOENT" ? setting("file", "there is no such file") : typed(error);
    report = { healthy: false, error: { ...refusal.data, message: refusal.message } };
  }
  process.stdout.write(`${JSON.stringify(report, null, 2)}\n`);
  process.exitCode = report.healthy ? 0 : 1;
}

const [, , option, file, ...more] = process.argv;
console.log = console.error; // what prints, prints to the log (SPEC.md 2.1-2)
process.on("SIGINT", () => {}); // Ctrl-C is for the host, which then ends us
if (option === "--describe" && file === undefined) {
  process.stdout.write(`${JSON.stringify(description(wire.OWN_LIMIT), null, 2)}\n`);
} else if (option === "--check" && file !== undefined && more.length === 0) {
  check(file);
} else if (option !== undefined || process.stdin.isTTY) {
  console.error("This is a kmsplug driver: a host starts it. By hand: --describe, --check CONFIG.json");
  process.exitCode = 2;
} else {
  new Session().run();
}
