// What comes by server-sent events, the chart, and what is done once a page is there.
"use strict";
// ── Live ─────────────────────────────────────────────────────────────────────────────────
let live = null, missed = 0, met = false, away = false, stopped = null;
function show(board, changes = []) {
  const totals = board.totals;
  if (away && totals) recovered();
  if (away !== !totals) beat(totals ? "on" : "away");
  away = !totals;
  // Paused or resumed on another page, or a circuit: the figures of flows show it.
  const now = JSON.stringify([board.paused, board.links.model?.ok, board.links.model?.providers]);
  if ($("#chart") && stopped !== null && stopped !== now) refresh();
  stopped = now;
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
  if (links.flows?.warning) alarms.push([links.flows.warning, ""]);
  if (links.mcp?.warning) alarms.push([`MCP: ${links.mcp.warning}`, ""]);
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
const binary = (text) => text.includes("\0") || text.split("\ufffd").length - 1 > Math.max(2, text.length / 20);
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
    $(".q", row).textContent = binary(request.text) ? words.notext : request.text || "…";
    const said = $(".a", row), fault = request.error && request.state !== "done" && request.error;
    said.textContent = fault ? [fault.code, fault.message].filter(Boolean).join(": ") : request.said;
    said.classList.toggle("fault", !!fault && request.state !== "ignored");
    const time = $("time", row);
    time.dateTime = request.accepted_at; time.className = "ago";
    if (!before && !first) row.classList.add("new");
    return row;
  });
  // What stays is not touched: it keeps its focus, and flashes once.
  rows.forEach((row, at) => { if (list.children[at] !== row) list.insertBefore(row, list.children[at] ?? null); });
  while (list.children.length > rows.length) list.lastElementChild.remove();
  times(list);
}
function beat(how) {
  const pulse = $("#pulse");
  pulse.className = `pulse ${how === "on" ? "on" : "off"}`;
  $("span", pulse).textContent = pulse.dataset[how];
}
// A browser has six connections for all pages of a host: one that nobody sees keeps none.
function hush() {
  live?.close();
  live = null;
}
function listen() {
  if (live || document.hidden || !$(".who")) return;
  live = new EventSource("/events");
  live.addEventListener("open", () => beat(away ? "away" : "on"));
  live.addEventListener("error", () => {
    beat("off");
    if (live?.readyState === EventSource.CLOSED) refused();
  });
  live.addEventListener("hello", (event) => {
    if (met) recovered();
    met = true;
    show(JSON.parse(event.data));
  });
  live.addEventListener("changes", (event) => {
    const news = JSON.parse(event.data);
    show(news, news.requests);
    changed(news.requests, news.more);
  });
}
// Refused for good: too many pages are open, or the session is over.
async function refused() {
  hush();
  const answer = await fetch("/session").catch(() => null);
  if (answer?.status === 401) over();
  else setTimeout(listen, 3000);
}
// The stream or the database was away: what this page missed it can't know.
function recovered() {
  const open = $("#request");
  if ($(".door[data-status='503']") || (open && !open.dataset.ended)) refresh();
  else if ($("#fresh")) { $("#fresh").hidden = false; $("#fresh").textContent = words.maybe; }
}
let refreshing = null;
function changed(requests, more) {
  const open = $("#request");
  if (open && !open.dataset.ended && requests.some((one) => one.id === open.dataset.request)) refresh();
  const fresh = $("#fresh"), { flow, conversation } = $("#chat")?.dataset || {};
  if (conversation) {
    requests = requests.filter((one) => one.flow === flow && one.conversation === conversation && !mine.has(one.id));
    more = 0;
  }
  if (fresh && requests.length) {
    missed += requests.length + more;
    fresh.hidden = false;
    fresh.textContent = filled(words.new, { n: number(missed) });
  }
}
function refresh() {
  refreshing ??= again().finally(() => { refreshing = null; });
}
addEventListener("pagehide", hush);
addEventListener("pageshow", (event) => { if (event.persisted) listen(); });
document.addEventListener("visibilitychange", () => { if (document.hidden) hush(); else listen(); });

// ── Charts and fields ────────────────────────────────────────────────────────────────────
function chart() {
  const box = $("#chart"), series = read("series");
  if (!box || !series || typeof uPlot === "undefined") return;
  const colour = (name) => { const probe = document.createElement("i"); probe.className = name; box.append(probe); const style = getComputedStyle(probe).color; probe.remove(); return style; };
  const [ink, line, good, bad, violet] = ["c-dim", "c-line", "c-accent", "c-bad", "c-violet"].map(colour);
  const at = series.map((one) => Date.parse(one.at) / 1000);
  const failed = (one) => (one.states.failed || 0) + (one.states.expired || 0);
  const axis = { stroke: ink, grid: { stroke: line, width: 1 }, ticks: { stroke: line }, font: "12px system-ui" };
  const clock = (_, splits, __, ___, step) => splits.map((one) => new Date(one * 1000).toLocaleString(language,
    step < 86400 ? { hour: "2-digit", minute: "2-digit", ...(step > 10800 && { month: "numeric", day: "numeric" }) } : { month: "numeric", day: "numeric" }));
  const size = () => ({ width: box.clientWidth, height: 200 });
  const plot = new uPlot({
    ...size(),
    series: [
      { label: words.moment, value: (_, at) => at == null ? "–" : new Date(at * 1000).toLocaleString(language, { dateStyle: "short", timeStyle: "short" }) }, { label: words.requests, stroke: good, width: 2, fill: good.replace(")", " / 0.12)").replace("rgb(", "rgb("), points: { show: false } },
      { label: words.failedn, stroke: bad, width: 2, points: { show: false } },
      { label: words.p95, stroke: violet, width: 1.5, dash: [5, 4], scale: "s", points: { show: false }, value: (_, value) => value == null ? "–" : value.toFixed(1) },
    ],
    axes: [{ ...axis, values: clock }, { ...axis, size: 46 }, { ...axis, side: 1, scale: "s", grid: { show: false }, size: 46 }],
    scales: { y: { range: (_, low, high) => [0, Math.max(high, 4)] }, s: { range: (_, low, high) => [0, Math.max(high || 0, 1)] } },
  }, [at, series.map((one) => one.requests), series.map(failed), series.map((one) => one.p95_ms == null ? null : one.p95_ms / 1000)], box);
  new ResizeObserver(() => plot.setSize(size())).observe(box);
}
function fresh() {
  missed = 0;
  times();
  fields();
  levels();
  if ($("#chart") && !$("#chart .uplot")) chart();
}
const board = read("board");
if (board) show(board);
fresh();
document.addEventListener("htmx:after:swap", () => { if (board && $("#board")) show(read("board")); fresh(); });
setInterval(times, 5000);
listen();
resumeJob();
$(".side [aria-current=page]")?.scrollIntoView({ block: "nearest", inline: "center" });
// The demo's address carries its token behind a #, which no server is ever sent.
const token = $(".door input[name=token]");
if (token && location.hash.length > 1) {
  token.value = decodeURIComponent(location.hash.slice(1));
  history.replaceState(null, "", location.pathname + location.search);
  token.form.requestSubmit();
}
const chat = $("#chat .turn:last-child");
if (chat) chat.scrollIntoView({ block: "end" });
