// Asks for the fleet every two seconds and shows it. In: /fleet.json. Out: rows of the table. Words go in as text, never as markup. A row stays the same element while its
// workload is there, so that focus, selection and what is opened stay too.
"use strict";

const PERIOD_MS = 2000;
// Longer than a slow answer takes, shorter than a person waits before he doubts the figures.
const PATIENCE_MS = 5000;

const $ = (id) => document.getElementById(id);
const rows = new Map();
let good = null;
let timer = null;

function element(tag, classes, text) {
  const made = document.createElement(tag);
  if (classes) made.className = classes;
  if (text !== undefined) made.textContent = text;
  return made;
}

// Only what has changed is touched: a reader of the screen is told no more than that.
function say(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

const numbers = new Intl.NumberFormat("en");
const known = (value) => (value === null || value === undefined ? "unknown" : numbers.format(value));
const clock = (text) => new Date(text).toLocaleTimeString("en-GB");

function seconds(value) {
  if (value === null || value === undefined) return "unknown";
  if (value < 10) return `${value.toFixed(1)} s`;
  if (value < 120) return `${Math.round(value)} s`;
  if (value < 7200) return `${Math.round(value / 60)} min`;
  return `${Math.round(value / 3600)} h`;
}

function bytes(value) {
  if (value === null || value === undefined) return "not set";
  const mebibytes = value / 1048576;
  return mebibytes >= 10240 ? `${(mebibytes / 1024).toFixed(1)} GiB` : `${Math.ceil(mebibytes)} MiB`;
}

function cell(row, classes, label) {
  const td = element("td", classes);
  td.setAttribute("role", "cell");
  td.dataset.label = label;
  const main = element("span");
  const small = element("small");
  td.append(main, small);
  row.append(td);
  return { td, main, small };
}

function fill(parts, main, small, bad) {
  say(parts.main, main);
  say(parts.small, small || "");
  parts.main.classList.toggle("bad", Boolean(bad));
  parts.main.classList.toggle("quiet", main === "unknown");
}

function make(key) {
  const row = element("tr");
  row.setAttribute("role", "row");
  const head = element("th", "name");
  head.scope = "row";
  head.setAttribute("role", "rowheader");
  const button = element("button");
  button.type = "button";
  const [namespace, name] = key.split("/");
  button.append(element("span", "", `${namespace}/`), document.createElement("wbr"), name);
  button.setAttribute("aria-expanded", "false");
  const queue = element("small");
  head.append(button, queue);
  row.append(head);
  const cells = {
    backlog: cell(row, "number", "Backlog"), wait: cell(row, "number", "Wait"), now: cell(row, "number", "Now"), wanted: cell(row, "number", "Wanted"),
    max: cell(row, "number", "Max"), parked: cell(row, "number", "Parked"), memory: cell(row, "memory", "Memory"), state: cell(row, "state", "State"),
    why: cell(row, "why", "Last decision"),
  };
  cells.why.main.className = "reason";
  const more = element("tr", "more");
  more.setAttribute("role", "row");
  more.hidden = true;
  more.id = `more-${rows.size}-${Date.now()}`;
  button.setAttribute("aria-controls", more.id);
  const wide = element("td");
  wide.colSpan = 10;
  wide.setAttribute("role", "cell");
  more.append(wide);
  const made = { row, more, wide, button, queue, cells, workload: null };
  const set = (shown) => {
    more.hidden = !shown;
    button.setAttribute("aria-expanded", String(shown));
    row.classList.toggle("opened", shown);
    if (shown && made.workload) open(made);
  };
  button.addEventListener("click", () => set(more.hidden));
  // A link to one workload: #namespace/name.
  if (decodeURIComponent(location.hash.slice(1)) === key) set(true);
  return made;
}

function memory(status) {
  const sizes = Object.values(status.sizes || {});
  const size = sizes[0] || {};
  const now = size.current && size.current.memoryBytes;
  const wanted = size.recommended && size.recommended.memoryBytes;
  if (wanted === null || wanted === undefined) return [bytes(now), ""];
  return [bytes(now), wanted === now ? "as recommended" : `recommended ${bytes(wanted)}`];
}

// Each condition that is not as it should be, and why; drawn anew only when they change.
function state(parts, trouble) {
  const text = trouble.map((t) => `${t.condition} ${t.reason}`).join(",") || "good";
  if (parts.shown === text) return;
  parts.shown = text;
  const one = (t) => {
    const made = element("div", "bad", t.condition);
    made.append(element("small", "", t.reason));
    return made;
  };
  parts.main.replaceChildren(...(trouble.length ? trouble.map(one) : [element("span", "good", "good")]));
}

function update(made, workload) {
  made.workload = workload;
  const status = workload.status;
  const limits = workload.limits;
  const decision = workload.decision && workload.decision.decision;
  const inputs = decision ? decision.inputs : {};
  const cells = made.cells;
  say(made.queue, status.queue ? `queue ${status.queue}` : "");
  const rate = status.rateIn ? `${status.rateIn}/s in,\n${status.rateOut}/s out` : "";
  fill(cells.backlog, known(status.backlog), rate);
  const wait = inputs.oldest_s ?? (status.backlog === null ? null : inputs.waited_s);
  const goal = limits ? limits.maxWaitSeconds : null;
  fill(cells.wait, seconds(wait), goal === null ? "" : `goal ${seconds(goal)}`, goal !== null && wait > goal);
  fill(cells.now, known(status.replicas), `${status.ready} ready,\n${status.busy} busy`);
  fill(cells.wanted, known(status.desired), status.wouldDo ? "dry run" : "");
  fill(cells.max, limits ? known(limits.maxReplicas) : "unknown", limits ? `min ${limits.minReplicas}` : "");
  fill(cells.parked, known(status.parked), status.terminating ? `${status.terminating} leaving` : "");
  fill(cells.memory, ...memory(status));
  state(cells.state, workload.trouble);
  made.row.classList.toggle("troubled", workload.trouble.length > 0);
  const age = status.decidedAt && good ? `${seconds(Math.max(0, (new Date(good) - new Date(status.decidedAt)) / 1000))} ago, by ${status.rule || "no rule"}` : "";
  fill(cells.why, status.reason, status.rule ? age : "");
  if (!made.more.hidden) open(made);
}

function list(title, texts, tag) {
  if (texts.length === 0) return [];
  const listed = element(tag);
  texts.forEach((text) => listed.append(element("li", "", text)));
  return [element("h2", "", title), listed];
}

// What a workload's name opens; drawn anew only when its words change.
function open(made) {
  const { status, trouble, recent, decision } = made.workload;
  const sizes = Object.entries(status.sizes || {}).filter(([, size]) => size.reason).map(([name, size]) => `${name}: ${size.reason}`);
  const stands = [status.wouldDo && `dry run: ${status.wouldDo}`, decision && decision.blocked && `nothing is lowered: ${decision.blocked}`].filter(Boolean);
  const parts = [
    list("What stands in the way", trouble.map((t) => `${t.condition} (${t.reason}, since ${clock(t.since)}): ${t.message}`).concat(stands), "ul"),
    list("Last decisions, the newest first", recent.map((r) => `${clock(r.at)}: ${r.reason}`), "ol"),
    list("Size", sizes, "ul"),
  ].flat();
  const text = parts.map((part) => part.textContent).join("\n");
  if (made.shown === text) return;
  made.shown = text;
  made.wide.replaceChildren(...(parts.length ? parts : [element("p", "quiet", "Nothing was decided yet.")]));
}

function plural(n, one) {
  return `${numbers.format(n)} ${one}${n === 1 ? "" : "s"}`;
}

function show(told) {
  good = told.at;
  document.body.classList.remove("stale");
  say($("version"), told.version);
  const only = $("troubled").checked;
  const wanted = told.shown.filter((w) => !only || w.trouble.length > 0);
  const state = told.leads ? `${plural(told.workloads, "workload")}, ${numbers.format(told.troubled)} with trouble` : "This replica does not lead";
  say($("state"), told.notReady ? `Not ready: ${told.notReady}` : state);
  const cut = told.found > told.shown.length ? `; ${told.shown.length} of ${numbers.format(told.found)} are shown, those with trouble first: find narrows it down` : "";
  say($("at"), `as of ${clock(told.at)}${cut}`);
  const body = $("rows");
  const there = new Set();
  let last = null;
  for (const workload of wanted) {
    const key = `${workload.namespace}/${workload.name}`;
    there.add(key);
    if (!rows.has(key)) rows.set(key, make(key));
    const made = rows.get(key);
    update(made, workload);
    const before = last ? last.nextSibling : body.firstChild;
    if (before !== made.row) body.insertBefore(made.row, before);
    if (made.row.nextSibling !== made.more) body.insertBefore(made.more, made.row.nextSibling);
    last = made.more;
  }
  for (const [key, made] of rows) {
    if (there.has(key)) continue;
    made.row.remove();
    made.more.remove();
    rows.delete(key);
  }
  $("fleet").hidden = wanted.length === 0;
  $("empty").hidden = wanted.length > 0;
  if (wanted.length === 0) say($("empty"), nothing(told, only));
}

function nothing(told, only) {
  if (!told.leads) {
    return "The leader alone knows the fleet. kubectl -n NAMESPACE get lease qscaler-controller names its pod: forward the port of that one.";
  }
  if (told.workloads === 0) return "No Deployment of a namespace that has opted in has QScaler's annotations yet.";
  return only ? "None has trouble." : "None matches.";
}

async function poll() {
  clearTimeout(timer);
  const end = new AbortController();
  const patience = setTimeout(() => end.abort(), PATIENCE_MS);
  try {
    const find = $("find").value.trim();
    const answer = await fetch(`/fleet.json?find=${encodeURIComponent(find)}`, { signal: end.signal, cache: "no-store" });
    if (!answer.ok) throw new Error(`status ${answer.status}`);
    show(await answer.json());
  } catch (error) {
    document.body.classList.add("stale");
    say($("state"), good ? `No answer since ${clock(good)}. Is the port still forwarded?` : "No answer. Is the port forwarded?");
    say($("at"), "");
  } finally {
    clearTimeout(patience);
    if (!document.hidden) timer = setTimeout(poll, PERIOD_MS);
  }
}

$("find").addEventListener("input", poll);
$("troubled").addEventListener("change", poll);
document.addEventListener("visibilitychange", () => { if (!document.hidden) poll(); });
poll();
