// The page: the conversation, the chats, the keys, what stands around them.

import * as api from "./api.js";
import { bringIn, openDocuments, openPassage, prepareLibrary } from "./library.js";
import { ago, byId, counted, element, headingOf, iconButton, nameOf, renderAnswer, say } from "./show.js";

const thread = byId("thread"), scroller = byId("scroller"), side = byId("side");
const input = byId("question"), send = byId("send");
const NEAR_END = 80, USUAL_MODES = ["hybrid", "kept"], LOOK_MS = 1_000, WAIT_MS = 75_000;
let current = "", running = null, last = "", listed = [], following = "";

// -- one turn ---------------------------------------------------------------------------------------------------------

// A question and its answer on the page. `passages` and `citations` are the answer's own.
function turnCard(question) {
  const text = element("div", "text"), answer = element("section", "answer", text);
  const card = element("article", "turn", element("div", "question", question), answer);
  answer.setAttribute("aria-label", "Answer");
  return { card, answer, text, question, passages: [], citations: [], session: "", turn: "", correlation: "" };
}

function cite(view, number, said) {
  const passage = view.passages.find((one) => one.n === number);
  if (!passage) return null;
  const button = element("button", "cite", String(number));
  button.title = `${headingOf(passage)} (${nameOf(passage.source)})`;
  button.setAttribute("aria-label", `Source ${number}: ${button.title}`);
  button.onclick = () => openPassage(passage, quotesOf(view, number), said);
  return button;
}

const quotesOf = (view, number) => view.citations.find((one) => one.n === number)?.quotes;

function sourceList(view, passages) {
  const list = element("ul", "sources");
  for (const one of passages) {
    const title = element("span", "", headingOf(one)), source = element("small", "", nameOf(one.source));
    const open = element("button", "", element("b", "", String(one.n)), title, source);
    open.onclick = () => openPassage(one, quotesOf(view, one.n), view.text.textContent);
    list.append(element("li", "", open));
  }
  return list;
}

function finish(view, answer) {
  renderAnswer(view.text, answer, (number, said) => cite(view, number, said));
  const cited = new Set(view.citations.map((one) => one.n));
  if (cited.size) view.answer.append(sourceList(view, view.passages.filter((one) => cited.has(one.n))));
  const others = view.passages.filter((one) => !cited.has(one.n));
  if (others.length) {
    const told = cited.size ? `${counted(others.length, "more passage")} read` : `The nearest ${counted(others.length, "passage")}`;
    view.answer.append(element("details", "", element("summary", "", told), sourceList(view, others)));
  }
}

function foot(view, told, rating = "") {
  const up = iconButton("up", "Good answer"), down = iconButton("down", "Bad answer");
  const line = element("div", "foot", up, down), comment = commentForm(view);
  for (const [button, value] of [[up, "up"], [down, "down"]]) {
    button.setAttribute("aria-pressed", String(rating === value));
    button.onclick = () => rate(view, value, "", () => {
      up.setAttribute("aria-pressed", String(value === "up"));
      down.setAttribute("aria-pressed", String(value === "down"));
      comment.rating = value;
      comment.hidden = false;
      comment.elements.comment.focus();
    });
  }
  if (navigator.clipboard) line.append(iconButton("copy", "Copy the answer", () => copy(view)));
  const timing = element("span", "timing", told), trace = traceOf(view);
  if (told && trace) timing.append(" · ");
  if (trace) timing.append(trace);
  line.append(timing);
  view.answer.append(line, comment);
}

function traceOf(view) {
  const address = api.traceLink(view.correlation, view.at);
  if (!address) return null;
  const link = Object.assign(element("a", "trace", "trace"), { href: address, target: "_blank", rel: "noopener" });
  link.setAttribute("aria-label", "The trace of this answer in the console");
  return link;
}

function commentForm(view) {
  const field = element("input"), form = element("form", "comment", field, element("button", "small", "Send"));
  field.name = "comment";
  field.maxLength = 2_000;
  field.placeholder = "What was good or bad about it? (optional)";
  field.setAttribute("aria-label", "Comment on the answer");
  form.lastChild.type = "submit";
  form.hidden = true;
  form.onsubmit = (event) => {
    event.preventDefault();
    const comment = field.value.trim();
    if (comment) rate(view, form.rating, comment, () => { form.hidden = true; input.focus(); });
    else form.hidden = true;
  };
  return form;
}

async function rate(view, rating, comment, then) {
  try {
    await view.kept;
    await api.rate(view.turn, { session: view.session, rating, ...(comment && { comment }) });
    say(comment ? "Thank you. Your comment is kept." : "Thank you.", true);
    then();
  } catch (error) {
    say(`That was not kept: ${error.message}.`, true);
  }
}

async function copy(view) {
  const sources = view.passages.filter((one) => view.citations.some((mark) => mark.n === one.n));
  const list = sources.map((one) => `[${one.n}] ${nameOf(one.source)}`).join("\n");
  try {
    await navigator.clipboard.writeText(list ? `${view.said}\n\n${list}` : view.said);
    say("Copied.", true);
  } catch {
    say("The browser does not let this page copy.", true);
  }
}

function notice(view, message, failed = false) {
  const line = element("div", failed ? "notice failed" : "notice", message);
  view.answer.append(line);
  return line;
}

// A button that asks the same again in this turn's place, after `wait` seconds.
function again(view, line, wait = 0) {
  const button = element("button", "small", "Ask again");
  const until = Date.now() + 1_000 * wait;
  const count = () => {
    const left = Math.ceil((until - Date.now()) / 1_000);
    button.disabled = left > 0;
    button.textContent = left > 0 ? `Ask again in ${left} s` : "Ask again";
    if (left > 0 && (line.isConnected || left === wait)) setTimeout(count, 1_000);
  };
  button.onclick = () => ask(view.question, view);
  line.append(button);
  count();
}

// -- asking -----------------------------------------------------------------------------------------------------------

async function ask(question, replaced = null) {
  if (running) stop();
  const view = turnCard(question), mine = { view, control: new AbortController() };
  const step = element("p", "step", "Searching the documents");
  Object.assign(view, { session: current, at: Date.now(), said: "", step });
  view.kept = new Promise((resolve) => { view.ended = resolve; });
  running = mine;
  last = question;
  showRunning(true);
  byId("empty").hidden = true;
  if (replaced?.card.isConnected) replaced.card.replaceWith(view.card); else thread.append(view.card);
  if (!byId("title").dataset.named) titled(question);
  view.answer.setAttribute("aria-busy", "true");
  view.answer.prepend(view.step);
  say("Answering");
  toEnd();
  try {
    const place = { session: view.session, turn: replaced?.failed ? replaced.turn : "" };
    for await (const [name, data] of api.ask(question, place, mine.control.signal)) taken(view, name, data);
    if (!view.done) throw new api.Refused("the answer broke off");
  } catch (error) {
    if (!view.done) broken(view, error, mine.control.signal.aborted);
  } finally {
    view.answer.setAttribute("aria-busy", "false");
    view.step.remove();
    view.ended();
    if (api.unfinished.get()?.turn === view.turn) api.unfinished.set(null);
    if (running === mine) { running = null; showRunning(false); }
  }
  await listSessions();
  if (view.left && view.session === current) openSession(current);
}

function taken(view, name, data) {
  const following = scroller.scrollHeight - scroller.scrollTop - scroller.clientHeight < NEAR_END;
  if (name === "head") view.correlation = data.correlation;
  else if (name === "session") begun(view, data);
  else if (name === "retrieval") {
    view.passages = data.passages;
    view.step.textContent = `Reading ${counted(data.passages.length, "passage")}`;
    if (data.note) notice(view, `Found by words alone: ${data.note}.`);
  } else if (name === "token") {
    view.said += data.text;
    view.step.hidden = true;
    draw(view);
  } else if (name === "notice") notice(view, data.message);
  else if (name === "guardrail") notice(view, data.action === "blocked" ? "Held back by the guardrail." : `Guardrail: ${data.message}.`);
  else if (name === "done") done(view, data);
  else if (name === "error") throw new api.Refused(data.message);
  if (following && view.card.isConnected) toEnd();
}

function begun(view, data) {
  const shown = view.card.isConnected;
  Object.assign(view, data);
  if (!shown) return;
  current = data.session;
  api.unfinished.set({ ...data, question: view.question, at: view.at });
  history.replaceState(null, "", `${location.pathname}#${current}`);
  showSessions();
}

// The text so far, at most once a frame.
function draw(view) {
  if (view.drawing) return;
  view.drawing = requestAnimationFrame(() => {
    view.drawing = 0;
    if (view.done) return;
    const following = scroller.scrollHeight - scroller.scrollTop - scroller.clientHeight < NEAR_END;
    renderAnswer(view.text, view.said, (number, said) => cite(view, number, said));
    if (following && view.card.isConnected) toEnd();
  });
}

function done(view, data) {
  Object.assign(view, { done: true, said: data.answer, citations: data.citations });
  if (data.correlation) view.correlation = data.correlation;
  finish(view, data.answer);
  const times = data.timing || {}, told = [];
  if (times.first_token_ms !== undefined) told.push(`first token ${times.first_token_ms} ms`);
  if (times.total_ms !== undefined) told.push(`all ${times.total_ms} ms`);
  if (data.cost_usd) told.push(`$${data.cost_usd.toFixed(4)}`);
  if (data.mode && !USUAL_MODES.includes(data.mode)) told.push(`mode: ${data.mode}`);
  if (data.cancelled) again(view, notice(view, "Stopped."));
  foot(view, told.join(" · "));
  view.answer.setAttribute("aria-busy", "false");
  if (running?.view === view) { running = null; showRunning(false); } // what follows is the turn being kept
  say(`Answer: ${view.text.textContent}`);
}

function broken(view, error, stopped) {
  Object.assign(view, { done: true, failed: !stopped });
  renderAnswer(view.text, view.said, (number, said) => cite(view, number, said));
  const line = notice(view, stopped ? "Stopped." : `No complete answer: ${error.message}.`, !stopped);
  if (error.status === 401) {
    const button = element("button", "small", "Give an access key");
    button.onclick = () => unlock("");
    line.append(button);
  }
  again(view, line, error.wait);
  say(line.firstChild.textContent);
  toEnd();
}

async function stop() {
  const { view, control } = running;
  running = null;
  showRunning(false);
  control.abort();
  if (!view.turn) return;
  try { await api.cancel(view.turn, view.session); } catch { /* the stream is closed: the answer ends anyway */ }
}

function showRunning(on) {
  send.classList.toggle("stop", on);
  send.setAttribute("aria-label", on ? "Stop the answer" : "Ask");
  send.title = on ? "Stop the answer" : "Ask";
  byId("send-icon").setAttribute("href", on ? "#i-stop" : "#i-send");
}

function toEnd() { scroller.scrollTop = scroller.scrollHeight; }

function titled(title = "") {
  byId("title").textContent = title || "New chat";
  byId("title").dataset.named = title && "yes";
  document.title = title ? `${title} · Ask your documents` : "Ask your documents";
}

// -- chats ------------------------------------------------------------------------------------------------------------

// `more` goes on where the list ends; without it the list is as long as it was.
async function listSessions(more = false) {
  try {
    let found = await api.sessions(more ? following : "");
    let all = more ? [...listed, ...found.sessions] : found.sessions;
    while (!more && found.next && all.length < listed.length) {
      found = await api.sessions(found.next);
      all = [...all, ...found.sessions];
    }
    [listed, following] = [all, found.next];
    showSessions();
  } catch (error) {
    showSessions();
    byId("sessions-note").textContent = `The chats cannot be listed: ${error.message}.`;
  }
}

// A chat whose first turn is not kept yet stands at the top.
function showSessions() {
  const known = !current || listed.some((one) => one.session === current);
  byId("sessions-note").textContent = listed.length || !known ? "" : "Your chats will be listed here.";
  const fresh = known ? [] : [{ session: current, title: byId("title").textContent, updated: Date.now() }];
  byId("sessions-more").hidden = !following;
  byId("sessions").replaceChildren(...[...fresh, ...listed].map((one) => {
    const open = element("button", "open", element("span", "", one.title), element("small", "", ago(one.updated)));
    const item = element("li", one.session === current ? "current" : "", open);
    if (one.session === current) open.setAttribute("aria-current", "true");
    open.onclick = () => openSession(one.session);
    item.append(iconButton("bin", `Delete the chat ${one.title}`, () => forget(one)));
    return item;
  }));
}

async function openSession(id) {
  leave();
  current = id;
  history.replaceState(null, "", `${location.pathname}#${id}`);
  showSessions();
  try {
    const found = await finishedSession(id);
    if (current !== id) return;
    byId("empty").hidden = true;
    titled(found.title);
    thread.replaceChildren(...found.turns.map((turn) => keptTurn(id, turn)));
    last = found.turns[found.turns.length - 1]?.question || "";
    toEnd();
    if (matchMedia("(pointer: fine)").matches) input.focus();
  } catch (error) {
    if (current !== id) return;
    newChat();
    say(`That chat cannot be opened: ${error.message}.`, true);
  }
}

// The chat. A turn that was being answered when this page was left is waited for; it fails when it does not come.
async function finishedSession(id) {
  const left = api.unfinished.get(), mine = left?.session === id ? left : null;
  for (;;) {
    let found = { title: mine?.question, turns: [] };
    try { found = await api.session(id); } catch (error) { if (!mine || error.status !== 404) throw error; }
    if (!mine || found.turns.some((one) => one.turn === mine.turn && one.status !== "failed")) break;
    if (current !== id) return found;
    if (Date.now() - mine.at > WAIT_MS) {
      const failed = { ...mine, answer: "", status: "failed", passages: [], citations: [], created: mine.at };
      return { ...found, turns: [...found.turns.filter((one) => one.turn !== mine.turn), failed] };
    }
    stillRunning(id, found, mine.question);
    await new Promise((resolve) => { setTimeout(resolve, LOOK_MS); });
  }
  api.unfinished.set(null);
  return api.session(id);
}

function stillRunning(id, found, question) {
  if (thread.querySelector(".answer[aria-busy=true]")) return;
  const view = turnCard(question);
  view.answer.setAttribute("aria-busy", "true");
  view.answer.prepend(element("p", "step", "Still being answered"));
  byId("empty").hidden = true;
  titled(found.title);
  thread.replaceChildren(...found.turns.map((turn) => keptTurn(id, turn)), view.card);
  say("Still being answered");
  toEnd();
}

function keptTurn(session, turn) {
  const view = turnCard(turn.question);
  Object.assign(view, {
    session, turn: turn.turn, passages: turn.passages, citations: turn.citations, said: turn.answer, at: turn.created,
    correlation: turn.correlation || "", failed: turn.status === "failed",
  });
  view.answer.setAttribute("aria-busy", "false");
  finish(view, turn.answer);
  if (turn.status === "cancelled") again(view, notice(view, "Stopped."));
  if (turn.status === "failed") again(view, notice(view, "Not completed.", true));
  if (turn.answer) foot(view, "", turn.feedback);
  return view.card;
}

// A running answer goes on and is kept; it is found in its chat when it is done.
function leave() {
  if (running) running.view.left = true;
  running = null;
  showRunning(false);
  if (side.matches(":popover-open")) side.hidePopover();
}

function newChat() {
  leave();
  current = last = "";
  history.replaceState(null, "", location.pathname);
  thread.replaceChildren();
  byId("empty").hidden = false;
  titled();
  showSessions();
  input.focus();
}

async function forget(one) {
  const dialog = byId("confirm");
  byId("confirm-title").textContent = "Delete this chat?";
  byId("confirm-text").textContent = `“${one.title}” and its answers are gone for good.`;
  if (await answered(dialog) !== "yes") return;
  try {
    await api.forget(one.session);
    say("The chat is deleted.", true);
    if (one.session === current) newChat();
  } catch (error) {
    say(`The chat could not be deleted: ${error.message}.`, true);
  }
  await listSessions();
}

// What the dialog is closed with. Its event comes late: when it is open again by then, the event was the last asking's.
function answered(dialog) {
  dialog.settle?.("");
  dialog.returnValue = "";
  if (!dialog.open) dialog.showModal();
  return new Promise((resolve) => {
    dialog.settle = resolve;
    dialog.onclose = () => { if (!dialog.open) resolve(dialog.returnValue); };
  });
}

async function showExamples() {
  try {
    byId("examples").replaceChildren(...(await api.examples()).map((question) => {
      const button = element("button", "", question);
      button.onclick = () => ask(question);
      return element("li", "", button);
    }));
  } catch { /* the page works without examples */ }
}

// -- the access key, the theme ----------------------------------------------------------------------------------------

let asking = null;

// Asks for a key; resolves to whether there is a new one.
function unlock(message) {
  asking ||= askForKey(message).finally(() => { asking = null; });
  return asking;
}

async function askForKey(message) {
  const field = byId("key-field");
  byId("key-text").textContent = message ? `The service says: ${message}.`
    : "With a key you see the documents and chats that belong to it. It is kept in this browser alone.";
  field.value = "";
  byId("key-forget").hidden = !api.accessKey();
  byId("key-forget").onclick = () => byId("key").close("forget");
  const chosen = await answered(byId("key")), given = chosen === "save" ? field.value.trim() : "";
  if (chosen !== "forget" && !given) return false;
  api.setAccessKey(given);
  if (!message) { newChat(); await listSessions(); }
  return true;
}

const THEMES = { "": "as the system", light: "light", dark: "dark" };
function themed(name) {
  document.documentElement.dataset.theme = name;
  api.kept.set("rag.theme", name);
  byId("theme-name").textContent = `Theme: ${THEMES[name]}`;
}

// -- the page's controls ----------------------------------------------------------------------------------------------

function submit() {
  const question = input.value.trim();
  if (!question) { input.focus(); return; }
  input.value = "";
  fit();
  ask(question);
}

function fit() {
  input.style.height = "auto";
  input.style.height = `${input.scrollHeight}px`;
}

const typing = (node) => node.matches("input, textarea, [contenteditable]");
const SHORTCUTS = { KeyN: newChat, KeyO: openDocuments };

function pressed(event) {
  if (document.querySelector("dialog[open]")) return;
  const source = event.altKey && /^Digit([1-9])$/.exec(event.code);
  if (event.altKey && (SHORTCUTS[event.code] || source)) {
    event.preventDefault();
    if (!source) SHORTCUTS[event.code]();
    else thread.lastElementChild?.querySelectorAll(".sources button")[source[1] - 1]?.click();
  } else if (event.key === "Escape" && running && !side.matches(":popover-open")) stop();
  else if (event.target === input) pressedInQuestion(event);
  else if (!typing(event.target) && event.key === "/") { event.preventDefault(); input.focus(); }
  else if (!typing(event.target) && event.key === "?") byId("keys").showModal();
}

function pressedInQuestion(event) {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) { event.preventDefault(); submit(); }
  if (event.key === "ArrowUp" && !input.value && last) { event.preventDefault(); input.value = last; fit(); }
}

function prepare() {
  prepareLibrary();
  api.whenLocked(unlock);
  themed(api.kept.get("rag.theme") || "");
  byId("form").onsubmit = (event) => {
    event.preventDefault();
    if (running) stop(); else submit();
  };
  input.oninput = fit;
  input.addEventListener("paste", (event) => {
    if (event.clipboardData.files.length) { event.preventDefault(); bringIn([...event.clipboardData.files]); }
  });
  byId("skip").onclick = (event) => { event.preventDefault(); scroller.focus(); };
  byId("new").onclick = newChat;
  byId("sessions-more").onclick = () => listSessions(true);
  byId("open-documents").onclick = () => { closeSide(); openDocuments(); };
  byId("open-key").onclick = () => { closeSide(); unlock(""); };
  byId("open-keys").onclick = () => { closeSide(); byId("keys").showModal(); };
  byId("theme").onclick = () => {
    const names = Object.keys(THEMES), now = document.documentElement.dataset.theme;
    themed(names[(names.indexOf(now) + 1) % names.length]);
  };
  for (const dialog of document.querySelectorAll("dialog")) {
    dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(""); });
    for (const button of dialog.querySelectorAll("[data-close]")) button.onclick = () => dialog.close("");
  }
  document.addEventListener("keydown", pressed);
  addEventListener("hashchange", () => { if (location.hash.slice(1) !== current) start(); });
}

const closeSide = () => { if (side.matches(":popover-open")) side.hidePopover(); };

function start() {
  const asked = new URLSearchParams(location.search).get("q")?.trim();
  const session = decodeURIComponent(location.hash.slice(1));
  if (asked) ask(asked.slice(0, 2_000));
  else if (session) openSession(session);
  else newChat();
}

prepare();
start();
showExamples();
listSessions();
