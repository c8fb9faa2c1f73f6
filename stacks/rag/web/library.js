// The documents: one whole, with what was cited marked; the list of them; bringing new ones in.

import * as api from "./api.js";
import { ago, byId, counted, element, headingOf, icon, iconButton, nameOf, say } from "./show.js";
import { passageNodes, quoted, spansOf, spansOfAll } from "./show.js";

const LOOK_MS = 1_000, SLOWER = 1.3, SLOWEST_MS = 10_000, PAGES_LOOKED_THROUGH = 20;
const SHARED_MOST = 1_200, SHARED_LEAST = 20;
const STATES = {
  indexed: ["done", "Ready"], retrying: ["busy", "Trying again"], failed: ["failed", "Failed"],
};

// -- one document, whole ----------------------------------------------------------------------------------------------

let opened = 0;

// `passage` as an answer names it: {document, id, n, title, headings, text, source}. `quotes` and `said` tell what of it
// is marked; see spansOf.
export async function openPassage(passage, quotes, said) {
  const mine = opened += 1, body = byId("reader-text");
  byId("reader-title").textContent = passage.title || nameOf(passage.document);
  byId("reader-source").textContent = `[${passage.n}] ${nameOf(passage.source)}`;
  byId("reader-note").textContent = "Opening the whole document";
  const alone = passageSection(passage.text, spansOf(passage.text, quotes, said), headingOf(passage));
  show(body, [alone]);
  if (!byId("reader").open) byId("reader").showModal();
  body.focus();
  let whole = null;
  try { whole = await api.document(passage.document); } catch { /* the passage itself is here */ }
  if (mine !== opened) return;
  const there = whole?.passages.some((one) => one.id === passage.id && partOf(passage, one.text));
  byId("reader-note").textContent = there ? "" : "The document has changed or is gone; this is the passage that was read.";
  if (there) show(body, sectionsOf(whole, passage, quoted(passage, quotes, said)));
}

export async function openDocument(key) {
  const mine = opened += 1, body = byId("reader-text");
  byId("reader-title").textContent = nameOf(key);
  byId("reader-source").textContent = "";
  byId("reader-note").textContent = "Opening";
  body.replaceChildren();
  byId("reader").showModal();
  body.focus();
  try {
    const whole = await api.document(key);
    if (mine !== opened) return;
    byId("reader-title").textContent = whole.title || nameOf(key);
    byId("reader-source").textContent = nameOf(key);
    byId("reader-note").textContent = "";
    show(body, sectionsOf(whole, null, []));
  } catch (error) {
    if (mine === opened) byId("reader-note").textContent = `It cannot be shown: ${error.message}.`;
  }
}

function show(body, sections) {
  body.replaceChildren(...sections);
  const target = body.querySelector(".target mark") || body.querySelector(".target");
  body.scrollTop = 0;
  if (target && sections.length > 1) target.scrollIntoView({ block: target.matches("mark") ? "center" : "start" });
}

const plain = (text) => text.replace(/\s+/g, " ").trim();
const partOf = (passage, text) => plain(passage.text).includes(plain(text));

// The passages one after the other; `quotes` are marked in what is part of `cited`, a passage with its neighbours. What
// two neighbours share is shown once, in the one that was cited.
function sectionsOf({ passages, title }, cited, quotes) {
  const texts = passages.map((one) => one.text);
  for (let at = 1; at < texts.length; at += 1) {
    const shared = sharedBy(passages[at - 1].text, passages[at].text);
    if (!shared) continue;
    if (passages[at].id === cited?.id) texts[at - 1] = texts[at - 1].slice(0, -shared);
    else texts[at] = texts[at].slice(shared);
  }
  let above = title, page = 0;
  return passages.map((one, at) => {
    const heading = headingOf({ ...one, title });
    const within = Boolean(cited) && one.headings === cited.headings && partOf(cited, texts[at]);
    const spans = within ? spansOfAll(texts[at], quotes) : [], name = heading === above ? "" : heading;
    const section = passageSection(texts[at], spans, name, within);
    if (one.page && one.page !== page) section.prepend(element("p", "page", `Page ${one.page}`));
    [above, page] = [heading, one.page];
    return section;
  });
}

function sharedBy(before, after) {
  for (let length = Math.min(before.length - 1, after.length - 1, SHARED_MOST); length >= SHARED_LEAST; length -= 1) {
    if (before.endsWith(after.slice(0, length))) return length;
  }
  return 0;
}

function passageSection(text, spans, heading, cited = true) {
  const section = element("section", cited ? "target" : "");
  if (heading) section.append(element("h3", "", heading));
  section.append(...passageNodes(text, spans));
  if (cited) section.setAttribute("aria-label", "The passage that the answer cites");
  return section;
}

// -- the list ---------------------------------------------------------------------------------------------------------

let following = "";

export async function openDocuments() {
  byId("documents").showModal();
  await listDocuments();
}

async function listDocuments(more = "") {
  const list = byId("document-list"), note = byId("documents-note");
  try {
    const found = await api.documents(more);
    const rows = found.documents.sort((a, b) => (b.updated_ms || 0) - (a.updated_ms || 0)).map(documentRow);
    if (more) list.append(...rows); else list.replaceChildren(...rows);
    following = found.next;
    byId("documents-more").hidden = !following;
    note.textContent = list.children.length ? "" : "No documents yet. Add the first one above.";
  } catch (error) {
    note.textContent = `The documents cannot be listed: ${error.message}.`;
  }
}

function documentRow(row) {
  const [state, word] = STATES[row.status] || ["busy", row.status];
  const open = element("button", "row", element("b", "", nameOf(row.document)), badge(state, word));
  const details = [row.chunks ? counted(row.chunks, "passage") : "", row.updated_ms ? ago(row.updated_ms) : ""];
  open.append(element("small", "", details.filter(Boolean).join(" · ")));
  const reason = reasonOf(row);
  if (reason) open.append(element("small", row.status === "failed" ? "bad" : "", reason));
  open.disabled = row.status !== "indexed";
  open.onclick = () => openDocument(row.document);
  return element("li", "", open);
}

const reasonOf = (row) => (row.reason || row.note || "").replaceAll(row.document, nameOf(row.document));

function badge(state, word) {
  return element("span", `badge ${state}`, word);
}

// -- bringing in ------------------------------------------------------------------------------------------------------

const waiting = new Map();
let looking = null;

export async function bringIn(files) {
  if (!byId("documents").open) openDocuments();
  for (const file of files) await bringOne(file);
}

async function bringOne(file) {
  const row = uploadRow(file.name), stop = new AbortController();
  row.again.onclick = () => { row.item.remove(); bringOne(file); };
  row.stop.onclick = () => stop.abort();
  byId("uploads").prepend(row.item);
  try {
    if (!file.size) throw new api.Refused("the file is empty");
    const place = await api.place(file.name, file.size);
    const before = (await rowsOf(new Set([place.key]))).get(place.key)?.updated_ms || 0;
    row.tell("busy", "Sending");
    await api.send(file, place, (share) => {
      row.bar.value = share;
      row.tell("busy", `Sending, ${Math.round(100 * share)} %`, false);
    }, stop.signal);
    row.stop.hidden = true;
    row.bar.removeAttribute("value");
    row.tell("busy", "Sent; waiting to be read");
    waiting.set(place.key, { row, before });
    looking ||= look();
  } catch (error) {
    row.failed(error.message);
  }
}

function uploadRow(name) {
  const status = badge("busy", "Preparing"), reason = element("small", "bad"), bar = element("progress");
  const again = element("button", "small", "Try again"), title = element("b", "", name);
  const stop = iconButton("close", `Do not send ${name}`);
  const item = element("li", "upload", icon("file"), title, status, stop, bar, reason, again);
  bar.setAttribute("aria-label", `Progress of ${name}`);
  bar.value = 0;
  again.hidden = true;
  const tell = (state, word, aloud = true) => {
    status.className = `badge ${state}`;
    status.textContent = word;
    if (aloud) say(`${name}: ${word}`);
  };
  const failed = (why) => {
    tell("failed", "Failed", false);
    reason.textContent = why;
    bar.hidden = stop.hidden = true;
    again.hidden = false;
    say(`${name} failed: ${why}`);
  };
  return { item, bar, stop, again, reason, tell, failed };
}

// Look at the documents that were sent until each has been dealt with.
async function look() {
  let pause = LOOK_MS;
  while (waiting.size) {
    try {
      const rows = await rowsOf(new Set(waiting.keys()));
      for (const [key, one] of waiting) if (settled(one, rows.get(key))) waiting.delete(key);
    } catch (error) {
      for (const one of waiting.values()) one.row.tell("busy", `Waiting: ${error.message}`, false);
    }
    if (!waiting.size) break;
    await new Promise((resolve) => { setTimeout(resolve, pause); });
    pause = Math.min(pause * SLOWER, SLOWEST_MS);
  }
  looking = null;
  if (byId("documents").open) await listDocuments();
}

function settled({ row, before }, found) {
  if (!found || (found.updated_ms || 0) <= before) return false;
  if (found.status === "retrying") {
    row.tell("busy", "Trying again", false);
    row.reason.textContent = reasonOf(found);
    return false;
  }
  if (found.status === "failed") { row.failed(reasonOf(found) || "it cannot be read"); return true; }
  row.tell("done", `Ready, ${counted(found.chunks, "passage")}`);
  row.reason.textContent = reasonOf(found);
  row.bar.hidden = true;
  return true;
}

async function rowsOf(keys) {
  const found = new Map();
  let next = "";
  for (let page = 0; page < PAGES_LOOKED_THROUGH && found.size < keys.size; page += 1) {
    const answer = await api.documents(next);
    for (const row of answer.documents) if (keys.has(row.document)) found.set(row.document, row);
    next = answer.next;
    if (!next) break;
  }
  return found;
}

// -- the page's controls ----------------------------------------------------------------------------------------------

export function prepareLibrary() {
  const chooser = byId("chooser"), veil = byId("veil");
  let depth = 0;
  const holdsFiles = (event) => event.dataTransfer?.types.includes("Files");
  for (const one of document.querySelectorAll("[data-choose]")) one.onclick = () => chooser.click();
  chooser.onchange = () => { bringIn([...chooser.files]); chooser.value = ""; };
  byId("documents-more").onclick = () => listDocuments(following);
  addEventListener("dragenter", (event) => { if (holdsFiles(event)) { depth += 1; lift(true); } });
  addEventListener("dragleave", (event) => { if (holdsFiles(event) && (depth -= 1) <= 0) lift(false); });
  addEventListener("dragover", (event) => { if (holdsFiles(event)) event.preventDefault(); });
  addEventListener("drop", (event) => {
    if (!holdsFiles(event)) return;
    event.preventDefault();
    lift(false);
    bringIn([...event.dataTransfer.files]);
  });
  const lift = (up) => {
    if (!up) depth = 0;
    veil.hidden = !up || byId("documents").open;
    byId("drop").classList.toggle("over", up);
  };
}
