// Shared by all pages, and acts. All texts of devices and models go in as text, never as HTML.
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
// The page's language, in the variety that the browser asks for: British dates for a Briton.
const language = navigator.languages.find((one) => one.startsWith(document.documentElement.lang.slice(0, 2))) || document.documentElement.lang;
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
// The session ended while the page was open: what is on it stays, and says where to log in.
const here = () => encodeURIComponent(location.pathname + location.search);
function over() {
  if ($("#over")) return;
  const line = document.createElement("p"), link = document.createElement("a");
  line.id = "over"; line.className = "bad"; line.textContent = `${words.over} `;
  link.href = `/login?next=${here()}`; link.textContent = words.login;
  line.append(link);
  $("#told").append(line);
}
// Throws an Error that a person can read; one that was told already has `told`.
async function reach(path, options) {
  const headers = { ...options.headers, ...(csrf && { "x-csrf-token": csrf }) };
  let answer;
  try {
    answer = await fetch(path, { ...options, headers });
  } catch {
    throw Object.assign(new Error(words.away), { away: true });
  }
  if (answer.ok) return answer;
  if (answer.status === 401) { over(); throw Object.assign(new Error(words.over), { told: true }); }
  const said = await answer.json().catch(() => ({}));
  throw Object.assign(new Error(said.error?.message || `${answer.status}`), { away: answer.status === 503 });
}
async function call(line, body) {
  const [method, path] = [line.slice(0, line.indexOf(" ")), line.slice(line.indexOf(" ") + 1)];
  const answer = await reach(path, body === undefined ? { method }
    : { method, headers: { "content-type": "application/json" }, body: JSON.stringify(body) });
  return answer.json();
}
const failed = (error) => { if (!error.told) tell(`${words.failed}: ${error.message}`, true); };
async function act(button, line, body) {
  button.disabled = true;
  try {
    await call(line, body);
    tell(words[button.dataset.said] || words.done);
    if (button.dataset.to) location.assign(button.dataset.to);
    else await again(button);
  } catch (error) {
    failed(error);
  } finally {
    button.disabled = false;
    if (button.isConnected && document.activeElement === document.body) button.focus();
  }
}
// What stands in <main> is made anew by the server; the place, the draft and the focus stay:
// on the same control, else on the one that took its place among those of its name.
const nameOf = (one) => one.dataset.label || one.getAttribute("aria-label") || one.textContent.trim();
const alike = (one, name) => all(one.tagName, $("#main")).filter((other) => nameOf(other) === name);
async function again(from = document.activeElement) {
  const held = $("#main").contains(from) && from !== $("#main");
  const name = held && nameOf(from), at = held && alike(from, name).indexOf(from);
  const draft = $(".ask textarea")?.value;
  await htmx.ajax("GET", location.pathname + location.search, { target: "#main", select: "#main", swap: "outerHTML" });
  if (draft && $(".ask textarea")) $(".ask textarea").value = draft;
  if (!held || from.isConnected) return;
  const left = alike(from, name);
  ((from.id && document.getElementById(from.id)) || left[Math.min(at, left.length - 1)] || $("#main")).focus({ preventScroll: true });
}
// An answer that is no page of ours must not take the place of what is shown.
document.addEventListener("htmx:before:response", (event) => {
  const { raw, status } = event.detail.ctx.response;
  const door = raw.redirected && new URL(raw.url).pathname === "/login";
  if (!door && status < 500) return;
  event.preventDefault();
  if (door) over(); else tell(words.away, true);
});
document.addEventListener("htmx:error", (event) => { if (event.detail.error?.name !== "AbortError") tell(words.away, true); });
document.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-act], button[data-bulk], button[data-forget], #fresh");
  if (!button) return;
  if ("sure" in button.dataset) {
    const calm = () => { button.classList.remove("sure"); button.textContent = button.dataset.label; };
    if (!button.classList.contains("sure")) {
      button.dataset.label = button.textContent;
      button.classList.add("sure");
      button.textContent = words.sure;
      setTimeout(calm, 4000);
      return;
    }
    calm();
  }
  if (button.id === "fresh") again();
  else if (button.dataset.bulk) bulk(button);
  else if ("forget" in button.dataset) {
    const { flow, conversation } = $("#chat").dataset;
    act(button, `DELETE /conversations/${encodeURIComponent(flow)}/${encodeURIComponent(conversation)}`);
  } else act(button, button.dataset.act);
});
async function bulk(button) {
  button.disabled = true;
  try {
    const job = await call("POST /requests/retry", { filter: JSON.parse(button.dataset.bulk) });
    sessionStorage.setItem("job", job.id);
    await follow(job, button);
  } catch (error) {
    failed(error);
    button.disabled = false;
  }
}
// Until the job ends; a page that is loaded meanwhile goes on with it.
async function follow(job, button) {
  for (let tries = 0; job.state === "running"; tries++) {
    const box = $(".job"), bar = $("progress", box);
    if (!box) return;
    box.hidden = false;
    $("span", box).textContent = filled(words.job, { done: number(job.done), looked: number(job.looked_at) });
    if (job.looked_at) { bar.max = Math.max(Number(bar.dataset.total), job.looked_at); bar.value = job.looked_at; }
    await new Promise((next) => setTimeout(next, 300));
    try {
      job = await call(`GET /jobs/${job.id}`);
    } catch (error) {
      if (!error.away || tries > 600) throw error;  // it goes on without us
    }
  }
  sessionStorage.removeItem("job");
  if (job.state !== "done") throw new Error(job.error || job.state);
  tell(filled(words.jobdone, { done: number(job.done) }));
  await again(button);
}
async function resumeJob() {
  const id = $(".job") && sessionStorage.getItem("job");
  if (!id) return;
  try {
    await follow(await call(`GET /jobs/${id}`));
  } catch (error) {
    if (!error.away) sessionStorage.removeItem("job");
    failed(error);
  }
}
document.addEventListener("submit", (event) => {
  const form = event.target;
  if (form.dataset.api) {
    event.preventDefault();
    const button = event.submitter || $("button", form);
    const body = Object.fromEntries(new FormData(form));
    if (button.name) body[button.name] = button.value;
    button.dataset.said = form.dataset.said;
    act(button, form.dataset.api, body);
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
    failed(error);
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

// ── Fields ───────────────────────────────────────────────────────────────────────────────
function fields() {
  for (const visible of all("input[data-ms]")) {
    const hidden = visible.form.elements[visible.dataset.ms];
    const ms = /^\d+$/.test(hidden.value) ? Number(hidden.value) : Date.parse(hidden.value);
    if (hidden.value && !Number.isNaN(ms)) {
      const text = new Date(ms - new Date(ms).getTimezoneOffset() * 60000).toISOString().slice(0, 16);
      if (visible.value.slice(0, 16) !== text) visible.value = text;  // else what is half typed is lost
    }
    if (visible.dataset.wired) continue;
    visible.dataset.wired = "yes";
    visible.addEventListener("input", () => { const at = new Date(visible.value).getTime(); hidden.value = at > 0 ? String(at) : ""; }, true);
  }
}
document.addEventListener("keydown", (event) => {
  const field = event.target.closest("textarea, input, select");
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey || (field?.closest(".ask") && !event.shiftKey)) && field?.tagName === "TEXTAREA" && !event.isComposing && event.keyCode !== 229) {
    event.preventDefault();
    field.form.requestSubmit();
  } else if (event.key === "/" && !field && !event.ctrlKey && !event.metaKey) {
    const search = $("input[type=search], .ask textarea");
    if (search) { event.preventDefault(); search.focus(); }
  }
});
