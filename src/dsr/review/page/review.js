"use strict";
/* The reviewer's page. All that comes from the server is text and is set as text, never as HTML. */

const element = (id) => document.getElementById(id);
const UNSENT = "dsr-review-unsent";
const STATES = [
  ["all", "all", () => true],
  ["open", "to review", (q) => !q.verdict],
  ["accept", "accepted", (q) => q.verdict === "accept"],
  ["reject", "rejected", (q) => q.verdict === "reject"],
  ["edit", "edited", (q) => q.verdict === "edit"],
  ["differs", "my answer differs", (q) => q.differs],
  ["disputed", "another reviewer disagrees", (q) => q.disputed],
  ["others", "seen by others, not by me", (q) => !q.verdict && q.others > 0],
  ["stale", "my verdict is stale", (q) => q.stale],
];
const DONE = { accept: "accepted", reject: "rejected", edit: "edited" };
const ROLES = { viewer: "viewpoint: " };

const player = new Player(element);
let session = null; // As the server lists it.
let places = new Map(); // Question id -> its place in the session.
let current = null; // The question that is shown.
let ahead = null; // The one after it: {id, promise}.
let watched = { since: 0, seconds: 0 };
let busy = false;
let waiting = new AbortController(); // Of the explanation that is asked for.
let turns = 0; // Questions asked for: of two that are under way, the later one is shown.

// --- The server ---

class Refused extends Error {
  constructor(reply, status) {
    super(reply.problem);
    this.status = status;
    this.current = reply.current;
  }
}

async function ask(path, body, signal) {
  const options = body === undefined ? { signal } : { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) };
  let response, reply;
  try {
    response = await fetch(path, options);
    reply = await response.json();
  } catch {
    throw new Error("gone");
  }
  if (!response.ok) throw new Refused(reply, response.status);
  return reply;
}

const of = (path, id, more = "") => `${path}?id=${encodeURIComponent(id)}${more}`;

function say(text) {
  element("status").textContent = text;
}

function warn(text) {
  element("banner").textContent = text;
  element("banner").hidden = !text;
}

/* Tell of an error; where the server is gone, try again until it is back. */
function fail(error, again) {
  if (error instanceof Refused) {
    warn(error.message);
    return;
  }
  if (error.message !== "gone") throw error;
  const kept = localStorage.getItem(UNSENT) ? " Your verdict is kept in this browser and will be sent." : "";
  warn(`The server does not answer: run dsr review again, and open the address that it prints.${kept}`);
  if (again) setTimeout(again, 2000);
}

// --- Questions ---

async function start() {
  try {
    session = await ask("session");
  } catch (error) {
    fail(error, start);
    return;
  }
  warn("");
  element("who").textContent = `as ${session.reviewer}`;
  fillSelects();
  index();
  await sendKept();
  const wanted = decodeURIComponent(location.hash.slice(1));
  const open = session.questions.findIndex((q) => !q.verdict);
  await show(places.has(wanted) ? places.get(wanted) : Math.max(open, 0));
}

function index() {
  places = new Map(session.questions.map((q, place) => [q.id, place]));
  const done = session.questions.filter((q) => q.verdict);
  const count = (verdict) => done.filter((q) => q.verdict === verdict).length;
  const all = session.questions.length;
  element("count").textContent = `${done.length} of ${all} reviewed, ${count("reject")} rejected, ${count("edit")} edited`;
  element("progress").max = all;
  element("progress").value = done.length;
}

function fillSelects() {
  const types = [...new Set(session.questions.map((q) => q.type))].sort();
  fill(element("type"), [["", "all"], ...types.map((type) => [type, type])]);
  fill(element("filter"), STATES.map(([name, words]) => [name, words]));
}

function fill(select, choices) {
  const before = select.value;
  select.replaceChildren(...choices.map(([value, words]) => {
    const option = document.createElement("option");
    option.value = value;
    option.textContent = words;
    return option;
  }));
  if (choices.some(([value]) => value === before)) select.value = before;
}

function matches(question) {
  const type = element("type").value, [, , holds] = STATES.find(([name]) => name === element("filter").value);
  return (!type || question.type === type) && holds(question);
}

/* Place of the nearest question from one on, in steps of 1 or -1 and around the end; -1 where there is none. */
function search(from, by, holds) {
  const all = session.questions.length;
  for (let i = 0; i < all; i++) {
    const place = (((from + i * by) % all) + all) % all;
    if (holds(session.questions[place])) return place;
  }
  return -1;
}

const openNext = (q) => matches(q) && !q.verdict;

function go(by, holds, nothing) {
  const from = current ? places.get(current.id) : -1;
  const place = search(from + by, by, holds);
  if (place < 0) say(nothing);
  else show(place);
}

async function show(place) {
  const id = session.questions[place].id, turn = ++turns;
  try {
    const question = await (ahead && ahead.id === id ? ahead.promise : ask(of("question", id)));
    if (turn !== turns) return; // Another one was asked for meanwhile.
    ahead = null;
    render(question);
    prefetch(place);
  } catch (error) {
    ahead = null;
    if (turn === turns) fail(error, () => turn === turns && show(place));
  }
}

function prefetch(place) {
  const next = search(place + 1, 1, openNext);
  if (next < 0 || next === place) return;
  const id = session.questions[next].id;
  ahead = { id, promise: ask(of("question", id)) };
  ahead.promise.catch(() => {});
}

function render(question) {
  current = question;
  setState(question.id, question.state);
  history.replaceState(null, "", `#${encodeURIComponent(question.id)}`);
  watched = { since: performance.now(), seconds: 0 };
  const place = places.get(question.id) + 1, others = question.state.others;
  const words = [`${place} of ${session.questions.length}`, question.type, question.id];
  if (others) words.push(`${others} other reviewer${others > 1 ? "s" : ""}`);
  if (question.state.stale) words.push("your earlier verdict is stale: the question has changed");
  element("about").textContent = words.join(" · ");
  element("question").textContent = question.question;
  renderTargets();
  renderOptions();
  closePanels();
  element("note").value = question.mine ? question.mine.note : "";
  renderRevealed();
  renderClip();
  element("question").focus({ preventScroll: true });
  say(`Question ${place} of ${session.questions.length}${question.mine ? `, ${DONE[question.mine.verdict]}` : ""}`);
}

function renderTargets() {
  element("targets").replaceChildren(...current.about.targets.map((target) => {
    const item = document.createElement("li"), sign = document.createElement("i"), text = document.createElement("span");
    sign.style.background = target.colour;
    text.textContent = (ROLES[target.role] ?? "") + target.label;
    item.append(sign, text);
    return item;
  }));
}

function renderOptions() {
  const answered = current.revealed;
  const choices = [...current.options.map((text) => [text[0], text]), [session.unsure, "I cannot tell"]];
  element("options").replaceChildren(...choices.map(([answer, text], number) => {
    const button = document.createElement("button"), words = document.createElement("span");
    button.type = "button";
    words.textContent = text;
    button.append(words);
    const key = answer === session.unsure ? "0" : `${number + 1}`;
    button.setAttribute("aria-keyshortcuts", answer === session.unsure ? "0 x" : `${key} ${answer.toLowerCase()}`);
    const tags = [];
    if (answered && answered.derived === answer) tags.push("derived");
    if (answered && answered.own === answer) tags.push("yours");
    if (tags.includes("derived")) button.classList.add("derived");
    if (tags.includes("yours")) button.classList.add("own");
    if (tags.length) {
      const tag = document.createElement("span");
      tag.className = "tag";
      tag.textContent = tags.join(", ");
      button.append(" ", tag);
    }
    button.disabled = Boolean(answered);
    button.addEventListener("click", () => choose(answer));
    return button;
  }));
}

function renderRevealed() {
  element("revealed").hidden = !current.revealed;
  element("explanation").hidden = !current.revealed;
  element("lines").replaceChildren();
  element("picture").hidden = true;
  element("picture").removeAttribute("src");
  waiting.abort();
  if (!current.revealed) return;
  const { own, derived } = current.revealed;
  const said = own === session.unsure ? "You cannot tell" : own === derived ? `You agree: ${derived}` : `You say ${own}`;
  const mine = current.mine;
  const given = mine ? ` — ${DONE[mine.verdict]}${mine.reason ? `: ${mine.reason}` : ""}` : "";
  element("derived").textContent = `${said}${own === derived ? "" : `; derived: ${derived}`}${given}`;
  if (mine && mine.edited_question) addLine(`Your wording: ${mine.edited_question}`);
  explain(current.id);
}

function addLine(text) {
  const item = document.createElement("li");
  item.textContent = text;
  element("lines").append(item);
}

/* Leave an explanation that nobody waits for: a browser keeps few connections to a server, and verdicts need one. */
async function explain(id) {
  waiting.abort();
  waiting = new AbortController();
  try {
    const { lines } = await ask(of("explanation", id), undefined, waiting.signal);
    if (!current || current.id !== id) return;
    lines.forEach(addLine);
    element("picture").src = of("picture.png", id);
    element("picture").hidden = false;
  } catch (error) {
    if (error instanceof Refused && current && current.id === id) addLine(`No explanation: ${error.message}`);
  }
}

// --- The clip ---

function renderClip() {
  const about = current.about, broken = about.video;
  problem(about.above ? "" : broken && `No video: ${broken}`);
  element("above").hidden = !about.above;
  player.load(about, broken ? null : of("video", current.id));
  renderMarks();
}

function problem(text) {
  const words = [text, current.about.problem && `No tracks: ${current.about.problem}`].filter(Boolean).join(" ");
  element("problem").textContent = words;
  element("problem").hidden = !words;
}

function renderMarks() {
  const { first, last, moments, stated } = player.about, span = Math.max(last - first, 1e-6);
  element("marks").replaceChildren(...moments.map((moment, number) => {
    const mark = document.createElement("span");
    mark.textContent = number + 1;
    mark.className = moment === stated ? "stated" : "";
    mark.style.left = `${(100 * (moment - first)) / span}%`;
    return mark;
  }));
}

async function showFrames() {
  const id = current.id;
  try {
    const { times } = await ask(of("frames", id));
    if (current.id !== id) return;
    problem("This browser does not play the video: these are single frames of it.");
    const images = times.map((_, number) => {
      const image = new Image();
      image.src = of("frame.jpg", id, `&n=${number}&t=${times.length}`);
      return image;
    });
    player.show(times, images);
  } catch (error) {
    if (current.id === id && error instanceof Refused) problem(`No video: ${error.message}`);
  }
}

player.onbroken = showFrames;
player.onchange = () => {
  element("play").firstChild.textContent = player.playing ? "Pause " : "Play ";
  element("rate").textContent = player.rate;
  for (const [id, on] of [["loop", player.looping], ["whole", player.whole], ["follow", player.following]]) {
    element(id).setAttribute("aria-pressed", on);
  }
};
setInterval(() => {
  if (player.about) element("clock").textContent = `${(player.time - player.about.origin).toFixed(2)} s`;
}, 100);

// --- Answers and verdicts ---

const attempt = (act) => async (...values) => {
  if (busy || !current) return;
  busy = true;
  try {
    await act(...values);
  } finally {
    busy = false;
  }
};

const choose = attempt(async (answer) => {
  if (current.revealed) return;
  try {
    const reply = await ask("answer", { id: current.id, answer });
    warn("");
    current.revealed = { own: reply.own, derived: reply.derived };
    current.about = reply.about;
    renderOptions();
    renderRevealed();
    const further = player.extend(reply.about);
    renderMarks();
    if (further && player.images) showFrames();
    element("question").focus({ preventScroll: true });
  } catch (error) {
    fail(error);
  }
});

function seconds() {
  const open = document.visibilityState === "visible" ? (performance.now() - watched.since) / 1000 : 0;
  return Math.min(watched.seconds + open, 3600);
}

const judge = attempt(async (verdict, more = {}) => {
  if (!current.revealed) {
    say("Answer first: A to D, or 0 where you cannot tell.");
    return;
  }
  const body = {
    id: current.id, hash: current.hash, verdict, own_answer: current.revealed.own, seconds: seconds(),
    previous: current.mine ? current.mine.time : "", note: element("note").value, ...more,
  };
  localStorage.setItem(UNSENT, JSON.stringify({ reviewer: session.reviewer, body }));
  await send(body);
});

async function send(body) {
  try {
    const reply = await ask("verdict", body);
    localStorage.removeItem(UNSENT);
    warn("");
    setState(body.id, reply.state);
    index();
    const place = search(places.get(body.id) + 1, 1, openNext);
    if (place >= 0) await show(place);
    else {
      await show(places.get(body.id));
      warn("");
    }
    say(`${DONE[body.verdict]}: ${body.id}${place < 0 ? ". Nothing is left to review here." : ""}`);
  } catch (error) {
    if (!(error instanceof Refused)) {
      fail(error, () => localStorage.getItem(UNSENT) && send(body));
      return;
    }
    if (error.status === 404 && !error.current) {
      fail(error); // Another session has taken the port: its page sends what is kept here.
      return;
    }
    localStorage.removeItem(UNSENT);
    if (error.status === 409) await refresh();
    const stands = error.current ? `: ${DONE[error.current.verdict]}` : "";
    warn(`${error.message}${stands}`);
  }
}

/* A verdict that an earlier session could not send. */
async function sendKept() {
  const kept = JSON.parse(localStorage.getItem(UNSENT) ?? "null");
  if (!kept || kept.reviewer !== session.reviewer) return;
  localStorage.removeItem(UNSENT);
  try {
    const reply = await ask("verdict", kept.body);
    setState(kept.body.id, reply.state);
    index();
    say(`A verdict that could not be sent is saved now: ${kept.body.id}`);
  } catch (error) {
    warn(`A verdict on ${kept.body.id} from before is not taken: ${error.message}`);
  }
}

const undo = attempt(async () => {
  try {
    const reply = await ask("undo", {});
    warn("");
    setState(reply.id, reply.state);
    index();
    ahead = null;
    await show(places.get(reply.id));
    say(`Withdrawn: the verdict on ${reply.id}`);
  } catch (error) {
    fail(error);
  }
});

function setState(id, state) {
  const place = places.get(id), { type } = session.questions[place];
  session.questions[place] = { id, type, ...state };
}

/* Take up what has happened elsewhere: another tab, another reviewer's merge. */
async function refresh() {
  try {
    const now = await ask("session");
    session = now;
    index();
    ahead = null;
    if (!current) return;
    const mine = session.questions[places.get(current.id)];
    if ((mine.time ?? "") !== (current.mine ? current.mine.time : "")) await show(places.get(current.id));
  } catch (error) {
    fail(error);
  }
}

function closePanels() {
  element("reasons").hidden = true;
  element("editor").hidden = true;
  element("reject").setAttribute("aria-expanded", false);
  element("edit").setAttribute("aria-expanded", false);
}

function openReasons() {
  if (!current || !current.revealed) return judge("reject");
  closePanels();
  element("reject").setAttribute("aria-expanded", true);
  element("reasons").hidden = false;
  element("reasons").replaceChildren(...session.reasons.map((reason, number) => {
    const button = document.createElement("button"), key = document.createElement("kbd");
    button.type = "button";
    key.textContent = number + 1;
    button.append(`${reason} `, key);
    button.setAttribute("aria-keyshortcuts", number + 1);
    button.addEventListener("click", () => rejectFor(reason));
    return button;
  }));
  element("reasons").firstChild.focus();
  return undefined;
}

function rejectFor(reason) {
  if (reason === "other" && !element("note").value.trim()) {
    element("note").focus();
    say("Say what it is in the note, then press Enter.");
    return;
  }
  judge("reject", { reason });
}

function openEditor() {
  if (!current || !current.revealed) return judge("edit");
  closePanels();
  element("edit").setAttribute("aria-expanded", true);
  element("editor").hidden = false;
  element("wording").value = (current.mine && current.mine.edited_question) || current.question;
  element("wording").focus();
  return undefined;
}

const saveEdit = () => judge("edit", { edited_question: element("wording").value });

// --- Keys ---

const focusOn = (id) => () => element(id).focus();
const next = () => go(1, matches, "No question matches the filter.");
const previous = () => go(-1, matches, "No question matches the filter.");
const nextOpen = () => go(1, openNext, "Nothing is left to review here.");
const flip = (name) => () => {
  player[name] = !player[name];
  player.onchange();
};
const ACTIONS = [
  [["a", "1"], "answer A", () => choose("A")],
  [["b", "2"], "answer B", () => choose("B")],
  [["c", "3"], "answer C", () => choose("C")],
  [["d", "4"], "answer D", () => choose("D")],
  [["0", "x"], "I cannot tell", () => choose(session.unsure)],
  [["Enter"], "accept", () => judge("accept")],
  [["r"], "reject, then 1 to 6 for the reason", openReasons],
  [["e"], "edit the wording; Enter saves", openEditor],
  [["m"], "write a note", focusOn("note")],
  [["Escape"], "leave a panel or a field", () => { closePanels(); element("question").focus(); }],
  [["u"], "undo the last verdict", undo],
  [["n"], "next question", next],
  [["p"], "previous question", previous],
  [["j"], "next question to review", nextOpen],
  [[" "], "play or pause", () => player.toggle()],
  [["ArrowLeft", ","], "one frame back", () => player.step(-1)],
  [["ArrowRight", "."], "one frame forward", () => player.step(1)],
  [["h"], "moment of the boxes", () => player.toStated()],
  [["s"], "slower: 1, 0.5, 0.25", () => player.slower()],
  [["l"], "loop", flip("looping")],
  [["w"], "whole clip, or between the question's moments", () => { flip("whole")(); player.play(); }],
  [["g"], "follow the boxes through the clip", flip("following")],
  [["t"], "choose a type", focusOn("type")],
  [["f"], "choose what is shown", focusOn("filter")],
  [["?"], "these keys", () => element("help").showModal()],
];
const BY_KEY = new Map(ACTIONS.flatMap(([keys, , act]) => keys.map((key) => [key, act])));

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || element("help").open || !session) return;
  const inField = event.target.matches("textarea, select, input");
  if (event.key === "Escape") {
    BY_KEY.get("Escape")();
    return;
  }
  if (event.target === element("wording") && event.key === "Enter") {
    event.preventDefault();
    saveEdit();
    return;
  }
  if (event.target === element("note") && event.key === "Enter") {
    event.preventDefault();
    if (!element("reasons").hidden) rejectFor("other");
    else element("question").focus();
    return;
  }
  if (inField || (event.target.matches("button") && (event.key === "Enter" || event.key === " "))) return;
  const reason = element("reasons").hidden ? undefined : session.reasons[Number(event.key) - 1];
  const act = reason ? () => rejectFor(reason) : BY_KEY.get(event.key.length === 1 ? event.key.toLowerCase() : event.key);
  if (!act || event.repeat && !event.key.startsWith("Arrow")) return;
  event.preventDefault();
  act();
});

for (const [id, act] of [
  ["play", () => player.toggle()], ["back", () => player.step(-1)], ["forward", () => player.step(1)],
  ["stated", () => player.toStated()], ["slower", () => player.slower()], ["loop", flip("looping")],
  ["whole", BY_KEY.get("w")], ["follow", flip("following")], ["accept", () => judge("accept")], ["reject", openReasons],
  ["edit", openEditor], ["previous", previous], ["next", next], ["open", nextOpen], ["undo", undo],
  ["keys", BY_KEY.get("?")],
]) element(id).addEventListener("click", act);
element("editor").addEventListener("submit", (event) => { event.preventDefault(); saveEdit(); });
element("time").addEventListener("input", () => { player.pause(); player.seek(Number(element("time").value)); });
for (const id of ["type", "filter"]) {
  element(id).addEventListener("change", () => {
    ahead = null;
    const place = search(current ? places.get(current.id) : 0, 1, matches);
    if (place < 0) say("No question matches the filter.");
    else if (!current || session.questions[place].id !== current.id) show(place);
  });
}
element("help-keys").replaceChildren(...ACTIONS.flatMap(([keys, words]) => {
  const term = document.createElement("dt"), meaning = document.createElement("dd");
  for (const key of keys) {
    const sign = document.createElement("kbd");
    sign.textContent = key === " " ? "space" : key;
    term.append(sign, " ");
  }
  meaning.textContent = words;
  return [term, meaning];
}));
document.addEventListener("visibilitychange", () => {
  if (document.visibilityState === "visible") {
    watched.since = performance.now();
    if (session) refresh();
  } else {
    watched.seconds += (performance.now() - watched.since) / 1000;
  }
});
start();
