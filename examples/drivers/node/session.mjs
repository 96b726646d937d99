// A session, for any driver in Node: phases, settings, health, the end (SPEC.md sections 3 and 10).

import fs from "node:fs";

import { Params } from "./params.mjs";
import * as wire from "./wire.mjs";

const { Refusal, malformed } = wire;

export const setting = (name, message) => new Refusal("CONFIGURATION_ERROR", message, { path: name });

class Driver {
  phase = "NEW";
  limit = wire.HANDSHAKE_LIMIT;
  #provider;
  #opened;

  constructor(provider) {
    this.#provider = provider;
  }

  /** What `plugin.initialize` answers. */
  describe(limit) {
    const { name, version, configSchema, capabilities, maxConcurrency } = this.#provider;
    return {
      protocol_version: "1",
      driver: { name, version },
      max_frame_bytes: limit,
      max_concurrency: maxConcurrency,
      config_schema: configSchema,
      capabilities,
    };
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
    const offered = this.#provider.capabilities.some(({ operation }) => operation === method);
    if (!offered && method !== "plugin.health") {
      throw new Refusal("UNSUPPORTED_OPERATION", "this driver does not offer that", { number: wire.METHOD_NOT_FOUND });
    }
    if (this.phase !== "READY") {
      throw new Refusal("INVALID_ARGUMENT", "not before plugin.configure", { number: wire.INVALID_REQUEST });
    }
    return method === "plugin.health" ? this.#health(params) : this.#opened.operations.get(method)(params);
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
    return this.describe(this.limit);
  }

  #configure(params) {
    const config = params.get("config");
    const dryRun = params.flag("dry_run", false);
    if (!wire.isObject(config)) throw malformed("config");
    const known = this.#provider.configSchema.properties ?? {};
    for (const name of Object.keys(config)) {
      if (!Object.hasOwn(known, name)) throw setting(name, "there is no such setting");
    }
    const opened = this.#provider.open(config, dryRun);
    if (!dryRun) {
      this.#opened = opened;
      this.phase = "READY";
    }
    return { identity: opened.identity, key_namespace: [opened.namespace] };
  }

  #health(params) {
    params.only("depth", "shallow", "deep");
    if (params.get("depth") !== "deep") return { healthy: true };
    const checks = this.#opened.health();
    return { healthy: checks.every(({ healthy }) => healthy), checks };
  }
}

export function isFolder(name) {
  return fs.statSync(name, { throwIfNoEntry: false })?.isDirectory() ?? false;
}

/** Makes a refusal of any error; what nobody foresaw has one fixed sentence (SPEC.md 7.6-2). */
function typed(error) {
  if (error instanceof Refusal) return error;
  if (["ENOSPC", "EACCES", "EROFS", "EIO"].includes(error?.code)) {
    return new Refusal("PROVIDER_UNAVAILABLE", "a file of the keystore cannot be read or written");
  }
  const name = error?.constructor?.name ?? "Error";
  console.error(JSON.stringify({ level: "ERROR", logger: "driver", message: "a defect", exception: name }));
  return new Refusal("INTERNAL_ERROR", "the driver failed; its log says more", { number: wire.INTERNAL_ERROR });
}

/** One session over stdin and stdout. */
class Session {
  #driver;
  #lines = new wire.Lines();
  #pending = new Map(); // by id, as JSON: 7 and "7" differ
  #leaving = false;

  constructor(driver) {
    this.#driver = driver;
  }

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
function check(driver, name) {
  let report;
  try {
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

/** Runs a driver as this process, or what its arguments ask for. */
export function main(provider) {
  const [, , option, file, ...more] = process.argv;
  console.log = console.error; // what prints, prints to the log (SPEC.md 2.1-2)
  process.on("SIGINT", () => {}); // Ctrl-C is for the host, which then ends us
  const driver = new Driver(provider);
  if (option === "--describe" && file === undefined) {
    process.stdout.write(`${JSON.stringify(driver.describe(wire.OWN_LIMIT), null, 2)}\n`);
  } else if (option === "--check" && file !== undefined && more.length === 0) {
    check(driver, file);
  } else if (option !== undefined || process.stdin.isTTY) {
    console.error("This is a kmsplug driver: a host starts it. By hand: --describe, --check CONFIG.json");
    process.exitCode = 2;
  } else {
    new Session(driver).run();
  }
}
