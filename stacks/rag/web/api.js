// What goes over the wire: who asks, JSON calls, the stream of an answer, the form with a file.

const BASE = new URL("../", import.meta.url).href;
const KEY = "rag.key", VISITOR = "rag.visitor", UNFINISHED = "rag.unfinished";

// An answer that is no answer: `status` is HTTP's, 0 when nothing could be reached; `wait` the seconds to hold off.
export class Refused extends Error {
  constructor(message, status = 0, wait = 0) {
    super(message);
    this.status = status;
    this.wait = wait;
  }
}

// localStorage, or nothing where the browser keeps none.
export const kept = {
  get(name) { try { return localStorage.getItem(name); } catch { return null; } },
  set(name, value) {
    try { if (value) localStorage.setItem(name, value); else localStorage.removeItem(name); } catch { /* not kept */ }
  },
};

// The turn that this tab waits for, {session, turn, question, at}; found again when the page is loaded anew.
export const unfinished = {
  get() { try { return JSON.parse(sessionStorage.getItem(UNFINISHED)); } catch { return null; } },
  set(turn) {
    try { if (turn) sessionStorage.setItem(UNFINISHED, JSON.stringify(turn)); else sessionStorage.removeItem(UNFINISHED); } catch { /* not kept */ }
  },
};

export const accessKey = () => kept.get(KEY) || "";
export const setAccessKey = (key) => kept.set(KEY, key);

let nameless = "";
function visitor() {
  const known = kept.get(VISITOR) || nameless;
  if (known) return known;
  nameless = newId();
  kept.set(VISITOR, nameless);
  return nameless;
}

function newId() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (one) => one.toString(16).padStart(2, "0")).join("");
}

// Asked for a key when the service wants one; resolves to whether to try again.
let unlock = async () => false;
export function whenLocked(asks) { unlock = asks; }

// `correlation` stands in every line of log from here to the last token.
async function request(path, { method = "GET", body, signal, correlation } = {}) {
  for (;;) {
    const headers = { "x-visitor": visitor() };
    if (correlation) headers["x-correlation-id"] = correlation;
    const key = accessKey();
    if (key) headers.authorization = `Bearer ${key}`;
    if (body !== undefined) headers["content-type"] = "application/json";
    let response;
    try {
      response = await fetch(BASE + path, { method, headers, signal, body: body && JSON.stringify(body) });
    } catch (error) {
      if (signal?.aborted) throw error;
      throw new Refused("the service cannot be reached");
    }
    if (response.ok) return response;
    const refused = await refusalOf(response);
    const tryAgain = refused.status === 401 && (accessKey() !== key || await unlock(refused.message));
    if (!tryAgain) throw refused;
  }
}

async function refusalOf(response) {
  let message = `the service answered ${response.status}`;
  try { message = (await response.json()).message || message; } catch { /* not JSON: the status says it */ }
  return new Refused(message, response.status, Number(response.headers.get("retry-after")) || 0);
}

async function json(path, options) {
  const response = await request(path, options);
  return response.status === 204 ? null : response.json();
}

const named = encodeURIComponent;
export const examples = async () => (await json("examples")).questions;
export const sessions = (next = "") => json(`sessions${next && `?next=${named(next)}`}`);
export const session = (id) => json(`sessions/${named(id)}`);
export const forget = (id) => json(`sessions/${named(id)}`, { method: "DELETE" });
export const cancel = (turn, session) => json(`turns/${named(turn)}/cancel`, { method: "POST", body: { session } });
export const rate = (turn, body) => json(`turns/${named(turn)}/feedback`, { method: "POST", body });
export const documents = (next = "") => json(`documents${next && `?next=${named(next)}`}`);
export const document = (key) => json(`documents/${named(key)}`);
export const place = (name, size) => json("uploads", { method: "POST", body: { name, size } });

// The events of an answer, [name, data], the first ["head", {correlation}]. Goes on until the service ends the stream.
// `place` is {session, turn}, both optional; a turn that failed is replaced when it is asked again.
export async function* ask(question, place, signal) {
  const response = await request("ask", { method: "POST", body: { question, ...place }, signal, correlation: newId() });
  yield ["head", { correlation: response.headers.get("x-correlation-id") || "" }];
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let held = "";
  for (;;) {
    let piece;
    try {
      piece = await reader.read();
    } catch (error) {
      if (signal?.aborted) throw error;
      throw new Refused("the answer broke off");
    }
    if (piece.done) return;
    held += piece.value;
    let end;
    while ((end = held.indexOf("\n\n")) >= 0) {
      const block = held.slice(0, end);
      held = held.slice(end + 2);
      const name = /^event: (.*)$/m.exec(block), data = /^data: (.*)$/m.exec(block);
      if (data) yield [name ? name[1] : "message", JSON.parse(data[1])];
    }
  }
}

// Send a file where `place` said, as its form wants it: the fields first, the file last. `progress` is called with 0 to 1.
export function send(file, { url, method, fields, largest }, progress, signal) {
  const form = new FormData();
  for (const [name, value] of Object.entries(fields)) form.append(name, value);
  form.append("file", file);
  return new Promise((resolve, reject) => {
    const sent = new XMLHttpRequest();
    sent.open(method, url);
    sent.upload.onprogress = (event) => { if (event.lengthComputable) progress(event.loaded / event.total); };
    sent.onload = () => {
      if (sent.status < 300) resolve();
      else reject(new Refused(refusedBy(sent, largest), sent.status));
    };
    sent.onerror = () => reject(new Refused("the storage cannot be reached"));
    sent.onabort = () => reject(new Refused("taken back"));
    signal?.addEventListener("abort", () => sent.abort());
    sent.send(form);
  });
}

// S3's refusal in words.
function refusedBy({ status, responseText }, largest) {
  const part = (name) => new RegExp(`<${name}>([^<]*)</${name}>`).exec(responseText)?.[1] || "";
  const code = part("Code"), said = part("Message");
  if (code === "EntityTooLarge") {
    const most = Number(part("MaxSizeAllowed")) || largest;
    return most < largest
      ? "the file has grown since it was chosen; choose it again"
      : `the file is too big: it may have ${largest / 1e6} MB at most`;
  }
  if (code === "EntityTooSmall") return "the file is empty";
  if (/expired/i.test(said)) return "sending took too long to begin; try again";
  return `the storage refused it (${status}${said ? `: ${said}` : ""})`;
}

// The address of a trace in the console of a platform on this machine; null elsewhere.
export function traceLink(correlation, at) {
  const nameLocal = /\.lambda-url\.[^.]+\.localhost$/.test(location.hostname);
  const local = nameLocal || location.pathname.startsWith("/_aws/lambda-url/");
  return local && correlation ? `${location.origin}/_preheat/console#trace/${named(correlation)}/${at}` : null;
}
