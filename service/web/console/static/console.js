// What makes the pages live. All texts of devices and models go in as text, never as HTML.
"use strict";
const $ = (selector, root = document) => root.querySelector(selector);
const all = (selector, root = document) => [...root.querySelectorAll(selector)];
const read = (id) => JSON.parse($(`#${id}`)?.textContent || "null");
const words = read("words");
const csrf = document.body.dataset.csrf;
const filled = (text, values) => text.replace(/\{(\w+)\}/g, (_, name) => values[name] ?? "");

// ── Numbers and times ────────────────────────────────────────────────────────────────────
function took(ms) {
  if (ms == null) return "–";
  if (ms < 1000) return `${Math.round(ms)} ms`;
  if (ms < 60000) return `${(ms / 1000).toFixed(1)} s`;
  const minutes = Math.floor(ms / 60000), hours = Math.floor(minutes / 60);
  if (minutes < 60) return `${minutes} min ${Math.floor(ms / 1000) % 60} s`;
  return hours < 48 ? `${hours} h ${minutes % 60} min` : `${Math.floor(hours / 24)} d ${hours % 24} h`;
}
const number = (value) => value == null ? "–" : value >= 1e6 ? `${(value / 1e6).toFixed(1)} M` : Math.round(value).toLocaleString("en");
const money = (usd) => usd == null ? "–" : usd === 0 || usd >= 0.1 ? `$${usd.toFixed(2)}` : `$${Number(usd.toPrecision(2))}`;
const share = (value) => value == null ? "–" : `${Math.floor(value * 1000) / 10} %`;
const language = document.documentElement.lang;
const relative = new Intl.RelativeTimeFormat(language, { style: "short", numeric: "always" });
function ago(date) {
  const seconds = (Date.now() - date) / 1000;
  if (seconds < 1) return words.now;
  for (const [unit, length] of [["day", 86400], ["hour", 3600], ["minute", 60], ["second", 1]]) {
    if (seconds >= length) return relative.format(-Math.floor(seconds / length), unit);
  }
  return words.now;
}
function times(root = document) {
  for (const one of all("time[datetime]", root)) {
    const date = new Date(one.dateTime);
    const text = one.classList.contains("ago") ? ago(date)
      : date.toLocaleString(language, { dateStyle: "short", timeStyle: "medium" });
    if (one.textContent !== text) one.textContent = text;
  }
}

// ── Acts ─────────────────────────────────────────────────────────────────────────────────
function tell(text, bad = false) {
  const line = document.createElement("p");
  line.textContent = text;
  if (bad) line.className = "bad";
  $("#told").append(line);
  setTimeout(() => line.remove(), bad ? 8000 : 4000);
}
async function call(line, body) {
  const [method, path] = [line.slice(0, line.indexOf(" ")), line.slice(line.indexOf(" ") + 1)];
  const headers = {};
  if (csrf) headers["x-csrf-token"] = csrf;
  if (body !== undefined) headers["content-type"] = "application/json";
  const answer = await fetch(path, { method, headers, body: body === undefined ? undefined : JSON.stringify(body) });
  const document = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Error(document.error?.message || `${answer.status}`);
  return document;
}
async function act(button, line, body) {
  button.disabled = true;
  try {
    await call(line, body);
    tell(words[button.dataset.said] || words.done);
    if (button.dataset.to) location.assign(button.dataset.to);
    else await again();
  } catch (error) {
    tell(`${words.failed}: ${error.message}`, true);
  } finally {
    button.disabled = false;
  }
}
// What stands in <main> is made anew by the server; the place and the focus stay.
async function again() {
  const focused = document.activeElement;
  const mark = focused && focused !== document.body && [focused.tagName, focused.getAttribute("aria-label") || focused.textContent.trim()];
  await htmx.ajax("GET", location.pathname + location.search, { target: "#main", select: "#main", swap: "outerHTML" });
  const main = $("#main");
  const same = mark && all(mark[0], main).find((one) => (one.getAttribute("aria-label") || one.textContent.trim()) === mark[1]);
  (same || main).focus({ preventScroll: true });
}
document.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-act], button[data-bulk], button[data-forget], #fresh");
  if (!button) return;
  if ("sure" in button.dataset && !button.classList.contains("sure")) {
    const said = button.textContent;
    button.classList.add("sure");
    button.textContent = words.sure;
    setTimeout(() => { button.classList.remove("sure"); button.textContent = said; }, 4000);
    return;
  }
  if (button.id === "fresh") again();
  else if (button.dataset.bulk) bulk(button);
  else if ("forget" in button.dataset) {
    const { flow, conversation } = $("#chat").dataset;
    act(button, `DELETE /conversations/${encodeURIComponent(flow)}/${encodeURIComponent(conversation)}`);
  } else act(button, button.dataset.act);
});
async function bulk(button) {
  const box = $(".job"), bar = $("progress", box), said = $("span", box);
  button.disabled = true;
  box.hidden = false;
  try {
    let job = await call("POST /requests/retry", { filter: JSON.parse(button.dataset.bulk) });
    while (job.state === "running") {
      said.textContent = filled(words.job, { done: number(job.done), looked: number(job.looked_at) });
      bar.max = Math.max(Number(button.dataset.most), job.looked_at, 1);
      bar.value = job.looked_at;
      await new Promise((next) => setTimeout(next, 300));
      job = await call(`GET /jobs/${job.id}`);
    }
    bar.max = 1; bar.value = 1;
    if (job.state !== "done") throw new Error(job.error || job.state);
    tell(filled(words.jobdone, { done: number(job.done) }));
    await again();
  } catch (error) {
    tell(`${words.failed}: ${error.message}`, true);
    button.disabled = false;
  }
}
document.addEventListener("submit", (event) => {
  const form = event.target;
  if (form.dataset.api) {
    event.preventDefault();
    const button = $("button", form);
    button.dataset.said = form.dataset.said;
    act(button, form.dataset.api, Object.fromEntries(new FormData(form)));
  } else if (form.dataset.ask) {
    event.preventDefault();
    ask(form);
  } else if (form.dataset.replay) {
    event.preventDefault();
    replay(form);
  }
});
async function replay(form) {
  const button = $("button", form), box = $("#replay"), model = form.elements.model.value.trim();
  button.disabled = true;
  box.textContent = words.asking;
  try {
    const found = await call(`POST /requests/${form.dataset.replay}/replay`, model ? { model } : {});
    const same = found.same_text && found.same_calls;
    box.replaceChildren(side(words.then, found.before), side(words.now, found.after, words[same ? "same" : "differs"]));
  } catch (error) {
    box.textContent = "";
    tell(`${words.failed}: ${error.message}`, true);
  } finally {
    button.disabled = false;
  }
}
function side(name, said, verdict) {
  const made = document.createElement("div");
  const line = (text, kind, tag = "p") => { const one = document.createElement(tag); one.className = kind; one.textContent = text; made.append(one); };
  const fits = said.valid == null ? null : words[said.valid ? "fits" : "misfits"];
  line([name, said.model || "–", `${number(said.tokens)} ${words.tokens}`, took(said.seconds * 1000), said.cost == null ? null : money(said.cost), fits, verdict].filter(Boolean).join(" · "), "meta");
  for (const one of said.calls) line(`${one.name} ${JSON.stringify(one.arguments)}`, "call mono");
  if (said.error) line(`${said.error.code}: ${said.error.message}`, "fault");
  else line(said.text ?? "", "text", "pre");
  return made;
}

// ── Asking ───────────────────────────────────────────────────────────────────────────────
function bubble(who, text) {
  const box = document.createElement("div"), inner = document.createElement("pre");
  box.className = `bubble ${who}`;
  inner.className = "plain";
  inner.textContent = text;
  box.append(inner);
  return [box, inner];
}
async function ask(form) {
  const text = form.elements.text.value;
  if (!text.trim()) return;
  const body = { text, publish: form.elements.publish.checked };
  if (form.dataset.conversation) body.conversation = form.dataset.conversation;
  if (form.elements.topic) body.topic = form.elements.topic.value;
  if (form.dataset.pattern) {
    let topic = form.dataset.pattern;
    for (const level of all("[data-level]", form)) topic = topic.replaceAll(`\${${level.dataset.level}}`, () => level.value);
    if (!/[+#]/.test(topic)) body.topic = topic;
  }
  const turn = document.createElement("div"), button = $("button", form);
  turn.className = "turn";
  const [asked] = bubble("user", text), [answer, said] = bubble("model wait", words.asking);
  const meta = document.createElement("p");
  meta.className = "meta";
  turn.append(asked, answer, meta);
  turn.setAttribute("aria-live", "polite");
  $("#chat").append(turn);
  turn.scrollIntoView({ block: "nearest" });
  button.disabled = true;
  if (form.classList.contains("ask")) form.elements.text.value = "";
  try {
    await stream(form.dataset.ask, body, (event) => {
      if (event.restart) said.textContent = "";
      if (event.delta) {
        if (answer.classList.contains("wait")) said.textContent = "";
        answer.classList.remove("wait");
        said.textContent += event.delta;
      }
      if (event.reply) {
        answer.classList.remove("wait");
        said.textContent = event.reply.text ?? "";
        if (event.reply.text == null) said.textContent = event.reply.state;
      }
      if (event.error) throw new Error(event.error.message);
    }, (place) => {
      const link = document.createElement("a");
      link.href = `/console${place}`;
      link.textContent = place.split("/").pop().slice(0, 12);
      meta.replaceChildren(link);
    });
    turn.dataset.ended = "yes";
  } catch (error) {
    answer.classList.remove("wait");
    answer.classList.add("fault");
    said.textContent = error.message;
  } finally {
    button.disabled = false;
    if (form.classList.contains("ask")) form.elements.text.focus();
  }
}
async function stream(flow, body, each, placed) {
  const headers = { "content-type": "application/json", accept: "text/event-stream" };
  if (csrf) headers["x-csrf-token"] = csrf;
  const answer = await fetch(`/ask/${encodeURIComponent(flow)}`, { method: "POST", headers, body: JSON.stringify(body) });
  if (!answer.ok) {
    const document = await answer.json().catch(() => ({}));
    throw new Error(document.error?.message || `${answer.status}`);
  }
  placed(answer.headers.get("location"));
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let held = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    held += value;
    let end;
    while ((end = /\r?\n\r?\n/.exec(held))) {
      const data = held.slice(0, end.index).split(/\r?\n/).filter((line) => line.startsWith("data:")).map((line) => line.slice(5).trim()).join("\n");
      held = held.slice(end.index + end[0].length);
      if (data && data !== "[DONE]") each(JSON.parse(data));
    }
  }
}
document.addEventListener("keydown", (event) => {
  const field = event.target.closest("textarea, input, select");
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey || (field?.closest(".ask") && !event.shiftKey)) && field?.tagName === "TEXTAREA" && !event.isComposing) {
    event.preventDefault();
    field.form.requestSubmit();
  } else if (event.key === "/" && !field && !event.ctrlKey && !event.metaKey) {
    const search = $("input[type=search], .ask textarea");
    if (search) { event.preventDefault(); search.focus(); }
  }
});

// ── Live ─────────────────────────────────────────────────────────────────────────────────
let live = null, missed = 0;
function show(board, changes = []) {
  const totals = board.totals;
  if (totals) {
    const dead = Object.values(totals.dead).reduce((sum, one) => sum + one, 0);
    for (const one of all("[data-count=dead]")) { one.textContent = number(dead); one.hidden = !dead; }
  }
  if ($("#chain")) chain(board, changes);
  if (board.latest && $("#newest")) newest(board.latest);
}
function put(name, text) {
  const one = $(`[data-show="${name}"]`);
  if (one && one.textContent !== text) one.textContent = text;
}
function chain(board, changes) {
  const said = read("live-words"), { links, totals, hour, paused } = board;
  const state = (selector, name, how) => { const one = $(`[data-${selector}="${name}"]`); one.classList.remove("ok", "warn", "bad"); if (how) one.classList.add(how); };
  const database = links.database?.ok ? "ok" : "bad", broker = links.broker?.ok ? "ok" : "bad";
  const model = links.model?.ok ? "ok" : "bad";
  const lost = totals?.given_up || 0;
  put("device.big", number(hour?.requests)); put("device.small", filled(said.ended, { n: "" }).trim());
  put("rule.big", lost ? number(lost) : "✓"); put("rule.small", lost ? filled(said.given_up, { n: number(lost) }) : said.none_lost);
  const queued = totals?.states.queued || 0, answering = totals?.states.answering || 0, answered = totals?.states.answered || 0;
  const age = totals?.oldest_at ? Date.now() - new Date(totals.oldest_at) : null;
  put("inbox.big", totals ? number(queued) : "–"); put("inbox.small", queued && age != null ? filled(said.oldest, { t: took(Math.max(age, 0)) }) : said.nothing);
  put("model.big", totals ? number(answering) : "–"); put("model.small", links.model?.ok ? said.answering : said.stopped);
  put("publish.big", totals ? number(answered) : "–"); put("publish.small", links.broker?.ok ? said.publishing : said.away);
  state("station", "rule", lost ? "warn" : ""); state("station", "inbox", database === "bad" ? "bad" : age > 60000 ? "warn" : "");
  state("station", "model", model === "bad" ? "bad" : ""); state("station", "publish", broker === "bad" ? "bad" : "");
  state("link", "in", "ok"); state("link", "webhook", database === "bad" ? "bad" : lost ? "warn" : "ok");
  state("link", "ask", database === "bad" ? "bad" : model); state("link", "reply", broker);
  if (hour) {
    put("hour.requests", number(hour.requests)); put("hour.success", share(hour.success)); put("hour.p50", took(hour.p50_ms));
    put("hour.p95", took(hour.p95_ms)); put("hour.tokens", number(hour.tokens)); put("hour.cost", money(hour.cost || null));
  }
  const alarms = [];
  if (links.database && !links.database.ok) alarms.push([`${said.no_database} ${links.database.message || ""}`, "bad"]);
  if (links.broker && !links.broker.ok) alarms.push([`${said.no_broker} ${links.broker.message || ""}`, "bad"]);
  if (links.model && !links.model.ok) alarms.push([`${said.no_model} ${(links.model.providers || []).join(", ")} ${links.model.message || ""}`, "bad"]);
  if (links.service && !links.service.ok) alarms.push([said.shutting_down, ""]);
  if (lost) alarms.push([filled(said.lost, { n: number(lost) }), ""]);
  if (links.broker?.warning) alarms.push([links.broker.warning, ""]);
  for (const one of paused) alarms.push([filled(one.kind === "flow" ? said.paused_flow : said.paused_provider, one), ""]);
  const box = $("#alarms"), text = alarms.map(([line]) => line).join("\n");
  if (box.dataset.text !== text) {
    box.dataset.text = text;
    box.replaceChildren(...alarms.map(([line, kind]) => { const p = document.createElement("p"); p.textContent = line; p.className = kind; return p; }));
  }
  const passing = { queued: ["in", "webhook"], answering: ["ask"], answered: ["reply"], done: ["in", "webhook", "ask", "reply"] };
  for (const name of new Set(changes.flatMap((one) => passing[one.state] || []))) {
    const link = $(`[data-link="${name}"]`);
    link.classList.remove("flow");
    requestAnimationFrame(() => requestAnimationFrame(() => link.classList.add("flow")));
  }
}
function newest(latest) {
  const list = $("#newest"), states = read("states"), shown = new Map(all("li[data-id]", list).map((one) => [one.dataset.id, one]));
  const first = shown.size === 0;
  if (!latest.length) return;
  const rows = latest.map((request) => {
    const before = shown.get(request.id), key = `${request.state}${request.said}`;
    if (before?.dataset.key === key) return before;
    const row = before || $("#one").content.firstElementChild.cloneNode(true);
    row.dataset.id = request.id; row.dataset.key = key;
    $("a", row).href = `/console/requests/${encodeURIComponent(request.id)}`;
    const state = $(".state", row);
    state.className = `state ${request.state}`; state.textContent = states[request.state];
    $(".where", row).textContent = [request.flow, request.conversation].filter(Boolean).join(" · ") || request.topic;
    $(".q", row).textContent = request.text || "…";
    const said = $(".a", row), fault = request.error && request.state !== "done";
    said.textContent = fault ? `${request.error.code}: ${request.error.message}` : request.said;
    said.classList.toggle("fault", !!fault);
    const time = $("time", row);
    time.dateTime = request.accepted_at; time.className = "ago";
    if (!before && !first) row.classList.add("new");
    return row;
  });
  const focused = document.activeElement?.closest("#newest li");
  list.replaceChildren(...rows);
  if (focused && list.contains(focused)) $("a", focused).focus();
  times(list);
}
function listen() {
  const pulse = $("#pulse");
  if (!pulse || !document.querySelector(".who")) return;
  const beat = (on) => { pulse.className = `pulse ${on ? "on" : "off"}`; $("span", pulse).textContent = pulse.dataset[on ? "on" : "off"]; };
  live = new EventSource("/events");
  live.addEventListener("open", () => beat(true));
  live.addEventListener("error", () => {
    beat(false);
    if (live.readyState === EventSource.CLOSED) setTimeout(listen, 3000);  // refused: 503 or a new session
  });
  live.addEventListener("hello", (event) => show(JSON.parse(event.data)));
  live.addEventListener("changes", (event) => {
    const news = JSON.parse(event.data);
    show(news, news.requests);
    changed(news.requests, news.more);
  });
}
let refreshing = null;
function changed(requests, more) {
  const open = $("#request");
  if (open && !open.dataset.ended && requests.some((one) => one.id === open.dataset.request)) refresh();
  const fresh = $("#fresh");
  if (fresh && requests.length) {
    missed += requests.length + more;
    fresh.hidden = false;
    fresh.textContent = filled(words.new, { n: number(missed) });
  }
}
function refresh() {
  refreshing ??= again().finally(() => { refreshing = null; });
}
addEventListener("pagehide", () => live?.close());
addEventListener("pageshow", (event) => { if (event.persisted) listen(); });

// ── Charts and fields ────────────────────────────────────────────────────────────────────
function chart() {
  const box = $("#chart"), series = read("series");
  if (!box || !series || typeof uPlot === "undefined") return;
  const colour = (name) => { const probe = document.createElement("i"); probe.className = name; box.append(probe); const style = getComputedStyle(probe).color; probe.remove(); return style; };
  const [ink, line, good, bad, violet] = ["c-dim", "c-line", "c-accent", "c-bad", "c-violet"].map(colour);
  const at = series.map((one) => Date.parse(one.at) / 1000);
  const failed = (one) => (one.states.failed || 0) + (one.states.expired || 0);
  const axis = { stroke: ink, grid: { stroke: line, width: 1 }, ticks: { stroke: line }, font: "12px system-ui" };
  const size = () => ({ width: box.clientWidth, height: 200 });
  const plot = new uPlot({
    ...size(),
    series: [
      { label: words.moment }, { label: words.requests, stroke: good, width: 2, fill: good.replace(")", " / 0.12)").replace("rgb(", "rgb("), points: { show: false } },
      { label: words.failedn, stroke: bad, width: 2, points: { show: false } },
      { label: words.p95, stroke: violet, width: 1.5, dash: [5, 4], scale: "s", points: { show: false }, value: (_, value) => value == null ? "–" : value.toFixed(1) },
    ],
    axes: [axis, { ...axis, size: 46 }, { ...axis, side: 1, scale: "s", grid: { show: false }, size: 46 }],
    scales: { y: { range: (_, low, high) => [0, Math.max(high, 4)] }, s: { range: (_, low, high) => [0, Math.max(high || 0, 1)] } },
  }, [at, series.map((one) => one.requests), series.map(failed), series.map((one) => one.p95_ms == null ? null : one.p95_ms / 1000)], box);
  new ResizeObserver(() => plot.setSize(size())).observe(box);
}
function fields() {
  for (const visible of all("input[data-ms]")) {
    const hidden = visible.form.elements[visible.dataset.ms];
    const ms = /^\d+$/.test(hidden.value) ? Number(hidden.value) : Date.parse(hidden.value);
    if (hidden.value && !Number.isNaN(ms)) visible.value = new Date(ms - new Date(ms).getTimezoneOffset() * 60000).toISOString().slice(0, 16);
    if (visible.dataset.wired) continue;
    visible.dataset.wired = "yes";
    visible.addEventListener("input", () => { hidden.value = visible.value ? String(new Date(visible.value).getTime()) : ""; }, true);
  }
}
function fresh() {
  missed = 0;
  times();
  fields();
  if ($("#chart") && !$("#chart .uplot")) chart();
}
const board = read("board");
if (board) show(board);
fresh();
document.addEventListener("htmx:after:swap", () => { if (board && $("#board")) show(read("board")); fresh(); });
setInterval(times, 5000);
listen();
// The demo's address carries its token behind a #, which no server is ever sent.
const token = $(".door input[name=token]");
if (token && location.hash.length > 1) {
  token.value = decodeURIComponent(location.hash.slice(1));
  history.replaceState(null, "", location.pathname + location.search);
  token.form.requestSubmit();
}
const chat = $("#chat .turn:last-child");
if (chat) chat.scrollIntoView({ block: "end" });
