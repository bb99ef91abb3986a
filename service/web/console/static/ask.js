// Asking as a device would; the reply comes piece by piece.
"use strict";
function bubble(who, text) {
  const box = document.createElement("div"), inner = document.createElement("pre");
  box.className = `bubble ${who}`;
  inner.className = "plain";
  inner.textContent = text;
  box.append(inner);
  return [box, inner];
}
async function ask(form) {
  const field = form.elements.text, text = field.value, button = $("button", form);
  if (!text.trim() || button.disabled) return;
  const body = { text, publish: form.elements.publish.checked };
  // A longer one is not taken, and the topic says it as well.
  if (form.dataset.conversation?.length <= 200) body.conversation = form.dataset.conversation;
  if (form.elements.topic) body.topic = form.elements.topic.value;
  if (form.elements.pattern) body.topic = topicOf(form);
  const turn = document.createElement("div");
  turn.className = "turn";
  const [asked] = bubble("user", text), [answer, said] = bubble("model wait", words.asking);
  const meta = document.createElement("p");
  meta.className = "meta";
  turn.append(asked, answer, meta);
  // Read out once it is whole, not piece by piece.
  turn.setAttribute("aria-live", "polite");
  turn.setAttribute("aria-busy", "true");
  $("#chat").append(turn);
  turn.scrollIntoView({ block: "nearest" });
  button.disabled = true;
  const keeps = form.classList.contains("ask");
  if (keeps) field.value = "";
  let place = null, ended = false;
  const begin = () => { if (answer.classList.contains("wait")) said.textContent = ""; answer.classList.remove("wait"); };
  try {
    await stream(form.dataset.ask, body, (event) => {
      if (event.restart) said.textContent = "";
      if (event.delta) { begin(); said.append(event.delta); }
      if (event.reply) { begin(); ended = true; said.textContent = event.reply.text ?? event.reply.state; answer.classList.toggle("none", event.reply.text == null); }
      if (event.error) throw Object.assign(new Error(event.error.message), { ended: true });
    }, (where) => {
      place = where;
      mine.add(place.split("/").pop());
      const link = document.createElement("a");
      link.href = `/console${place}`;
      link.textContent = words.waterfall;
      meta.replaceChildren(link);
    });
    if (!ended) throw new Error(words.cut);
    if (!answer.classList.contains("none")) await laidOut(place, answer);
    turn.dataset.ended = "yes";
  } catch (error) {
    answer.classList.remove("wait");
    answer.classList.add("fault");
    said.textContent = place && !error.ended ? words.cut : error.message;
    if (!place && keeps && !field.value) field.value = text;  // nobody took it
  } finally {
    turn.setAttribute("aria-busy", "false");
    button.disabled = false;
    if (keeps && [document.body, button].includes(document.activeElement)) field.focus();
  }
}
const mine = new Set();  // requests that were asked on this page
function topicOf(form) {
  let topic = form.elements.pattern.value;
  for (const level of all("[data-level]", form)) topic = topic.replaceAll(`\${${level.dataset.level}}`, () => level.value);
  return topic.split("/").map((level) => "+#".includes(level) && level ? "console" : level).join("/");
}
// Only the levels of the chosen pattern are asked for.
function levels() {
  const form = $("form.try");
  if (!form) return;
  for (const level of all("[data-level]", form)) {
    const has = form.elements.pattern.value.includes(`\${${level.dataset.level}}`);
    level.disabled = level.parentElement.hidden = !has;
  }
}
document.addEventListener("change", (event) => { if (event.target.name === "pattern") levels(); });
// The reply as the server lays it out, from the request's own page.
async function laidOut(place, answer) {
  const page = await fetch(`/console${place}`).then((one) => one.text()).catch(() => "");
  const reply = $("#reply", new DOMParser().parseFromString(page, "text/html"));
  if (reply) answer.replaceChildren(...reply.childNodes);
}
async function stream(flow, body, each, placed) {
  const headers = { "content-type": "application/json", accept: "text/event-stream" };
  const answer = await reach(`/ask/${encodeURIComponent(flow)}`, { method: "POST", headers, body: JSON.stringify(body) });
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
