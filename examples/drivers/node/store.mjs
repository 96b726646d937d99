// Keys in a folder, which several processes may share, without a lock: a change writes the next generation of a
// key's file under a name that only one writer can take, ever. What is answered is on disk.

import { createCipheriv, createDecipheriv, createHash, hkdfSync, randomBytes } from "node:crypto";
import fs from "node:fs";
import path from "node:path";

import { Refusal } from "./wire.mjs";

export const NAMESPACE = "node-";
const FILE = /^(node-[0-9a-f]{16})\.(\d+)\.json$/;
const PROOF = "kmsplug example keystore";

const damaged = () => new Refusal("KEYSTORE_CORRUPT", "a file of the keystore is damaged");
export const noSuchKey = () => new Refusal("KEY_NOT_FOUND", "there is no key or version of this id");

export function seal(key, plaintext, label) {
  const iv = randomBytes(12);
  const cipher = createCipheriv("aes-256-gcm", key, iv);
  cipher.setAAD(label);
  return Buffer.concat([iv, cipher.update(plaintext), cipher.final(), cipher.getAuthTag()]);
}

/** Returns the plaintext, or null. */
export function open(key, sealed, label) {
  if (sealed.length < 28) return null;
  const cipher = createDecipheriv("aes-256-gcm", key, sealed.subarray(0, 12), { authTagLength: 16 });
  cipher.setAAD(label);
  cipher.setAuthTag(sealed.subarray(-16));
  const plaintext = cipher.update(sealed.subarray(12, -16));
  try {
    return Buffer.concat([plaintext, cipher.final()]);
  } catch {
    return null;
  }
}

export class Store {
  #folder;
  #key;

  constructor(folder, secret) {
    this.#folder = folder;
    this.#key = Buffer.from(hkdfSync("sha256", secret, "", "kmsplug example keystore v1", 32));
  }

  /** Returns the keystore's identity, which is made with it; a dry run makes nothing. */
  identify(dryRun) {
    const fresh = `node-example:${randomBytes(8).toString("hex")}`;
    const made = { identity: fresh, proof: seal(this.#key, Buffer.alloc(0), Buffer.from(PROOF + fresh)).toString("base64") };
    if (!dryRun) this.#publish("keystore.json", made);
    const found = this.#read("keystore.json");
    if (found === null) return "node-example:new";
    const { identity, proof } = found;
    if (open(this.#key, Buffer.from(proof ?? "", "base64"), Buffer.from(PROOF + identity)) === null) {
      throw new Refusal("AUTHENTICATION_FAILED", "the secret does not open this keystore");
    }
    return identity;
  }

  sealMaterial(material, id, version) {
    return seal(this.#key, material, Buffer.from(`${id}/${version}`)).toString("base64");
  }

  openMaterial(record, version) {
    const found = open(this.#key, Buffer.from(version.sealed, "base64"), Buffer.from(`${record.id}/${version.name}`));
    if (found === null) throw damaged();
    return found;
  }

  /** Returns the id that a change was given, the same one whenever it is asked for again. */
  idFor(change) {
    const id = NAMESPACE + randomBytes(8).toString("hex");
    if (change === undefined) return id;
    const name = this.#changeFile(change);
    this.#publish(name, { id });
    return this.#read(name).id;
  }

  /** Returns the key that a change made, or null. */
  madeBy(change) {
    const found = this.#read(this.#changeFile(change));
    return found === null ? null : this.#latest(found.id);
  }

  /** Adds a key, or returns the one that is there under its id. */
  add(record) {
    this.#publish(`${record.id}.1.json`, record);
    return this.find(record.id);
  }

  find(id) {
    const found = this.#latest(id);
    if (found === null) throw noSuchKey();
    return found;
  }

  /** Returns the ids of all keys in order. */
  ids() {
    const found = fs.readdirSync(this.#folder).map((name) => FILE.exec(name)?.[1]);
    return [...new Set(found.filter((id) => id !== undefined))].sort();
  }

  /** Applies a change to the key as it is now, and again if somebody else was faster. */
  change(id, apply) {
    for (;;) {
      const record = this.find(id);
      const { generation } = record;
      apply(record);
      if (this.#publish(`${id}.${generation + 1}.json`, record)) {
        // Emptied, not removed: a writer who is two changes behind must not find the name free again.
        fs.truncateSync(path.join(this.#folder, `${id}.${generation}.json`));
        record.generation = generation + 1;
        return record;
      }
    }
  }

  #changeFile(change) {
    return `change-${createHash("sha256").update(change).digest("hex")}.json`;
  }

  /** Returns the newest generation of a key, or null. */
  #latest(id) {
    for (;;) {
      const generations = fs
        .readdirSync(this.#folder)
        .map((name) => FILE.exec(name))
        .filter((match) => match?.[1] === id)
        .map((match) => Number(match[2]));
      if (generations.length === 0) return null;
      const generation = Math.max(...generations);
      const record = this.#read(`${id}.${generation}.json`);
      if (record !== null) return { ...record, generation }; // else a newer one took its place meanwhile
    }
  }

  #read(name) {
    let text;
    try {
      text = fs.readFileSync(path.join(this.#folder, name), "utf-8");
    } catch (error) {
      if (error.code === "ENOENT") return null;
      throw error;
    }
    if (text === "") return null;
    try {
      return JSON.parse(text);
    } catch {
      throw damaged();
    }
  }

  /** Writes a file whole under a name that nothing has yet; tells whether it did. */
  #publish(name, content) {
    const temporary = path.join(this.#folder, `.new-${process.pid}-${randomBytes(4).toString("hex")}`);
    const file = fs.openSync(temporary, "wx", 0o600);
    try {
      fs.writeSync(file, JSON.stringify(content));
      fs.fsyncSync(file);
      fs.linkSync(temporary, path.join(this.#folder, name));
      return true;
    } catch (error) {
      if (error.code === "EEXIST") return false;
      throw error;
    } finally {
      fs.closeSync(file);
      fs.rmSync(temporary, { force: true });
    }
  }
}
