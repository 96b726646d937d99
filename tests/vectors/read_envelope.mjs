// A second reader of docs/envelope.md, which shares no code with the first one: opens every valid vector of
// envelope_v1.json with every intermediate value, and refuses every invalid one. `node read_envelope.mjs [FILE]`
import { constants, createDecipheriv, createHash, createHmac, privateDecrypt } from "node:crypto";
import { readFileSync } from "node:fs";

const demand = (holds, what = "refused") => { if (!holds) throw new Error(what); };
const cat = (...parts) => Buffer.concat(parts);
const same = (a, b, what) => demand(Buffer.compare(a, b) === 0, what);

// dCBOR: one encoding of unsigned integers, bytes, text, arrays and maps (1.1).
const head = (major, n) => {
  if (n < 24) return Buffer.from([major << 5 | n]);
  const size = n < 256 ? 1 : n < 65536 ? 2 : n < 2 ** 32 ? 4 : 8, out = Buffer.alloc(1 + size);
  out[0] = major << 5 | 24 + Math.log2(size);
  if (size === 8) out.writeBigUInt64BE(BigInt(n), 1); else out.writeUIntBE(n, 1, size);
  return out;
};
const encode = (x) => {
  if (typeof x === "number") return head(0, x);
  if (Buffer.isBuffer(x)) return cat(head(2, x.length), x);
  if (typeof x === "string") return cat(head(3, Buffer.byteLength(x)), Buffer.from(x));
  if (Array.isArray(x)) return cat(head(4, x.length), ...x.map(encode));
  const pairs = [...x].map(([k, v]) => [encode(k), encode(v)]).sort((a, b) => Buffer.compare(a[0], b[0]));
  return cat(head(5, pairs.length), ...pairs.flat());
};
const decode = (data) => {
  let at = 0;
  const take = (n) => { demand(n <= data.length - at); at += n; return data.subarray(at - n, at); };
  const item = (depth) => {
    demand(depth > 0);
    const first = take(1)[0], low = first & 31;
    demand(low < 28);
    const n = low < 24 ? low : Number(BigInt("0x" + take(1 << low - 24).toString("hex")));
    demand(n < 2 ** 53);
    switch (first >> 5) {
      case 0: return n;
      case 2: return take(n);
      case 3: return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(take(n));
      case 4: { demand(n <= data.length); return Array.from({ length: n }, () => item(depth - 1)); }
      case 5: {
        demand(n <= data.length);
        const map = new Map(Array.from({ length: n }, () => [item(depth - 1), item(depth - 1)]));
        demand(map.size === n && new Set([...map.keys()].map((k) => typeof k)).size <= 1);
        return map;
      }
      default: demand(false);
    }
  };
  const value = item(8);
  same(encode(value), data); // trailing bytes, long integers and unsorted maps differ here
  return value;
};

const H = (x) => createHash("sha512").update(encode(x)).digest();
const hmac = (key, data) => createHmac("sha512", key).update(data).digest();
const expand = (key, info, n) => { // RFC 5869, section 2.3
  let last = Buffer.alloc(0), out = Buffer.alloc(0);
  for (let i = 1; out.length < n; i++) out = cat(out, last = hmac(key, cat(last, info, Buffer.from([i]))));
  return out.subarray(0, n);
};
const gcm = (key, iv, sealed, aad) => {
  demand(sealed.length >= 16);
  const open = createDecipheriv("aes-256-gcm", key, iv).setAuthTag(sealed.subarray(-16));
  if (aad) open.setAAD(aad);
  return cat(open.update(sealed.subarray(0, -16)), open.final());
};

// The header, strictly (1.2).
const isText = (most) => (x) => typeof x === "string" && x.length > 0 && Buffer.byteLength(x) <= most;
const isCount = (x) => typeof x === "number";
const check = (map, fields) => {
  demand(map instanceof Map && [...map.keys()].every((k) => k in fields));
  for (const [k, [needed, valid]] of Object.entries(fields)) {
    const x = map.get(Number(k));
    demand(x === undefined ? !needed : valid(x));
  }
};
const isContext = (x) => x instanceof Map && x.size <= 64 && encode(x).length <= 8192 &&
  [...x].every(([k, v]) => isText(8192)(k) && typeof v === "string" && !/^(kmsplug|aws):/.test(k));
const isShare = (x) => { check(x, { 1: [1, isCount], 2: [1, isCount], 3: [1, isCount] }); return true; };
const parse = (envelope) => {
  demand(envelope.length >= 12 && envelope.subarray(0, 8).toString("hex") === "8b4b504c0d0a1a01");
  const hlen = envelope.readUInt32BE(8);
  demand(hlen >= 8 && hlen <= 65536 && envelope.length >= 12 + hlen);
  const parts = decode(envelope.subarray(12, 12 + hlen)), payload = envelope.subarray(12 + hlen);
  demand(Array.isArray(parts) && parts.length === 3 && parts.every(Buffer.isBuffer));
  const [fixed, outer] = parts.map((part, i) => i < 2 && decode(part));
  check(fixed, { 1: [1, (x) => x === 0 || x === 1], 2: [0, isContext], 3: [0, isText(256)] });
  const list = (x) => Array.isArray(x) && x.length >= 1 && x.length <= 16;
  check(outer, { 1: [1, isCount], 2: [1, list] });
  const wrapped = (x) => Buffer.isBuffer(x) && x.length >= 1 && x.length <= 8192;
  for (const r of outer.get(2)) check(r, {
    1: [1, isText(256)], 2: [1, isText(2048)], 3: [0, isText(256)], 4: [1, isText(64)],
    5: [1, (x) => isCount(x) && x <= 3], 6: [0, wrapped], 7: [0, isShare] });
  const suite = fixed.get(1), first = outer.get(2)[0], L = payload.length;
  if (suite === 1) demand(parts[2].length === 32 && L >= 72 && (L - 56) % 16400 >= 16);
  else demand(!parts[2].length && outer.get(2).length === 1 && !first.has(6) && first.get(5) > 0 &&
    outer.get(1) === 0 && L >= 1 && L <= 65536);
  return { fixed, fixedBytes: parts[0], outer, outerBytes: parts[1], tag: parts[2], suite, payload };
};

// What the vectors' keystores do to unwrap or decrypt (1.4, 1.5).
const unwrap = (vector, r, data, label, context) => {
  const key = Buffer.from(vector.wrapping_key, "hex"), bind = r.get(5);
  if (r.get(4) === "RSA-OAEP-256") return privateDecrypt(
    { key, format: "der", type: "pkcs8", padding: constants.RSA_PKCS1_OAEP_PADDING, oaepHash: "sha256" }, data);
  if (r.get(4) === "A256KW") {
    const open = createDecipheriv("id-aes256-wrap", key, Buffer.alloc(8, 0xa6));
    return cat(open.update(data), open.final());
  }
  const own = new Map([["kmsplug:v1", label.toString("base64url")]]);
  const aad = bind === 1 ? label : encode(bind === 2 ? new Map([...context, ...own]) : own);
  return gcm(key, data.subarray(0, 12), data.subarray(12), aad);
};

const open = (vector) => {
  const e = parse(Buffer.from(vector.envelope, "hex")), fields = [1, 2, 4, 5];
  const context = new Map(Object.entries(vector.context)), stored = e.fixed.get(2);
  if (stored) same(encode(stored), encode(context));
  const bound = new Map(context);
  if (e.fixed.has(3)) bound.set("kmsplug:tenant", e.fixed.get(3));
  const labels = e.outer.get(2).map((r) => H(e.suite === 1
    ? ["kmsplug/v1/wrap", 1, ...fields.map((f) => r.get(f)), bound]
    : ["kmsplug/v1/native", e.fixedBytes, ...fields.map((f) => r.get(f)), bound]));
  const first = e.outer.get(2)[0];
  demand(!first.has(7));
  if (e.suite === 0) return { e, labels, context, plaintext: unwrap(vector, first, e.payload, labels[0], bound) };
  const key = unwrap(vector, first, first.get(6), labels[0], bound);
  demand(key.length === 32);
  const P = H(["kmsplug/v1/payload", e.fixedBytes, bound]), tagKey = expand(key, Buffer.from("kmsplug/envelope@v1/tag"), 64);
  const salt = e.payload.subarray(0, 24), info = "c2sp.org/chunked-encryption@v1+AEAD_AES_256_GCM\0";
  const derived = expand(key, cat(Buffer.from(info), salt, P), 76);
  same(derived.subarray(44), e.payload.subarray(24, 56), "commitment");
  const signed = encode(["kmsplug/v1/tag", e.fixedBytes, e.outerBytes, e.payload.subarray(0, 56)]);
  same(hmac(tagKey, signed).subarray(0, 32), e.tag, "tag");
  const chunks = [];
  for (let at = 56, n = 0; at < e.payload.length; at += 16400, n++) {
    const iv = Buffer.from(derived.subarray(32, 44));
    for (let i = 11, left = n; left; i--, left = left >>> 8) iv[i] ^= left & 255;
    chunks.push(gcm(derived.subarray(0, 32), iv, e.payload.subarray(at, at + 16400)));
  }
  return { e, labels, context, key, P, tagKey, plaintext: cat(...chunks) };
};

const vectors = JSON.parse(readFileSync(process.argv[2] ?? new URL("envelope_v1.json", import.meta.url)));
for (const vector of vectors.valid) {
  const found = open(vector), hex = (x) => x?.toString("hex");
  const sha256 = createHash("sha256").update(found.plaintext).digest("hex");
  const seen = [hex(encode(found.context)), found.labels.map(hex), hex(found.key), hex(found.P), hex(found.tagKey),
    found.plaintext.length, sha256];
  const told = [vector.context_cbor, vector.labels, vector.data_key, vector.P, vector.K_tag,
    vector.plaintext_length, vector.plaintext_sha256];
  demand(JSON.stringify(seen) === JSON.stringify(told), `${vector.name}: ${seen}`);
}
for (const vector of vectors.invalid) {
  let opened = true;
  try { open(vector); } catch { opened = false; }
  demand(!opened || vector.policy, `${vector.name}: opened`);
}
console.log(`${vectors.valid.length} opened, ${vectors.invalid.length} refused`);
