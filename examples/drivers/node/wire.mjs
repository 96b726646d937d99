// Lines, envelopes and errors: SPEC.md sections 2 and 7.

export const PARSE_ERROR = -32700;
export const INVALID_REQUEST = -32600;
export const METHOD_NOT_FOUND = -32601;
export const INVALID_PARAMS = -32602;
export const INTERNAL_ERROR = -32603;
export const KEYSTORE_ERROR = -32000;

export const HANDSHAKE_LIMIT = 65_536;
export const OWN_LIMIT = 1 << 20;

/** An error as it goes over the wire (SPEC.md 7.2). */
export class Refusal extends Error {
  constructor(code, message, { number = KEYSTORE_ERROR, path } = {}) {
    super(message);
    this.number = number;
    this.data = path === undefined ? { code } : { code, path };
  }
}

export const malformed = (name) =>
  new Refusal("INVALID_ARGUMENT", `${name} is missing, malformed or out of bounds`, {
    number: INVALID_PARAMS,
    path: name,
  });

/** The one sentence for whatever is wrong with a ciphertext (SPEC.md 7.5). */
export const foreign = () =>
  new Refusal("INVALID_CIPHERTEXT", "the ciphertext does not belong to this key and context");

export const isObject = (value) => typeof value === "object" && value !== null && !Array.isArray(value);

const bad = (message) => new Refusal("INVALID_ARGUMENT", message, { number: INVALID_REQUEST });

/** Cuts a stream into lines of bounded length; of a longer one nothing is kept (SPEC.md 2.4-4). */
export class Lines {
  limit = HANDSHAKE_LIMIT;
  #pieces = [];
  #length = 0;

  /** Calls onLine for each line that ended in *data*; with null for one that was too long. */
  feed(data, onLine) {
    let start = 0;
    for (let end; (end = data.indexOf(0x0a, start)) >= 0; start = end + 1) {
      this.#keep(data.subarray(start, end));
      const line = this.#length > this.limit ? null : Buffer.concat(this.#pieces);
      this.#pieces = [];
      this.#length = 0;
      onLine(line);
    }
    this.#keep(data.subarray(start));
  }

  #keep(piece) {
    this.#length += piece.length;
    if (this.#length > this.limit) this.#pieces = [];
    else if (piece.length > 0) this.#pieces.push(Buffer.from(piece));
  }
}

export const isBlank = (line) => line.every((byte) => byte === 0x20 || byte === 0x09 || byte === 0x0d);

/** Returns the JSON of a line, which has to be UTF-8. */
export function decode(line) {
  try {
    return JSON.parse(new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(line));
  } catch {
    throw new Refusal("INVALID_ARGUMENT", "the line is not JSON in UTF-8", { number: PARSE_ERROR });
  }
}

/** Returns {id, method, params} of a request, null for what needs no answer, or throws with the id to answer under. */
export function parse(message) {
  if (!isObject(message)) throw bad("the line is not an object");
  const hasId = Object.hasOwn(message, "id");
  const hasMethod = Object.hasOwn(message, "method");
  const { id, method, jsonrpc } = message;
  if (hasId && !isId(id)) throw bad("the id is neither a short string nor an integer");
  if (hasId && !hasMethod) return null; // a response, and nobody was asked anything
  const params = Object.hasOwn(message, "params") ? message.params : {};
  if (jsonrpc !== "2.0" || typeof method !== "string" || !isObject(params)) {
    throw Object.assign(bad("the line is not a JSON-RPC 2.0 request"), { id });
  }
  return hasId ? { id, method, params } : { method, params };
}

export const isId = (id) => Number.isSafeInteger(id) || (typeof id === "string" && [...id].length <= 128);

/** Returns the line of a response; one that would be longer than the limit is replaced (SPEC.md 2.4-5). */
export function response(id, result, refusal, limit) {
  const body =
    refusal === null
      ? { result }
      : { error: { code: refusal.number, message: refusal.message, data: refusal.data } };
  const line = JSON.stringify({ jsonrpc: "2.0", id: id ?? null, ...body });
  if (Buffer.byteLength(line) <= limit) return `${line}\n`;
  return response(id, null, new Refusal("LIMIT_EXCEEDED", "the answer would be longer than a line may be"), limit);
}
