// Members of params, checked against the tables of SPEC.md section 4.

import { Refusal, isObject, malformed } from "./wire.mjs";

/** Reads members; null stands for absence (SPEC.md 1.2-1), and what does not fit is refused. */
export class Params {
  constructor(members) {
    this.members = members;
  }

  get(name) {
    return Object.hasOwn(this.members, name) ? (this.members[name] ?? undefined) : undefined;
  }

  has(name) {
    return this.get(name) !== undefined;
  }

  text(name, most, { required = false } = {}) {
    const value = this.get(name);
    if (value === undefined && !required) return undefined;
    if (typeof value !== "string" || value === "" || [...value].length > most) throw malformed(name);
    return value;
  }

  /** A byte string has one text (SPEC.md 2.6); Buffer reads many, so what was read is written again. */
  bytes(name, { required = false } = {}) {
    const value = this.get(name);
    if (value === undefined && !required) return undefined;
    const data = typeof value === "string" ? Buffer.from(value, "base64") : null;
    if (data === null || data.toString("base64") !== value) throw malformed(name);
    return data;
  }

  number(name, least, most, absent) {
    const value = this.get(name) ?? absent;
    if (!Number.isSafeInteger(value) || value < least || value > most) throw malformed(name);
    return value;
  }

  flag(name, absent) {
    const value = this.get(name) ?? absent;
    if (typeof value !== "boolean") throw malformed(name);
    return value;
  }

  /** A map of at most *most* texts. */
  texts(name, most = Infinity) {
    const value = this.get(name) ?? {};
    if (!isObject(value)) throw malformed(name);
    const entries = Object.entries(value);
    if (entries.length > most || entries.some(([, text]) => typeof text !== "string")) throw malformed(name);
    return entries;
  }

  /** Refuses a member that is given and has another value: it is never ignored (SPEC.md 4.1-2). */
  only(name, ...values) {
    const value = this.get(name);
    if (value === undefined || values.includes(value)) return;
    if (typeof value !== "string" && typeof value !== "boolean") throw malformed(name);
    throw new Refusal("UNSUPPORTED_OPERATION", `this driver has no such ${name}`, { path: name });
  }

  /** The name of a change; undefined where the host gave none. */
  get change() {
    const name = this.members.meta?.idempotency_key;
    return typeof name === "string" ? name : undefined;
  }
}
