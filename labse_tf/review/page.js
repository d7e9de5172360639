"use strict";
// Marks pairs as good or bad. The data, see labse_tf/review/page.py, is in #pairs:
// {name, digest, download, score, columns, pairs: [[row, score, source, target,
// language of source, of target, mark, line], ...]}.

const data = JSON.parse(document.getElementById("pairs").textContent);
const [ROW, SCORE, SOURCE, TARGET] = [0, 1, 2, 3];
const HEIGHT = 60; // px of a row of the list, as in page.css
const STORE = "labse-tf review " + data.digest;
const THEME = "labse-tf review theme";
const MARKS = ["good", "bad", "skip"];

const byId = (id) => document.getElementById(id);
const list = byId("list"), space = byId("space");

let marks = {}; // row of the file -> mark
let done = []; // [row, mark before], for undo
let shown = []; // indices of the pairs that the filters leave
let here = 0; // index in `shown`

// === Marks ===

function load() {
  for (const pair of data.pairs) if (pair[6]) marks[pair[ROW]] = pair[6];
  try {
    const kept = JSON.parse(localStorage.getItem(STORE) || "{}");
    for (const [row, mark] of Object.entries(kept)) {
      if (mark === "") delete marks[row];
      else if (MARKS.includes(mark)) marks[row] = mark;
    }
  } catch (error) {
    warn(error);
  }
}

function save() {
  // A mark that came with the file and was undone must not come back.
  const kept = { ...marks };
  for (const pair of data.pairs)
    if (pair[6] && !(pair[ROW] in marks)) kept[pair[ROW]] = "";
  try {
    // Marks of other pairs of the same file, from a page with another selection.
    const others = JSON.parse(localStorage.getItem(STORE) || "{}");
    const own = new Set(data.pairs.map((pair) => String(pair[ROW])));
    for (const [row, mark] of Object.entries(others))
      if (!own.has(row)) kept[row] = mark;
    localStorage.setItem(STORE, JSON.stringify(kept));
    byId("note").textContent = "";
  } catch (error) {
    warn(error);
  }
}

function warn(error) {
  byId("note").textContent =
    "This browser does not keep the marks: download them before you close the page. " +
    error.message;
}

function mark(value) {
  if (!shown.length) return;
  const row = data.pairs[shown[here]][ROW];
  done.push([row, marks[row] || ""]);
  marks[row] = value;
  save();
  next();
}

function undo() {
  const last = done.pop();
  if (!last) return;
  const [row, before] = last;
  if (before) marks[row] = before;
  else delete marks[row];
  save();
  let place = shown.findIndex((i) => data.pairs[i][ROW] === row);
  if (place < 0) {
    // The filter by mark hides it.
    choose();
    place = shown.findIndex((i) => data.pairs[i][ROW] === row);
  }
  go(place < 0 ? here : place);
}

// The next pair without a mark, from here and then from the top.
function next() {
  const count = shown.length;
  for (let step = 1; step <= count; step++) {
    const place = (here + step) % count;
    if (!marks[data.pairs[shown[place]][ROW]]) return go(place);
  }
  go(Math.min(here + 1, count - 1));
}

function go(place) {
  here = Math.max(0, Math.min(place, shown.length - 1));
  const top = here * HEIGHT, height = list.clientHeight;
  if (top < list.scrollTop || top + HEIGHT > list.scrollTop + height)
    list.scrollTop = Math.max(0, top - (height - HEIGHT) / 2);
  draw();
}

// === Filters ===

function plain(text) {
  return text.normalize("NFC").toLowerCase();
}

function choose() {
  const words = plain(byId("search").value.trim());
  const low = parseFloat(byId("low").value), high = parseFloat(byId("high").value);
  const kind = byId("kind").value;
  const current = shown.length ? shown[here] : -1;
  shown = [];
  data.pairs.forEach((pair, index) => {
    const score = pair[SCORE];
    if (score !== null && (score < low || score > high)) return;
    const own = marks[pair[ROW]] || "none";
    if (kind !== "all" && kind !== own) return;
    if (words && !plain(pair[SOURCE]).includes(words)
        && !plain(pair[TARGET]).includes(words)) return;
    shown.push(index);
  });
  space.style.height = shown.length * HEIGHT + "px";
  const place = shown.indexOf(current);
  list.scrollTop = 0;
  go(place < 0 ? 0 : place);
}

// === Drawing ===

function element(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

function textElement(pair, side, className) {
  const made = element("div", className, pair[SOURCE + side]);
  made.dir = "auto";
  if (pair[4 + side]) made.lang = pair[4 + side];
  return made;
}

function shownScore(pair) {
  return pair[SCORE] === null ? "" : pair[SCORE].toFixed(3);
}

function drawList() {
  const first = Math.max(0, Math.floor(list.scrollTop / HEIGHT) - 5);
  const last = Math.min(
    shown.length, Math.ceil((list.scrollTop + list.clientHeight) / HEIGHT) + 5);
  const rows = [];
  for (let place = first; place < last; place++) {
    const pair = data.pairs[shown[place]], own = marks[pair[ROW]] || "";
    const row = element("div", "row" + (place === here ? " here" : ""));
    row.style.top = place * HEIGHT + "px";
    row.dataset.place = place;
    row.append(element("span", "dot " + own));
    row.append(element("span", "number soft", shownScore(pair)));
    const both = element("div", "both");
    both.append(textElement(pair, 0, "one"), textElement(pair, 1, "one"));
    row.append(both);
    rows.push(row);
  }
  space.replaceChildren(...rows);
}

function drawCurrent() {
  const box = byId("texts");
  if (!shown.length) {
    byId("place").textContent = "";
    byId("mark").textContent = "";
    box.replaceChildren(element("div", "soft", "No pair fits the filters."));
    return;
  }
  const pair = data.pairs[shown[here]], own = marks[pair[ROW]] || "";
  const score = shownScore(pair);
  byId("place").textContent =
    `${(here + 1).toLocaleString("en")} of ${shown.length.toLocaleString("en")}` +
    (score ? ` · ${data.score} ${score}` : "") + ` · line ${pair[7]}`;
  byId("mark").textContent = own;
  byId("mark").className = "mark " + own;
  box.replaceChildren(textElement(pair, 0, "text"), textElement(pair, 1, "text"));
}

function drawCounts() {
  const counts = { good: 0, bad: 0, skip: 0 }, total = data.pairs.length;
  for (const pair of data.pairs) {
    const own = marks[pair[ROW]];
    if (own) counts[own]++;
  }
  const sum = counts.good + counts.bad + counts.skip;
  const show = (number) => number.toLocaleString("en");
  byId("counts").textContent =
    `${show(sum)} of ${show(total)} marked: ${show(counts.good)} good, ` +
    `${show(counts.bad)} bad, ${show(counts.skip)} skipped`;
  for (const name of MARKS)
    document.querySelector("#meter ." + name).style.width =
      (100 * counts[name]) / Math.max(total, 1) + "%";
}

function draw() {
  drawCurrent();
  drawCounts();
  drawList();
}

// === Download ===

function markedLines() {
  const onOneLine = (text) => text.replace(/[\t\r\n]/g, " ");
  const lines = [];
  for (const pair of data.pairs) {
    const own = marks[pair[ROW]];
    if (own !== "good" && own !== "bad") continue;
    lines.push([pair[SOURCE], pair[TARGET], own].map(onOneLine).join("\t") + "\n");
  }
  return lines.join("");
}

function download() {
  const file = new Blob([markedLines()], { type: "text/tab-separated-values" });
  const link = element("a");
  link.href = URL.createObjectURL(file);
  link.download = data.download;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

// === Events ===

function theme(name) {
  if (name) document.documentElement.dataset.theme = name;
  else delete document.documentElement.dataset.theme;
  try {
    localStorage.setItem(THEME, name);
  } catch { /* The theme is then that of the system after a reload. */ }
}

function otherTheme() {
  const root = document.documentElement;
  const dark = root.dataset.theme
    ? root.dataset.theme === "dark"
    : matchMedia("(prefers-color-scheme: dark)").matches;
  theme(dark ? "light" : "dark");
}

const page = () => Math.max(1, Math.floor(list.clientHeight / HEIGHT) - 1);
const KEYS = {
  g: () => mark("good"), b: () => mark("bad"), s: () => mark("skip"), u: undo,
  j: () => go(here + 1), k: () => go(here - 1), n: next,
  ArrowDown: () => go(here + 1), ArrowUp: () => go(here - 1),
  PageDown: () => go(here + page()), PageUp: () => go(here - page()),
  Home: () => go(0), End: () => go(shown.length - 1),
  "/": () => byId("search").focus(), d: download, t: otherTheme,
};

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.matches("input, select")) {
    if (event.key === "Escape" || event.key === "Enter") event.target.blur();
    return;
  }
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  if (!(key in KEYS)) return;
  event.preventDefault();
  KEYS[key]();
});
for (const name of MARKS) byId("as-" + name).onclick = () => mark(name);
byId("undo").onclick = undo;
byId("download").onclick = download;
byId("theme").onclick = otherTheme;
for (const id of ["search", "low", "high", "kind"]) byId(id).oninput = choose;
list.addEventListener("scroll", () => requestAnimationFrame(drawList));
list.addEventListener("click", (event) => {
  const row = event.target.closest(".row");
  if (row) go(Number(row.dataset.place));
});
addEventListener("resize", drawList);
// Another tab has marked pairs of this file; or the browser, right after a reload, has
// only now written the marks of the page before.
addEventListener("storage", (event) => {
  if (event.key !== STORE && event.key !== null) return;
  marks = {};
  load();
  draw();
});

try {
  theme(localStorage.getItem(THEME) || "");
} catch { /* See `theme`. */ }
byId("title").textContent = data.name;
load();
choose();
// Begin at the first pair without a mark.
if (shown.length && marks[data.pairs[shown[0]][ROW]]) next();
