"use strict";
// What comes from the traffic is put on the page as text, never as markup.

const byId = (id) => document.getElementById(id);
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const grouped = new Intl.NumberFormat("en-US");
const SECONDS = 120;
const MOST_REASONS = 6;

let state = null;
let chosenEndpoint = null;
let shown = null;
const history = [];

/** An element with text and, behind that, children. */
function element(name, text, ...children) {
  const made = document.createElement(name);
  if (text !== null && text !== undefined) made.textContent = text;
  made.append(...children);
  return made;
}

function cell(text, kind) {
  const made = element("td", text);
  if (kind) made.className = kind;
  return made;
}

function number(value) {
  return value === null || value === undefined ? "-" : grouped.format(value);
}

function time(micros) {
  if (micros === undefined || micros === null) return "-";
  if (micros < 1000) return `${micros} µs`;
  if (micros < 1e6) return `${(micros / 1000).toPrecision(3)} ms`;
  return `${(micros / 1e6).toPrecision(3)} s`;
}

function percent(share, digits) {
  return `${(share * 100).toFixed(digits)} %`;
}

/** Puts new rows into a table, and the focus back to where it was. */
function fill(body, rows) {
  const focused = body.contains(document.activeElement) ? document.activeElement.dataset.key : null;
  body.replaceChildren(...rows);
  if (focused) body.querySelector(`[data-key="${CSS.escape(focused)}"]`)?.focus();
}

/** Lists texts; those beyond the first few wait behind a button, which stays open once it was opened. */
function list(node, texts) {
  const now = texts.join("\n");
  if (node.dataset.shown === now) return;
  node.dataset.shown = now;
  const item = (text) => element("li", text);
  const rest = texts.slice(MOST_REASONS);
  const children = texts.slice(0, MOST_REASONS).map(item);
  if (rest.length > 0) {
    let more = node.querySelector("details");
    const focused = more?.contains(document.activeElement);
    more ??= element("details", null, element("summary", ""), element("ul", null));
    say(more.firstChild, `${rest.length} more`);
    more.lastChild.replaceChildren(...rest.map(item));
    const last = element("li", null, more);
    last.className = "more";
    children.push(last);
    node.replaceChildren(...children);
    if (focused) more.firstChild.focus();
    return;
  }
  node.replaceChildren(...children);
}

/** Changes text only where it has changed, so that a screen reader is told no more than that. */
function say(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

// The verdict.

function showVerdict(verdict) {
  byId("verdict").dataset.verdict = verdict.verdict;
  say(byId("decision"), verdict.verdict);
  const never = verdict.endpoints.some((it) => it.needs === null && it.standing !== "uncovered");
  const needs = verdict.needs === null
    ? never ? "at this rate it is never promoted" : "it cannot be said yet how many more are needed"
    : verdict.needs === 0 ? "nothing more is needed" : `${number(verdict.needs)} more needed to promote`;
  say(byId("summary"), verdict.requests === 0
    ? "no request was judged yet"
    : `${number(verdict.requests)} requests judged, ${percent(verdict.completeness, 2)} of the traffic; ${needs}`);
  list(byId("reasons"), verdict.reasons);
  document.title = `${verdict.verdict} - shadowtap`;
}

// What goes through.

let rates = null;

function showLive(live, now) {
  const last = history.at(-1);
  // The same again, since somebody else has just asked for it.
  if (last?.at === now) return;
  const rate = (name) => (last ? Math.max(0, (live[name] - last[name]) / Math.max(0.1, now - last.at)) : 0);
  const point = { at: now, ...live, rates: [rate("seen"), rate("replayed"), rate("lost")] };
  history.push(point);
  while (history.length > SECONDS) history.shift();
  const numbers = [
    ["seen", number(live.seen)],
    ["replays, all targets", number(live.replayed)],
    ["judged", number(live.judged)],
    ["lost", number(live.lost)],
    ["left aside", number(live.aside)],
    ["packets dropped", number(live.packets_lost)],
    ["seen a second", point.rates[0].toFixed(0)],
  ];
  byId("numbers").replaceChildren(
    ...numbers.map(([name, text]) => element("div", null, element("dt", name), element("dd", text))));
  const reasons = Object.entries(live.reasons).sort((a, b) => b[1] - a[1]);
  byId("lost").replaceChildren(
    ...reasons.map(([name, count]) => element("tr", null, cell(name), cell(number(count), "number"))));
  const points = history.slice(1);
  byId("rates").hidden = points.length < 2;
  if (points.length < 2) return;
  const data = [points.map((it) => it.at), ...[0, 1, 2].map((index) => points.map((it) => it.rates[index]))];
  rates ??= chart(byId("rates"), {
    series: [
      { label: "at", value: (_, value) => (value === null ? "-" : clock(value)) },
      ...[["seen", "--v1"], ["replays", "--v2"], ["lost", "--bad"]].map(([name, hue]) =>
        line(name, hue, { value: (_, value) => (value === null ? "-" : `${value.toFixed(0)}/s`) })),
    ],
    axes: [axis(clock, { space: 90 }), axis((value) => `${value}/s`, { size: 64 })],
    scales: {
      x: { range: (_, low, high) => [Math.min(low, high - 30), high] },
      y: { range: (_, low, high) => [0, Math.max(1, high * 1.1)] },
    },
  }, data);
  rates.setData(data);
  // Where nobody points, the latest.
  if (rates.cursor.left < 0) rates.setLegend({ idx: points.length - 1 });
}

function chart(node, options, data) {
  const made = new uPlot({
    width: node.clientWidth,
    height: 220,
    cursor: { points: { show: false } },
    ...options,
  }, data, node);
  new ResizeObserver(() => made.setSize({ width: node.clientWidth, height: 220 })).observe(node);
  return made;
}

function line(label, name, more) {
  return { label, stroke: () => colour(name), width: 2, points: { show: false }, ...more };
}

const clock = (seconds) => new Date(seconds * 1000).toLocaleTimeString("en-GB");

function axis(values, more) {
  return {
    stroke: () => colour("--quiet"),
    grid: { stroke: () => colour("--line"), width: 1 },
    ticks: { stroke: () => colour("--line"), width: 1 },
    size: 36,
    ...more,
    ...(values ? { values: (_, splits) => splits.map((it) => (it === null ? "" : values(it))) } : {}),
  };
}

// Endpoints.

function showEndpoints(endpoints) {
  byId("no-endpoints").hidden = endpoints.length > 0;
  byId("all").hidden = endpoints.length === 0;
  fill(byId("rows"), endpoints.map((it) => {
    const button = element("button", it.endpoint);
    button.type = "button";
    button.dataset.key = it.endpoint;
    button.setAttribute("aria-pressed", String(it.endpoint === chosenEndpoint));
    button.addEventListener("click", () => choose(it.endpoint));
    const took = it.latency;
    return element("tr", null,
      element("td", null, button), cell(it.standing, it.standing), cell(number(it.requests), "number"),
      cell(number(it.failed.v1), "number"), cell(number(it.failed.v2), "number"),
      cell(time(took?.v1[0]), "number"), cell(time(took?.v2[0]), "number"),
      cell(time(took?.v1[2]), "number"), cell(time(took?.v2[2]), "number"),
      cell(it.noise ?? "nothing"), cell(needed(it), "number"));
  }));
}

/** Of a few requests one that went wrong is many, which says nothing yet. */
function needed(endpoint) {
  if (endpoint.needs !== null) return number(endpoint.needs);
  return endpoint.standing === "uncovered" ? "more" : "never";
}

function choose(endpoint) {
  chosenEndpoint = endpoint;
  byId("example").hidden = true;
  showEndpoints(state.verdict.endpoints);
  showDetail();
  fetchDistribution();
  byId("detail").focus();
}

function standing(field) {
  if (field.excess.beyond) return ["worse", "worse"];
  if (field.noisy) return ["does not count: version 1 differs from itself", ""];
  if (field.real) return ["real, within what is allowed", "open"];
  return ["may be noise", ""];
}

function showDetail() {
  const it = state.verdict.endpoints.find((endpoint) => endpoint.endpoint === chosenEndpoint);
  byId("detail").hidden = !it;
  if (!it) return;
  byId("detail-title").textContent = it.endpoint;
  list(byId("detail-reasons"), it.reasons);
  showLatency(it.latency);
  byId("failures").hidden = it.failed.v2 === 0;
  const differing = it.fields.filter(
    (field) => field.excess.v2 + field.excess.reference + (field.unreferenced?.v2 ?? 0) > 0);
  byId("differing").hidden = differing.length === 0;
  byId("no-difference").hidden = differing.length > 0;
  fill(byId("fields"), differing.map((field) => {
    const button = element("button", field.field);
    button.type = "button";
    button.dataset.key = `${field.field} ${field.kind}`;
    button.addEventListener("click", () => fetchExamples(it.endpoint, field));
    const [text, kind] = standing(field);
    return element("tr", null,
      element("td", null, button), cell(field.kind), cell(number(field.excess.v2), "number"),
      cell(number(field.excess.reference), "number"), cell(number(field.excess.of), "number"),
      cell(others(field.unreferenced), "number"),
      cell(`10^${field.excess.evidence.toFixed(1)}`, "number"), cell(text, kind));
  }));
}

/** What the chart shows, for those who cannot see it. */
function showLatency(latency) {
  byId("latencies").hidden = !latency;
  if (!latency) return;
  const rows = [["version 1", latency.v1], ["version 2", latency.v2], ["control", latency.control]];
  byId("quantiles").replaceChildren(...rows.filter(([, took]) => took).map(([name, took]) => {
    const head = element("th", name);
    head.scope = "row";
    return element("tr", null, head, ...took.map((micros) => cell(time(micros), "number")));
  }));
  say(byId("ratio"), `The same request takes version 2 ${latency.ratio.toFixed(2)} times as long as ` +
    `${latency.control ? "the control" : "version 1"} (median).`);
}

const others = (share) => (share ? `${number(share.v2)} of ${number(share.of)}` : "-");

let distribution = null;

async function fetchDistribution() {
  if (!chosenEndpoint) return;
  const answer = await fetch(`api/latency?${new URLSearchParams({ endpoint: chosenEndpoint })}`);
  if (!answer.ok) return;
  const latency = await answer.json();
  const names = ["v1", "v2", "control"].filter((name) => latency[name].length > 0);
  const limits = [...new Set(names.flatMap((name) => latency[name].map(([limit]) => limit)))].sort((a, b) => a - b);
  const node = byId("distribution");
  distribution?.destroy();
  distribution = null;
  node.replaceChildren();
  if (limits.length === 0) {
    node.append(element("p", "Nothing was measured."));
    return;
  }
  const curves = names.map((name) => {
    const counts = new Map(latency[name]);
    const total = latency[name].reduce((sum, [, count]) => sum + count, 0);
    let below = 0;
    return limits.map((limit) => (below += counts.get(limit) ?? 0) / total);
  });
  const label = { v1: "version 1", v2: "version 2", control: "control" };
  distribution = chart(node, {
    series: [
      { label: "at most", value: (_, value) => (value === null ? "-" : time(Math.round(value * 1000))) },
      ...names.map((name) => line(label[name], `--${name}`, {
        paths: uPlot.paths.stepped({ align: 1 }),
        value: (_, value) => (value === null ? "-" : percent(value, 1)),
      })),
    ],
    scales: { x: { time: false, distr: 3 }, y: { range: [0, 1] } },
    axes: [
      axis((value) => time(Math.round(value * 1000)), { space: 80 }),
      axis((value) => percent(value, 0), { size: 60 }),
    ],
  }, [limits.map((micros) => Math.max(1, micros) / 1000), ...curves]);
}

// Examples.

for (const [id, field, kind] of [["failed-status", "status", "value"], ["failed-silent", "answer", "missing"]]) {
  byId(id).addEventListener("click", () => fetchExamples(chosenEndpoint, { field, kind }));
}

async function fetchExamples(endpoint, field) {
  const query = new URLSearchParams({ endpoint, field: field.field, kind: field.kind });
  const answer = await fetch(`api/examples?${query}`);
  const examples = answer.ok ? await answer.json() : [];
  byId("example").hidden = false;
  byId("example-title").textContent = `${endpoint}: ${field.field} (${field.kind})`;
  const choices = examples.map((example, index) => {
    const button = element("button", `example ${index + 1}`);
    button.type = "button";
    button.addEventListener("click", () => showExample(example, choices, button));
    return button;
  });
  byId("example-choice").replaceChildren(...choices);
  if (examples.length === 0) {
    byId("example-choice").textContent = field.field.startsWith("call ")
      ? "What version 2 calls is compared by the mock, which has examples: GET /mock/api/side-effects."
      : "No example is kept: it differed too long ago, or the answers are too large.";
    shown = null;
    for (const id of ["example-request", "example-v1", "example-v2"]) byId(id).replaceChildren();
  } else {
    showExample(examples[0], choices, choices[0]);
  }
  byId("example").focus();
}

function showExample(example, choices, chosen) {
  shown = example;
  for (const button of choices) button.setAttribute("aria-pressed", String(button === chosen));
  byId("example-request").textContent =
    [`${example.request.method} ${example.request.target}`, ...headerLines(example.request), "", ...bodyLines(example.request)].join("\n");
  const [one, two] = [answerLines(example.v1), answerLines(example.v2)];
  showSide(byId("example-v1"), one, new Set(two));
  showSide(byId("example-v2"), two, new Set(one));
  byId("copied").textContent = "";
}

/** Lines that the other side has not are marked: by colour, and in words for those who do not see it. */
function showSide(node, lines, others) {
  node.replaceChildren(...lines.map((text) => {
    const made = element("span", text);
    made.className = others.has(text) ? "line" : "line differs";
    if (!others.has(text)) made.title = "differs";
    return made;
  }));
}

const headerLines = (message) => message.headers.map(([name, value]) => `${name}: ${value}`);

function bodyLines(message) {
  const body = message.body;
  const cut = body.is_whole ? [] : [`… ${number(body.length)} bytes in all`];
  if (body.text === null) return body.length === 0 ? [] : [`base64 ${body.base64}`, ...cut];
  try {
    return JSON.stringify(JSON.parse(body.text), null, 2).split("\n").concat(cut);
  } catch {
    return body.text.split("\n").concat(cut);
  }
}

function answerLines(answer) {
  if (!answer) return ["no whole answer"];
  return [String(answer.status), ...headerLines(answer), "", ...bodyLines(answer)];
}

/** A text as one word of a POSIX shell. */
const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;

/** What a terminal takes for a key when it is pasted, such as Ctrl-C, and what makes a line look like another one. */
const UNPRINTABLE = /[\0-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]/g;
const isPlain = (text) => text.search(UNPRINTABLE) < 0;
const bytesOf = (text) => Array.from(new TextEncoder().encode(text));

/** The same, where there may be such characters in it. */
function word(text) {
  if (isPlain(text)) return quoted(text);
  const octal = (char) => bytesOf(char).map((byte) => `\\0${byte.toString(8).padStart(3, "0")}`).join("");
  // Shells at which somebody sits look for ! between double quotes, whatever is inside of them.
  const escaped = text.replaceAll("\\", "\\\\").replaceAll("!", "\\0041").replace(UNPRINTABLE, octal);
  return `"$(printf %b ${quoted(escaped)})"`;
}

/** Fields that curl sets itself, or that do not fit the decoded body. */
const LEFT_OUT = new Set(["content-length", "transfer-encoding", "connection", "content-encoding", "expect", "shadowtap"]);

function curl(example, base) {
  const { method, target, headers, body } = example.request;
  const host = hostOf(example.request);
  // Brackets and braces in a URL are no pattern.
  const words = ["curl", "--include", "--path-as-is", "--globoff"];
  if (method === "HEAD") words.push("--head");
  else words.push("--request", word(method));
  for (const [name, value] of headers) {
    // curl would read what is behind an @ as the name of a file.
    if (LEFT_OUT.has(name.toLowerCase()) || name.startsWith("@")) continue;
    words.push("--header", word(value === "" ? `${name};` : `${name}: ${value}`));
  }
  let before = "";
  if (body.text && isPlain(body.text.replaceAll("\n", ""))) words.push("--data-raw", quoted(body.text));
  else if (body.text || body.base64) {
    const base64 = body.base64 ?? btoa(bytesOf(body.text).map((byte) => String.fromCharCode(byte)).join(""));
    before = `printf %s ${quoted(base64)} | base64 -d | `;
    words.push("--data-binary", "@-");
  }
  // OPTIONS * and what was meant for a proxy.
  if (!target.startsWith("/")) words.push("--request-target", word(target));
  words.push(word((base ?? `http://${host}`) + (target.startsWith("/") ? target : "/")));
  return before + words.join(" ");
}

function harMessage(message) {
  return {
    httpVersion: "HTTP/1.1",
    cookies: [],
    headers: message.headers.map(([name, value]) => ({ name, value })),
    headersSize: -1,
    bodySize: message.body.length,
  };
}

const hostOf = (request) =>
  request.headers.find(([name]) => name.toLowerCase() === "host")?.[1] || "localhost";

function har(example) {
  const { request } = example;
  const { target } = request;
  const url = target.startsWith("/") || target === "*" ? `http://${hostOf(request)}${target}` : target;
  const query = target.split("#")[0].split("?").slice(1).join("?");
  const entry = (answer, comment) => ({
    startedDateTime: example.time,
    time: 0,
    comment,
    request: {
      ...harMessage(request),
      method: request.method,
      url,
      queryString: [...new URLSearchParams(query)].map(([name, value]) => ({ name, value })),
      ...(request.body.text ? { postData: { mimeType: typeOf(request), text: request.body.text } } : {}),
    },
    response: {
      ...harMessage(answer),
      status: answer.status,
      statusText: "",
      redirectURL: "",
      content: {
        size: answer.body.length,
        mimeType: typeOf(answer),
        ...(answer.body.text === null ? { text: answer.body.base64 ?? "", encoding: "base64" } : { text: answer.body.text }),
      },
    },
    cache: {},
    timings: { send: 0, wait: 0, receive: 0 },
  });
  const entries = [entry(example.v1, "version 1")];
  if (example.v2) entries.push(entry(example.v2, "version 2"));
  return { log: { version: "1.2", creator: { name: "shadowtap", version: state.version }, entries } };
}

const typeOf = (message) =>
  message.headers.find(([name]) => name.toLowerCase() === "content-type")?.[1] ?? "application/octet-stream";

async function copy(text) {
  const said = byId("copied");
  try {
    await navigator.clipboard.writeText(text);
    said.textContent = "copied";
  } catch {
    // Pages without TLS have no clipboard but the old one.
    const area = element("textarea", text);
    document.body.append(area);
    area.select();
    said.textContent = document.execCommand("copy") ? "copied" : text;
    area.remove();
  }
}

byId("copy-v1").addEventListener("click", () => shown && copy(curl(shown, null)));
byId("copy-v2").addEventListener("click", () => shown && copy(curl(shown, state.target)));
byId("har").addEventListener("click", () => {
  if (!shown) return;
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([JSON.stringify(har(shown), null, 2)], { type: "application/json" }));
  link.download = `shadowtap-${shown.id}.har`;
  link.click();
  URL.revokeObjectURL(link.href);
});

// What is new, once a second.

function show(next) {
  state = next;
  if (next.reveals) say(byId("secrets"), "Secrets are shown as they were captured (--reveal).");
  showVerdict(next.verdict);
  showLive(next.live, next.at / 1000);
  showEndpoints(next.verdict.endpoints);
  if (chosenEndpoint === null && next.verdict.endpoints.length > 0) {
    chosenEndpoint = next.verdict.endpoints[0].endpoint;
    showEndpoints(next.verdict.endpoints);
    fetchDistribution();
  }
  showDetail();
}

const events = new EventSource("api/events");
events.onmessage = (event) => {
  say(byId("connection"), "live");
  show(JSON.parse(event.data));
};
events.onerror = () => say(byId("connection"), "not connected: what you see is old");
setInterval(fetchDistribution, 5000);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  rates?.redraw();
  distribution?.redraw();
});
