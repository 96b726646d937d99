// crypto.*: SPEC.md 4.4, 4.7 and 5.3.

import { constants, createHash, createPrivateKey, createPublicKey, privateEncrypt, randomBytes, sign, timingSafeEqual, verify } from "node:crypto";

import { current, stateRefusal } from "./keys.mjs";
import { noSuchKey, open, seal } from "./store.mjs";
import { Refusal, foreign, malformed } from "./wire.mjs";

export const MOST_INPUT = 65_536;
export const MOST_RANDOM = 65_536;
export const MECHANISMS = new Map([
  ["AES_256_GCM", "AES_256_GCM"],
  ["ED25519", "ED25519"],
  ["RSA_2048", "RSA_PKCS1_SHA_256"],
]);

// What PKCS #1 v1.5 puts before a SHA-256 (RFC 8017, section 9.2, note 1).
const DIGEST_INFO = Buffer.from("3031300d060960864801650304020105000420", "hex");

const encoded = (data) => data.toString("base64");

const tooLong = (name) =>
  new Refusal("INVALID_ARGUMENT", `${name} is longer than ${MOST_INPUT} bytes`, { path: name });

/** Returns the associated data. A context is refused, never ignored (SPEC.md 5.3). */
function bound(params) {
  if (params.texts("context").length > 0) {
    throw new Refusal("UNSUPPORTED_OPERATION", "only associated_data is bound here", { path: "context" });
  }
  return params.bytes("associated_data") ?? Buffer.alloc(0);
}

export class Crypto {
  constructor(store) {
    this.store = store;
  }

  /** Returns the key of a request and the versions that it may use, the newest first. */
  #usable(params, usage, making) {
    const id = params.text("key_id", 2048, { required: true });
    const named = params.text("key_version", 256);
    const mechanism = params.text("mechanism", 64);
    const record = this.store.find(id);
    if (record.usage !== usage) throw new Refusal("KEY_USAGE_MISMATCH", `the key is for ${record.usage}`);
    const own = MECHANISMS.get(record.algorithm);
    if (mechanism !== undefined && mechanism !== own) {
      throw new Refusal("UNSUPPORTED_OPERATION", `this key is used by ${own}`);
    }
    let candidates = making ? [current(record)] : record.versions.toReversed();
    if (named !== undefined) candidates = record.versions.filter(({ name }) => name === named);
    if (candidates.length === 0) throw noSuchKey();
    const states = making ? ["ACTIVE"] : ["ACTIVE", "DEACTIVATED"];
    const versions = candidates.filter(({ state }) => states.includes(state));
    if (versions.length === 0) throw stateRefusal(candidates[0].state);
    return { record, versions, mechanism: own };
  }

  encrypt(params) {
    const plaintext = params.bytes("plaintext", { required: true });
    if (plaintext.length > MOST_INPUT) throw tooLong("plaintext");
    return this.#seal(params, plaintext);
  }

  /** Encrypts as the row A256GCM says: IV, ciphertext, tag. */
  #seal(params, plaintext) {
    const data = bound(params);
    const { record, versions, mechanism } = this.#usable(params, "ENCRYPT_DECRYPT", true);
    const sealed = seal(this.store.openMaterial(record, versions[0]), plaintext, data);
    const used = { key_id: record.id, key_version: versions[0].name, protection: "software" };
    return { ...used, mechanism, ciphertext: encoded(sealed) };
  }

  decrypt(params) {
    const sealed = params.bytes("ciphertext", { required: true });
    const data = bound(params);
    const { record, versions } = this.#usable(params, "ENCRYPT_DECRYPT", false);
    for (const version of versions) {
      const plaintext = open(this.store.openMaterial(record, version), sealed, data);
      if (plaintext !== null) {
        return { key_id: record.id, key_version: version.name, protection: "software", plaintext: encoded(plaintext) };
      }
    }
    throw foreign();
  }

  dataKey(params) {
    const plaintext = randomBytes(params.number("length_bytes", 16, 1024, 32));
    const clear = params.flag("with_plaintext", true);
    const result = this.#seal(params, plaintext);
    return clear ? { ...result, plaintext: encoded(plaintext) } : result;
  }

  /** Returns the message of a request, or the digest that stands for it: one of the two is given. */
  #given(params) {
    if (params.has("message") === params.has("digest")) throw malformed("message");
    const digest = params.bytes("digest");
    if (digest !== undefined) {
      if (digest.length !== 32) throw malformed("digest");
      return { digest };
    }
    const message = params.bytes("message", { required: true });
    if (message.length > MOST_INPUT) throw tooLong("message");
    return { message, digest: createHash("sha256").update(message).digest() };
  }

  #signature(key, { message, digest }) {
    if (key.asymmetricKeyType === "rsa") {
      return privateEncrypt({ key, padding: constants.RSA_PKCS1_PADDING }, Buffer.concat([DIGEST_INFO, digest]));
    }
    if (message === undefined) throw new Refusal("UNSUPPORTED_OPERATION", "Ed25519 signs messages, not digests");
    return sign(null, message, key);
  }

  #private(record, version) {
    return createPrivateKey({ key: this.store.openMaterial(record, version), type: "pkcs8", format: "der" });
  }

  sign(params) {
    const given = this.#given(params);
    const { record, versions, mechanism } = this.#usable(params, "SIGN_VERIFY", true);
    const signature = this.#signature(this.#private(record, versions[0]), given);
    const used = { key_id: record.id, key_version: versions[0].name, protection: "software" };
    return { ...used, mechanism, signature: encoded(signature) };
  }

  verify(params) {
    const given = this.#given(params);
    const signature = params.bytes("signature", { required: true });
    const { record, versions } = this.#usable(params, "SIGN_VERIFY", false);
    for (const version of versions) {
      if (this.#isValid(this.#private(record, version), given, signature)) {
        return { key_id: record.id, key_version: version.name, valid: true };
      }
    }
    return { key_id: record.id, valid: false };
  }

  /** Both mechanisms are deterministic, so a good PKCS #1 signature is the one that would be made. */
  #isValid(key, given, signature) {
    if (key.asymmetricKeyType === "rsa") {
      const wanted = this.#signature(key, given);
      return wanted.length === signature.length && timingSafeEqual(wanted, signature);
    }
    if (given.message === undefined) throw new Refusal("UNSUPPORTED_OPERATION", "Ed25519 signs messages, not digests");
    return verify(null, given.message, createPublicKey(key), signature);
  }

  random(params) {
    return { data: encoded(randomBytes(params.number("length_bytes", 1, MOST_RANDOM))) };
  }
}
