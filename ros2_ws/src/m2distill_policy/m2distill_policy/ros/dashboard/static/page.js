"use strict";
// Texts from the robot are set by textContent only, so a name with markup in it is shown as it is.

const $ = (id) => document.getElementById(id);
const MAX_LOG = 50, STOP_AGAIN_MS = 300, SILENT_MS = 3000, RETRY_MS = [250, 500, 1000, 2000, 5000];
const TONES_HZ = { record: 660, reset_record: 660, keep: 880, discard: 330 };
const page = Math.random().toString(36).slice(2);  // names this page in the answers to its orders
const state = { stop: { number: 0, state: "idle" } };
let socket = null, attempts = 0, lastMessage = 0, lostAt = Date.now(), orders = 0;

const text = (id, value) => { if ($(id).textContent !== value) $(id).textContent = value; };
const make = (tag, value, name) => {
  const element = document.createElement(tag);
  if (value !== undefined) element.textContent = value;
  if (name) element.className = name;
  return element;
};
const clock = (seconds) => new Date(seconds * 1000).toLocaleTimeString();

// --- connection

function connect() {
  const opened = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/ws`);
  opened.binaryType = "arraybuffer";
  socket = opened;
  opened.onopen = () => { attempts = 0; tell("visible", document.hidden ? "no" : "yes"); };
  opened.onmessage = (event) => {
    lastMessage = Date.now();
    if (typeof event.data === "string") show(JSON.parse(event.data));
    else showImage(event.data);
  };
  opened.onclose = () => {
    if (socket !== opened) return;
    socket = null;
    lostAt = Math.min(lostAt || Date.now(), Date.now());
    setTimeout(reconnect, RETRY_MS[Math.min(attempts++, RETRY_MS.length - 1)]);
  };
}

async function reconnect() {
  try {
    if ((await fetch("/session")).status === 401) return location.replace("/login");
  } catch { /* not there yet */ }
  connect();
}

const isOpen = () => socket !== null && socket.readyState === WebSocket.OPEN;

function tell(order, value = "", id = null) {
  if (!isOpen()) return false;
  socket.send(JSON.stringify({ order, text: value, id }));
  return true;
}

function order(name, value = "") {
  if (!tell(name, value, `${page} ${++orders}`)) addLog({ ok: false, text: `${name}: not sent, there is no connection`, time: Date.now() / 1000 });
}

// --- stop: by the open connection, and by a new request if the dashboard does not confirm it at once

function stop() {
  const before = state.stop.number;
  showStop({ state: "stopping", text: "stopping", number: before });
  const sent = tell("stop");
  const fail = (why) => showStop({ state: "failed", text: `NOT stopped: ${why}; use the arm's own stop`, number: before });
  const post = () => fetch("/stop", { method: "POST", keepalive: true }).then(
    (answer) => { if (!answer.ok) fail(`the dashboard answered ${answer.status}`); },
    () => fail("no connection to the dashboard"));
  if (!sent) post();
  else setTimeout(() => { if (state.stop.number === before) post(); }, STOP_AGAIN_MS);
}

function showStop(result) {
  state.stop = result;
  const at = result.time && result.state !== "stopping" ? ` (${clock(result.time)})` : "";
  text("stopped", result.state === "idle" ? "" : result.text + at);
  $("stopped").className = { stopped: "ok", failed: "bad", stopping: "warn" }[result.state] || "";
}

// --- what the dashboard sends

const sections = {
  stop: showStop,
  policy(policy) {
    const none = !policy.state;
    text("name", policy.name);
    text("state", none ? "no policy" : policy.state);
    $("state").className = `state ${none ? "none" : policy.state}`;
    document.title = `${none ? "no policy" : policy.state} - m2distill`;
    text("reason", none ? "No policy node is present; start one with m2distill run."
      : policy.others ? `${policy.others + 1} policies publish a status here; ${policy.reason}` : policy.reason);
    text("followed", policy.instruction || "-");
    text("checkpoint", policy.checkpoint || "-");
    text("previous", policy.previous || "-");
    text("notice", policy.notice || "-");
    list("known", policy.known || [], (known) => {
      const button = make("button", known);
      button.type = "button";
      button.onclick = () => order("instruct", known);
      return button;
    });
    for (const button of $("known").children) button.setAttribute("aria-pressed", String(button.textContent === policy.instruction));
  },
  action(action) {
    const mixture = action && action.weights.length;  // a replay has none
    $("action").hidden = !mixture;
    $("no-action").hidden = !!mixture;
    if (!mixture) return;
    text("mode", `${action.mode + 1} of ${action.weights.length}`);
    text("entropy", action.entropy.toFixed(2));
    text("limited", action.limited_by.length ? `, limited by ${action.limited_by.join(", ")}` : "");
    const bars = $("weights");
    while (bars.children.length > action.weights.length) bars.lastChild.remove();
    while (bars.children.length < action.weights.length) bars.append(make("span"));
    action.weights.forEach((weight, i) => {
      bars.children[i].style.height = `${100 * weight}%`;
      bars.children[i].className = i === action.mode ? "active" : "";
    });
    bars.setAttribute("aria-label", `weights of the modes: ${action.weights.join(", ")}`);
  },
  diagnostics(found) {
    const values = found ? found.values : {};
    const silent = found && found.silent_s ? `silent for ${found.silent_s} s; last: ` : "";
    text("diagnosis", found ? silent + found.text : "No diagnostics received.");
    $("diagnosis").className = !found || found.silent_s || found.level > 1 ? "bad" : found.level ? "warn" : "";
    const names = Object.keys(values).filter((key) => key.endsWith(" (Hz)")).map((key) => key.slice(0, -5));
    list("inputs", names.map((name) => `${name}\n${values[`${name} (Hz)`]}\n${values[`${name} age (ms)`] || ""}`), (row) => {
      const [name, rate, age] = row.split("\n"), line = make("tr");
      line.append(make("td", name), make("td", `${rate} Hz`), make("td", age ? `${age} ms` : "-"));
      return line;
    });
    list("diagnostics", Object.keys(values).flatMap((key) => [`k${key}`, `v${values[key]}`]),
      (item) => make(item[0] === "k" ? "dt" : "dd", item.slice(1)));
  },
  recorder(found) {
    state.recorder = found;
    const recording = !!found && found.text.startsWith("recording ");
    const values = found ? found.values : {};
    text("recorder", !found ? "No recorder. Start one with m2distill run --record FOLDER."
      : (found.silent_s ? `silent for ${found.silent_s} s; last: ` : "") + found.text
        + ` (${recording ? `${values.messages} messages, ` : ""}${values["free (MiB)"]} MiB free)`);
    $("recorder").className = `recorder ${!found || found.silent_s || found.level ? "bad" : recording ? "ok" : ""}`;
  },
  cameras(cameras) {
    $("no-cameras").hidden = cameras.length > 0;
    const topics = cameras.map((camera) => camera.topic);
    for (const figure of [...$("cameras").children]) if (!topics.includes(figure.dataset.topic)) figure.remove();
    for (const camera of cameras) {
      const figure = figureOf(camera.topic, camera.name), caption = figure.lastChild;
      const old = camera.age_s > 1;
      figure.classList.toggle("stale", camera.silent);
      caption.firstChild.textContent = [camera.name, camera.size,
        camera.rate_hz === null ? "" : `${camera.rate_hz} Hz`,
        camera.age_s === null ? "no image yet" : old ? `${camera.age_s.toFixed(0)} s old` : ""].filter(Boolean).join(", ");
      caption.lastChild.textContent = camera.problem;
    }
  },
  episodes(episodes) {
    if (document.activeElement !== $("target-number")) $("target-number").value = episodes.target;
    text("folder", episodes.problem || (episodes.folder ? `kept in ${episodes.folder}` : "No folder of episodes was named (--episodes)."));
    $("folder").className = episodes.problem ? "bad" : "note";
    const newest = episodes.newest[0], counts = new Map(episodes.counts);
    const followed = state.policy && state.policy.instruction;
    const name = newest && newest.instruction || followed || "";
    text("count", episodes.folder && name ? `${counts.get(name) || 0} of ${episodes.target}: ${name}` : "");
    list("import-text", episodes.counts.map(([counted]) => counted).filter(Boolean), (counted) => make("option", counted));
    list("episodes", episodes.newest.map((episode) => JSON.stringify(episode)), (json) => episodeItem(JSON.parse(json)));
  },
  simulator(found) {
    $("simulator").hidden = !found.present;
    text("sim-task", found.task);
    const key = JSON.stringify(found.settings), form = $("reset");
    if (form.dataset.key !== key) {
      form.dataset.key = key;
      for (const name of ["task", "initial_state", "seed"]) form.elements[name].value = found.settings[name] ?? 0;
      form.elements.driver.checked = found.settings.driver === "expert";
    }
    text("sim-success", found.success ? "success" : "");
    text("operator", found.operator_active ? "an operator moves the arm" : found.operators.length ? `${found.operators.join(", ")}: at rest` : "no teleoperation is running");
  },
  jobs(jobs) {
    $("jobs").hidden = !!jobs.problem;
    text("jobs-problem", jobs.problem ? `${jobs.problem} m2distill dashboard --run RUN --episodes FOLDER offers the steps here.` : "");
    text("jobs-run", jobs.run);
    list("jobs-tasks", jobs.tasks, (task) => make("div", task));
    text("jobs-deployed", jobs.deployed || "-");
    text("jobs-set", jobs.set || "-");
    const folder = jobs.set.split("/")[0];
    list("jobs-pages", jobs.pages.map((name) => `/review/${folder}/${name}`), (address) => {
      const link = make("a", "page of the set");
      Object.assign(link, { href: address, target: "_blank", rel: "noopener" });
      return link;
    });
    text("jobs-state", jobs.running ? `${jobs.running}: running for ${jobs.seconds} s` : "");
    text("jobs-lines", jobs.lines.join("\n"));
    for (const button of document.querySelectorAll("#jobs button")) button.disabled = (button.id === "cancel") !== !!jobs.running;
  },
  log(entries) { entries.forEach(addLog); },
};

function show(message) {
  for (const [name, value] of Object.entries(message)) {
    state[name] = value;
    if (sections[name]) sections[name](value);
  }
}

// Replace the children of an element only if its items have changed, so that focus and selection stay.
function list(id, items, build) {
  const parent = $(id), key = JSON.stringify(items);
  if (parent.dataset.key === key) return;
  parent.dataset.key = key;
  parent.replaceChildren(...items.map(build));
}

function figureOf(topic, name) {
  for (const figure of $("cameras").children) if (figure.dataset.topic === topic) return figure;
  const figure = make("figure"), canvas = make("canvas"), caption = make("figcaption");
  figure.dataset.topic = topic;
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", `camera ${name}`);
  caption.append(make("span", name), " ", make("span", "", "problem"));
  figure.append(canvas, caption);
  $("cameras").append(figure);
  return figure;
}

async function showImage(data) {
  const length = new DataView(data).getUint16(0), bytes = new Uint8Array(data);
  const { topic } = JSON.parse(new TextDecoder().decode(bytes.subarray(2, 2 + length)));
  const bitmap = await createImageBitmap(new Blob([bytes.subarray(2 + length)], { type: "image/jpeg" }));
  const figure = [...$("cameras").children].find((one) => one.dataset.topic === topic);
  if (figure) {
    const canvas = figure.firstChild;
    if (canvas.width !== bitmap.width || canvas.height !== bitmap.height) Object.assign(canvas, { width: bitmap.width, height: bitmap.height });
    canvas.getContext("2d").drawImage(bitmap, 0, 0);
    canvas.dataset.frames = Number(canvas.dataset.frames || 0) + 1;
  }
  bitmap.close();
}

function episodeItem(episode) {
  const item = make("li");
  const verdict = { true: "success", false: "failure" }[episode.success] || "unlabelled";
  item.append(make("span", episode.problem || verdict, episode.success === "true" ? "ok" : "bad"),
    ` ${episode.instruction || "without an instruction"}, ${episode.duration_s} s, ${episode.name}${episode.operator ? `, ${episode.operator}` : ""} `);
  if (!episode.problem) {
    const button = make("button", "Film"), strip = make("div", "", "film");
    strip.hidden = true;
    button.type = "button";
    button.setAttribute("aria-label", `film of ${episode.name}`);
    button.onclick = () => play(strip, `/film/${encodeURIComponent(episode.name)}`, button);
    item.append(button, strip);
  }
  return item;
}

// Plays a strip of square or wider images of 96 px height side by side.
async function play(strip, address, button) {
  button.disabled = true;
  try {
    const answer = await fetch(address);
    if (!answer.ok) throw new Error(await answer.text());
    const frames = Number(answer.headers.get("X-Frames")), url = URL.createObjectURL(await answer.blob());
    const image = new Image();
    image.src = url;
    await image.decode();
    const width = image.naturalWidth / frames;
    Object.assign(strip.style, { width: `${width}px`, backgroundImage: `url("${url}")` });
    strip.hidden = false;
    for (let i = 0; i < frames && strip.isConnected; i++) {
      strip.style.backgroundPosition = `${-i * width}px 0`;
      await new Promise((done) => setTimeout(done, 125));
    }
    image.src = "";
    setTimeout(() => { strip.hidden = true; URL.revokeObjectURL(url); }, 2000);
  } catch (error) {
    addLog({ ok: false, text: `film: ${error.message}`, time: Date.now() / 1000 });
  }
  button.disabled = false;
}

function addLog(entry) {
  const seen = $("log").dataset.last || "0";
  if (entry.number && entry.number <= Number(seen) && entry.id === null) return;  // after a reconnection
  if (entry.number) $("log").dataset.last = entry.number;
  const item = make("li"), time = make("time", entry.time ? clock(entry.time) : "");
  item.append(time, make("span", `${entry.order ? `${entry.order}: ` : ""}${entry.text}`, entry.ok ? "" : "bad"));
  $("log").prepend(item);
  while ($("log").children.length > MAX_LOG) $("log").lastChild.remove();
  if (entry.ok && TONES_HZ[entry.order] && String(entry.id).startsWith(page)) signal(TONES_HZ[entry.order]);
}

function signal(frequency) {
  if (!$("sound").checked) return;
  for (const pad of navigator.getGamepads ? navigator.getGamepads() : []) {
    pad?.vibrationActuator?.playEffect("dual-rumble", { duration: 150, strongMagnitude: 0.5, weakMagnitude: 0.5 }).catch(() => {});
  }
  const context = new AudioContext(), tone = context.createOscillator(), volume = context.createGain();
  tone.frequency.value = frequency;
  volume.gain.value = 0.1;
  tone.connect(volume).connect(context.destination);
  tone.start();
  tone.stop(context.currentTime + 0.2);
  tone.onended = () => context.close();
}

// --- controls

$("stop").addEventListener("click", stop);
document.addEventListener("keydown", (event) => {
  const free = document.activeElement === document.body || document.activeElement === null;
  if (event.key === "Escape" || (event.key === " " && free)) {
    event.preventDefault();
    if (!event.repeat) stop();
  }
}, true);
for (const button of document.querySelectorAll("button[data-order]")) {
  button.addEventListener("click", () => order(button.dataset.order));  // no dialog, which would keep Esc from stopping
}
for (const [form, input, name] of [["instruct", "instruction", "instruct"], ["label", "label-text", "label"], ["target", "target-number", "target"]]) {
  $(form).addEventListener("submit", (event) => {
    event.preventDefault();
    if ($(input).value.trim()) order(name, $(input).value.trim());
  });
}
$("reset").addEventListener("submit", (event) => {
  event.preventDefault();
  const chosen = event.target.elements, expert = chosen.driver.checked;
  const numbers = ["task", "initial_state", "seed"].map((name) => `${name}=${chosen[name].value}`);
  order(event.submitter?.value || "reset_sim", [...numbers, `driver=${expert ? "expert" : "none"}`, `disturbed=${expert}`].join(" "));
});
for (const form of document.querySelectorAll("form[data-job]")) {
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    order(form.dataset.job, form.querySelector("input, select")?.value || "");
  });
}
document.addEventListener("visibilitychange", () => tell("visible", document.hidden ? "no" : "yes"));

// An open page receives something several times a second, so silence is a lost connection that TCP has not noticed yet.
setInterval(() => {
  if (isOpen() && !document.hidden && lastMessage && Date.now() - lastMessage > SILENT_MS) socket.close();
  const lost = !isOpen() || Date.now() - lastMessage > SILENT_MS;
  if (!lost) lostAt = 0;
  else if (!lostAt) lostAt = Date.now();
  document.body.classList.toggle("old", lost);
  $("banner").hidden = !lost;
  if (lost) text("banner", `No connection to the dashboard for ${Math.round((Date.now() - lostAt) / 1000)} s. What you see is old. STOP still tries.`);
}, 500);
connect();
