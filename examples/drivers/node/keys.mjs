// key.*: SPEC.md 4.6 and section 6.

import { createPublicKey, generateKeyPair, generateKeyPairSync, randomBytes } from "node:crypto";
import { promisify } from "node:util";

import { NAMESPACE, noSuchKey } from "./store.mjs";
import { Refusal, malformed } from "./wire.mjs";

export const WINDOW_DAYS = [7, 30];
export const USAGES = new Map([
  ["AES_256_GCM", "ENCRYPT_DECRYPT"],
  ["ED25519", "SIGN_VERIFY"],
  ["RSA_2048", "SIGN_VERIFY"],
]);

// What a state refuses with (SPEC.md 6.2).
const REFUSALS = {
  SUSPENDED: "KEY_DISABLED",
  DEACTIVATED: "KEY_INVALID_STATE",
  DESTROY_SCHEDULED: "KEY_PENDING_DELETION",
  DESTROYED: "KEY_DESTROYED",
};

const DER = { type: "pkcs8", format: "der" };
const DAY_MS = 86_400_000;
const newRsaKey = promisify(generateKeyPair);

export const current = (record) => record.versions.at(-1);
export const stateRefusal = (state) => new Refusal(REFUSALS[state], `the key is ${state}`);
const moment = (ms = Date.now()) => new Date(ms).toISOString().replace(/\.\d+Z$/, "Z");

/** Returns a key as SPEC.md 4.10 wants it; absent members are left out. */
export function describe(record) {
  return {
    key_id: record.id,
    key_version: current(record).name,
    algorithm: record.algorithm,
    usage: record.usage,
    state: current(record).state,
    enforced_by: "host", // whoever has the folder and the secret can use a key whatever its state
    protection: "software",
    created_at: record.created,
    ...(record.name === undefined ? {} : { name: record.name }),
    ...(record.tags.length === 0 ? {} : { tags: Object.fromEntries(record.tags) }),
    ...(record.due === undefined ? {} : { deletion_at: record.due }),
  };
}

/** Makes material: at once, or for RSA off the thread that answers pings. */
async function newMaterial(algorithm) {
  if (algorithm === "AES_256_GCM") return randomBytes(32);
  const { privateKey } =
    algorithm === "RSA_2048" ? await newRsaKey("rsa", { modulusLength: 2048 }) : generateKeyPairSync("ed25519");
  return privateKey.export(DER);
}

const isTerminal = (state) => state === "DESTROY_SCHEDULED" || state === "DESTROYED";

export class Keys {
  constructor(store) {
    this.store = store;
  }

  async create(params) {
    const algorithm = params.text("algorithm", 64, { required: true });
    const usage = params.text("usage", 64);
    const name = params.text("name", 256);
    const tags = params.texts("tags", 50);
    params.only("protection", "software");
    params.only("exportable", false);
    params.only("origin", "generated");
    const natural = USAGES.get(algorithm);
    if (algorithm === "RSA_2048" && usage === undefined) throw malformed("usage");
    if (natural === undefined || (usage !== undefined && usage !== natural)) {
      throw new Refusal("UNSUPPORTED_OPERATION", `keys are ${[...USAGES.keys()].join(", ")}, each for one use`);
    }
    const material = await newMaterial(algorithm);
    const id = this.store.idFor(params.change);
    const first = this.#version("1", material, id);
    return describe(
      this.store.add({ id, algorithm, usage: natural, name, tags, created: moment(), versions: [first], changes: {} }),
    );
  }

  #version(name, material, id) {
    return { name, state: "ACTIVE", created: moment(), sealed: this.store.sealMaterial(material, id, name) };
  }

  get(params) {
    return describe(this.store.find(params.text("key_id", 2048, { required: true })));
  }

  list(params) {
    const ids = this.store.ids();
    const after = /^after:(node-[0-9a-f]{16})$/;
    return page(params, ids, after, (id) => id, (found) => ({ keys: found.map((id) => describe(this.store.find(id))) }));
  }

  listVersions(params) {
    const record = this.store.find(params.text("key_id", 2048, { required: true }));
    const after = new RegExp(`^after:${record.id}/(\\d{1,9})$`);
    const place = (version) => `${record.id}/${version.name}`;
    return page(params, record.versions, after, place, (found) => ({
      key_id: record.id,
      versions: found.map(({ name, state, created }) => ({
        key_version: name,
        state,
        current: name === current(record).name,
        created_at: created,
      })),
    }));
  }

  #move(params, apply) {
    return describe(this.store.change(params.text("key_id", 2048, { required: true }), apply));
  }

  async rotate(params) {
    const id = params.text("key_id", 2048, { required: true });
    const material = await newMaterial(this.store.find(id).algorithm);
    return this.#move(params, (record) => {
      const change = `key.rotate ${params.change}`;
      if (params.change !== undefined && Object.hasOwn(record.changes, change)) return;
      const { state } = current(record);
      if (state !== "ACTIVE" && state !== "DEACTIVATED") throw stateRefusal(state);
      current(record).state = "DEACTIVATED";
      const name = String(record.versions.length + 1);
      record.versions.push(this.#version(name, material, id));
      if (params.change !== undefined) record.changes[change] = name;
    });
  }

  disable(params) {
    return this.#move(params, (record) => {
      if (isTerminal(current(record).state)) throw stateRefusal(current(record).state);
      for (const version of record.versions) {
        if (version.state === "SUSPENDED") continue;
        version.former = version.state;
        version.state = "SUSPENDED";
      }
    });
  }

  enable(params) {
    return this.#move(params, (record) => {
      if (isTerminal(current(record).state)) throw stateRefusal(current(record).state);
      for (const version of record.versions) {
        if (version.state === "SUSPENDED") version.state = version.former;
      }
    });
  }

  scheduleDeletion(params) {
    const days = params.number("window_days", ...WINDOW_DAYS, WINDOW_DAYS[1]);
    return this.#move(params, (record) => {
      if (isTerminal(current(record).state)) throw stateRefusal(current(record).state);
      for (const version of record.versions) {
        if (version.state !== "SUSPENDED") version.former = version.state;
        version.state = "DESTROY_SCHEDULED";
      }
      record.due = moment(Date.now() + days * DAY_MS); // nothing is destroyed by a clock alone: that is for key.purge
    });
  }

  cancelDeletion(params) {
    return this.#move(params, (record) => {
      this.#needScheduled(record);
      for (const version of record.versions) version.state = "SUSPENDED";
      delete record.due;
    });
  }

  purge(params) {
    this.#move(params, (record) => {
      this.#needScheduled(record);
      for (const version of record.versions) Object.assign(version, { state: "DESTROYED", sealed: "" });
    });
    return {};
  }

  #needScheduled(record) {
    const { state } = current(record);
    if (state === "DESTROYED") throw stateRefusal(state);
    if (state !== "DESTROY_SCHEDULED") throw new Refusal("KEY_INVALID_STATE", "its deletion is not scheduled");
  }

  /** A change that is repeated under its name has the effect of one, so what is not there can be repeated. */
  reconcile(params) {
    const method = params.text("method", 64, { required: true });
    const change = params.text("idempotency_key", 128, { required: true });
    const id = params.text("key_id", 2048);
    let found = null;
    if (method === "key.create") found = this.store.madeBy(change);
    else if (method === "key.rotate" && id !== undefined) {
      const record = this.store.find(id);
      if (Object.hasOwn(record.changes, `key.rotate ${change}`)) found = record;
    } else return { outcome: "unknown" };
    return found === null ? { outcome: "not_applied" } : { outcome: "applied", key: describe(found) };
  }

  publicKey(params) {
    const record = this.store.find(params.text("key_id", 2048, { required: true }));
    const wanted = params.text("key_version", 256) ?? current(record).name;
    if (record.usage !== "SIGN_VERIFY") throw new Refusal("KEY_USAGE_MISMATCH", "the key has no public half");
    const version = record.versions.find(({ name }) => name === wanted);
    if (version === undefined) throw noSuchKey();
    if (version.state === "DESTROYED") throw stateRefusal(version.state);
    const half = createPublicKey({ key: this.store.openMaterial(record, version), ...DER });
    return {
      key_id: record.id,
      key_version: version.name,
      algorithm: record.algorithm,
      public_key: half.export({ type: "spki", format: "der" }).toString("base64"),
    };
  }
}

/** Cuts a page out of a list. A cursor names the place of the last one that was told. */
function page(params, all, pattern, place, result) {
  const limit = params.number("limit", 1, 1000, 100);
  const cursor = params.text("cursor", 4096);
  let start = 0;
  if (cursor !== undefined) {
    if (!pattern.test(cursor)) throw malformed("cursor");
    const told = cursor.slice("after:".length);
    start = all.findIndex((one) => place(one) === told) + 1;
    if (start === 0) throw malformed("cursor");
  }
  const end = Math.min(start + limit, all.length);
  const found = result(all.slice(start, end));
  return end === all.length ? found : { ...found, next_cursor: `after:${place(all[end - 1])}` };
}

export { NAMESPACE };
