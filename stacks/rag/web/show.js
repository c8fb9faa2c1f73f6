// Text to nodes: no text ever becomes markup. An answer's Markdown, a passage's blocks with the cited words marked.

export const byId = (id) => document.getElementById(id);

export function element(tag, name, ...children) {
  const node = document.createElement(tag);
  if (name) node.className = name;
  node.append(...children);
  if (tag === "button") node.type = "button";
  return node;
}

export function icon(name) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const use = document.createElementNS("http://www.w3.org/2000/svg", "use");
  use.setAttribute("href", `#i-${name}`);
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  svg.append(use);
  return svg;
}

// A button that shows an icon alone; `label` is its name.
export function iconButton(name, label, act) {
  const button = element("button", "quiet", icon(name));
  button.setAttribute("aria-label", label);
  button.title = label;
  button.onclick = act;
  return button;
}

// Said once to those who listen to the page, and shown for a moment when `seen`.
export function say(text, seen = false) {
  byId("said").textContent = text;
  if (!seen) return;
  const toast = byId("toast");
  toast.textContent = text;
  toast.hidden = false;
  clearTimeout(say.timer);
  say.timer = setTimeout(() => { toast.hidden = true; }, 5_000);
}

export function ago(ms) {
  const seconds = Math.max(0, (Date.now() - ms) / 1_000);
  if (seconds < 60) return "now";
  for (const [unit, length] of [["d", 86_400], ["h", 3_600], ["min", 60]]) {
    if (seconds >= length) return `${Math.floor(seconds / length)} ${unit} ago`;
  }
  return "";
}

// The last part of a key; an upload's folder is its sender's business.
export const nameOf = (key) => key.startsWith("uploads/") ? key.split("/").slice(2).join("/") || key : key;

// The passage's own heading, without its document's title where there is more than that.
export function headingOf(passage) {
  const start = `${passage.title} > `;
  return passage.headings?.startsWith(start) ? passage.headings.slice(start.length) : passage.headings || passage.title;
}

export const counted = (count, word) => `${count} ${word}${count === 1 ? "" : "s"}`;

// -- an answer --------------------------------------------------------------------------------------------------------

const INLINE = /\[(\d+(?:\s*[,;]\s*\d+)*)\]|`([^`\n]+)`|\*\*([^*\n]+)\*\*|(?<![\w*])\*([^*\s][^*\n]*)\*(?![\w*])/g;
const RULE = /^\s*\|?[\s:|-]+\|?\s*$/;
const ITEM = /^\s*(?:[-*•]|(\d{1,3})[.)])\s+(.*)$/;

// `cite(number, said)` gives the node for a mark, or null where there is no such passage; `said` is the text that the
// mark stands behind.
function inline(node, text, cite) {
  let from = 0, begun = 0;
  for (const match of text.matchAll(INLINE)) {
    const [whole, numbers, code, strong, emphasis] = match;
    const said = text.slice(begun, match.index).trim();
    const marks = numbers ? numbers.split(/\s*[,;]\s*/).map((one) => cite(Number(one), said)).filter(Boolean) : [];
    if (numbers && !marks.length) continue;
    node.append(text.slice(from, match.index));
    from = match.index + whole.length;
    if (code) node.append(element("code", "", code));
    if (strong) node.append(element("strong", "", strong));
    if (emphasis) node.append(element("em", "", emphasis));
    if (marks.length) { node.append(...marks); begun = from; }
  }
  node.append(text.slice(from));
  return node;
}

// [kind, text] of every block; a fence that is still open is code already.
function blocksOf(text) {
  const blocks = [];
  let lines = [], fence = null;
  const flush = () => {
    const body = lines.join("\n").trim();
    if (body) blocks.push([kindOf(lines), body]);
    lines = [];
  };
  for (const line of text.split("\n")) {
    if (fence) {
      if (line.trim() === "```") { blocks.push(["code", fence.join("\n")]); fence = null; } else fence.push(line);
    } else if (/^\s*```/.test(line)) { flush(); fence = []; }
    else if (!line.trim()) flush();
    else if (/^#{1,6}\s/.test(line)) { flush(); blocks.push(["heading", line.replace(/^#+\s+/, "")]); }
    else {
      if (lines.length && kindOf(lines) !== kindOf([line]) && (ITEM.test(line) || line.trim().startsWith("|"))) flush();
      lines.push(line);
    }
  }
  flush();
  if (fence) blocks.push(["code", fence.join("\n")]);
  return blocks;
}

function kindOf(lines) {
  const first = lines.find((line) => line.trim()) || "", item = ITEM.exec(first);
  if (item) return item[1] ? "numbers" : "bullets";
  return first.trim().startsWith("|") ? "table" : "text";
}

function blockNode([kind, text], cite) {
  if (kind === "code") return element("pre", "", element("code", "", text));
  if (kind === "heading") return inline(element("h4"), text, cite);
  if (kind === "table") return tableNode(text, cite);
  if (kind === "text") return inline(element("p"), text, cite);
  const list = element(kind === "numbers" ? "ol" : "ul");
  for (const line of text.split("\n")) {
    const item = ITEM.exec(line);
    if (item && item[1] && !list.children.length) list.start = Number(item[1]);
    if (item) list.append(inline(element("li"), item[2], cite));
    else if (list.lastChild) inline(list.lastChild, ` ${line.trim()}`, cite);
  }
  return list;
}

function tableNode(text, cite) {
  const rows = text.split("\n").filter((line) => !RULE.test(line));
  if (rows.length < 2) return inline(element("p"), text, cite);
  const table = element("table"), box = element("div", "wide", table);
  rows.forEach((line, at) => {
    const cells = line.trim().replace(/^\||\|$/g, "").split("|");
    table.append(element("tr", "", ...cells.map((one) => inline(element(at ? "td" : "th"), one.trim(), cite))));
  });
  return box;
}

// Show `text` in `node`. Blocks that did not change since the last time stay the nodes they are.
export function renderAnswer(node, text, cite, afresh = false) {
  const blocks = blocksOf(text), shown = afresh ? [] : node.shown || [];
  const sources = blocks.map((one) => one.join("\n"));
  let same = 0;
  while (same < shown.length && same < sources.length && shown[same] === sources[same]) same += 1;
  while (node.children.length > same) node.lastChild.remove();
  node.append(...blocks.slice(same).map((one) => blockNode(one, cite)));
  node.shown = sources;
}

// -- a passage --------------------------------------------------------------------------------------------------------

const SENTENCE = /[^.!?\n]+(?:[.!?]+(?=\s|$)|[.!?]+|\n|$)/g;
const ALIKE = 0.6;

const wordsOf = (text) => new Set(text.toLowerCase().match(/[\p{L}\p{N}]{3,}/gu) || []);

// [start, end] of what is cited in `text`: the given quotes (strings, or places), else the sentences that were said,
// else the sentence that says most of it.
export function spansOf(text, quotes, said) {
  const place = (one) => typeof one === "string" ? placeOf(text, one) : placeIn(text, one);
  const given = (quotes || []).map(place).filter(Boolean);
  if (given.length) return inOrder(given);
  const sentences = (said.match(SENTENCE) || []).map((one) => one.trim()).filter((one) => one.length > 3);
  const exact = sentences.map((one) => placeOf(text, one)).filter(Boolean);
  return inOrder(exact.length ? exact : nearest(text, said));
}

// What is cited of `passage`, sentence by sentence, to be found again where the passage was cut otherwise.
export function quoted(passage, quotes, said) {
  const texts = spansOf(passage.text, quotes, said).map(([start, end]) => passage.text.slice(start, end));
  return texts.flatMap((one) => one.match(SENTENCE) || []).map((one) => one.trim()).filter((one) => one.length > 1);
}

export const spansOfAll = (text, parts) => inOrder(parts.map((one) => placeOf(text, one)).filter(Boolean));

// The service counts characters, the browser counts in UTF-16.
function placeIn(text, one) {
  const [start, end] = Array.isArray(one) ? one : [one.start, one.end];
  if (!Number.isInteger(start) || !(end > start)) return null;
  const letters = Array.from(text.slice(0, 2 * end));
  return [letters.slice(0, start).join("").length, letters.slice(0, end).join("").length];
}

// Where `quote` stands, however its white space is broken.
function placeOf(text, quote) {
  const pattern = quote.trim().split(/\s+/).map((one) => one.replace(/[.*+?^${}()|[\]\\]/g, "\\$&")).join("\\s+");
  const found = pattern && new RegExp(pattern).exec(text);
  return found ? [found.index, found.index + found[0].length] : null;
}

function nearest(text, said) {
  const wanted = wordsOf(said);
  let best = 0, place = [];
  for (const match of text.matchAll(SENTENCE)) {
    const words = wordsOf(match[0]);
    const share = [...words].filter((one) => wanted.has(one)).length / Math.max(1, Math.min(words.size, wanted.size));
    const lead = match[0].length - match[0].trimStart().length;
    if (words.size > 1 && share >= ALIKE && share > best) {
      best = share;
      place = [[match.index + lead, match.index + match[0].trimEnd().length]];
    }
  }
  return place;
}

function inOrder(spans) {
  const out = [];
  for (const [start, end] of spans.sort((a, b) => a[0] - b[0])) {
    const last = out[out.length - 1];
    if (last && start <= last[1]) last[1] = Math.max(last[1], end); else out.push([start, end]);
  }
  return out;
}

// A passage's text as blocks with the spans marked; code as it stands, tables as tables.
export function passageNodes(text, spans) {
  const nodes = [];
  for (const match of text.matchAll(/```[\s\S]*?(?:```|$)|[^\n](?:(?!\n\s*\n|\n```)[\s\S])*/g)) {
    const fenced = match[0].startsWith("```");
    let start = match.index, end = start + match[0].length;
    if (fenced) {
      start += match[0].indexOf("\n") + 1 || 3;
      if (match[0].length > 3 && match[0].endsWith("```")) end -= 3;
    }
    if (!fenced && /^\s*\|.*\n\s*\|/.test(match[0])) nodes.push(markedTable(text, start, end, spans));
    else nodes.push(marked(element(fenced ? "pre" : "p"), text, start, Math.max(start, end), spans));
  }
  return nodes;
}

function marked(node, text, start, end, spans) {
  let from = start;
  for (const span of spans) {
    const first = Math.max(span[0], from), last = Math.min(span[1], end);
    if (first >= last) continue;
    node.append(text.slice(from, first), element("mark", "", text.slice(first, last)));
    from = last;
  }
  node.append(text.slice(from, end));
  return node;
}

function markedTable(text, start, end, spans) {
  const table = element("table"), box = element("div", "wide", table);
  for (const line of text.slice(start, end).matchAll(/[^\n]+/g)) {
    if (RULE.test(line[0])) continue;
    const row = element("tr");
    for (const cell of line[0].matchAll(/(?<=\|)[^|]+(?=\||$)/g)) {
      const lead = cell[0].length - cell[0].trimStart().length, from = start + line.index + cell.index + lead;
      const last = from + cell[0].trim().length;
      if (cell[0].trim() || cell.index + cell[0].length < line[0].trimEnd().length) {
        row.append(marked(element(table.rows.length ? "td" : "th"), text, from, Math.max(from, last), spans));
      }
    }
    table.append(row);
  }
  return box;
}
