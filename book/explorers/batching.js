// Three ways of batching the reader's own requests, pass by pass. The functions up to `summary` are
// infero/batching.py in JavaScript, name for name; tests/book/test_explorer_batching.py compares the
// two in a browser.

import {
  chart, control, element, fill, shape, stateFromAddress, stateToAddress, three,
} from "./common.js";

export const POLICIES = ["static", "dynamic", "continuous"];

export function staticSteps(lengths, slots) {
  let passes = 0;
  for (let first = 0; first < lengths.length; first += slots) {
    passes += Math.max(...lengths.slice(first, first + slots));
  }
  return passes;
}

export function continuousSteps(lengths, slots) {
  const ends = new Array(slots).fill(0);
  for (const length of lengths) ends[ends.indexOf(Math.min(...ends))] += length;
  return Math.max(...ends);
}

/** Services in the order of the requests: {request, slot, arrival, start, end, released}. */
export function simulate(policy, lengths, slots, arrivals, window = 0) {
  const arrived = arrivals ?? lengths.map(() => 0);
  const order = lengths.map((_, i) => i).sort((a, b) => arrived[a] - arrived[b] || a - b);
  const services = policy === "continuous"
    ? continuous(order, lengths, slots, arrived)
    : inBatches(order, lengths, slots, arrived, policy === "static" ? null : window);
  return services.sort((a, b) => a.request - b.request);
}

function inBatches(order, lengths, slots, arrived, window) {
  const services = [];
  let [freeAt, first] = [0, 0];
  while (first < order.length) {
    const oldest = arrived[order[first]];
    const full = first + slots <= order.length;
    const complete = arrived[full ? order[first + slots - 1] : order[order.length - 1]];
    const start = Math.max(freeAt, window === null ? complete : Math.min(complete, oldest + window));
    const members = order.slice(first, first + slots).filter((i) => arrived[i] <= start);
    freeAt = start + Math.max(...members.map((i) => lengths[i]));
    members.forEach((i, slot) => services.push({
      request: i, slot, arrival: arrived[i], start, end: start + lengths[i], released: freeAt,
    }));
    first += members.length;
  }
  return services;
}

function continuous(order, lengths, slots, arrived) {
  const free = Array.from({ length: slots }, (_, slot) => [0, slot]);
  return order.map((i) => {
    const at = free.reduce((best, entry, k) => (
      entry[0] < free[best][0] || (entry[0] === free[best][0] && entry[1] < free[best][1])
        ? k : best), 0);
    const [ready, slot] = free[at];
    const start = Math.max(ready, arrived[i]);
    const end = start + lengths[i];
    free[at] = [end, slot];
    return { request: i, slot, arrival: arrived[i], start, end, released: end };
  });
}

/** Makespan, passes that run, share of the slots used, and the mean passes to an answer. */
export function summary(services, slots) {
  const makespan = Math.max(0, ...services.map((s) => s.end));
  let [passes, tokens] = [0, 0];
  for (let t = 0; t < makespan; t += 1) {
    const working = services.filter((s) => s.start <= t && t < s.end).length;
    passes += working > 0 ? 1 : 0;
    tokens += working;
  }
  const answers = services.map((s) => s.released - s.arrival);
  return {
    makespan, passes, utilisation: tokens ? tokens / (slots * passes) : 0,
    answer: answers.reduce((a, b) => a + b, 0) / Math.max(answers.length, 1),
  };
}

// ------------------------------------------------------------------------- the page

const LIMITS = { requests: 26, length: 60, arrival: 200 };
const PERIOD_MS = 450;
const COLOURS = ["var(--infero-blue)", "var(--infero-orange)", "var(--infero-green)"];
const ROW = 20;

/** Whole numbers from a line of text, or the reason why not. */
function numbers(text, low, high, what) {
  const words = text.split(/[\s,;]+/).filter(Boolean);
  const values = words.map(Number);
  const wrong = values.findIndex((v) => !Number.isInteger(v) || v < low || v > high);
  if (wrong >= 0) return `${what} “${words[wrong]}” is not a whole number from ${low} to ${high}.`;
  return values;
}

function cleaned(found, preset) {
  const state = { ...preset, policy: undefined, time: Infinity };
  const lengths = numbers(found.lengths ?? "", 1, LIMITS.length, "");
  if (Array.isArray(lengths) && lengths.length && lengths.length <= LIMITS.requests) {
    state.lengths = lengths;
    const arrivals = numbers(found.arrivals ?? "", 0, LIMITS.arrival, "");
    state.arrivals = Array.isArray(arrivals) && arrivals.length === lengths.length
      ? arrivals : lengths.map(() => 0);
  }
  for (const [key, low, high] of [["slots", 1, 8], ["window", 0, 20]]) {
    const value = Number(found[key]);
    if (found[key] !== undefined && Number.isInteger(value) && value >= low && value <= high) {
      state[key] = value;
    }
  }
  return state;
}

function mount(stage, data) {
  const state = cleaned(stateFromAddress("batching"), data.presets[0]);
  let traces = {};
  let last = 0;
  let timer = null;
  const calm = window.matchMedia("(prefers-reduced-motion: reduce)");

  const button = (text, run, label) => {
    const made = element("button", { type: "button", "aria-label": label }, text);
    made.addEventListener("click", run);
    return made;
  };
  const textBox = (id, words) => {
    const input = element("input", { id: `batching-${id}`, type: "text", inputmode: "numeric",
      autocomplete: "off", spellcheck: "false", "aria-describedby": "batching-problem",
      style: "font: inherit; padding: 0.3rem 0.4rem; width: 100%; box-sizing: border-box; "
        + "border: 1px solid var(--pst-color-border); border-radius: 5px; "
        + "background: var(--pst-color-background); color: var(--pst-color-text-base);" });
    input.addEventListener("input", typed);
    return { input, box: element("div", { class: "ix-control" },
      element("label", { for: `batching-${id}` }, words), input) };
  };
  const lengthsBox = textBox("lengths", "Lengths, in passes");
  const arrivalsBox = textBox("arrivals", "Arrivals (before which pass)");
  const changed = (key, value) => { state[key] = Number(value); pause(); recompute(); };
  const handles = {
    slots: control("batching", { id: "slots", label: "Slots", kind: "range", min: 1, max: 8, step: 1,
      show: (v) => `${v}` }, state.slots, changed),
    window: control("batching", { id: "window", label: "Window of dynamic batching", kind: "range",
      min: 0, max: 20, step: 1, show: (v) => `${v} passes` }, state.window, changed),
    time: control("batching", { id: "time", label: "Pass", kind: "range", min: 0, max: 1, step: 1,
      show: (v) => `${Math.min(v, last)} of ${last}` }, 0, (_, v) => { pause(); go(Number(v)); }),
  };
  const play = button("Play", () => (timer ? pause() : start()), "Play from pass to pass");
  const problem = element("p", { class: "ix-words", id: "batching-problem", role: "status" });
  const facts = element("dl", { class: "ix-answer" });
  const words = element("p", { class: "ix-words", "aria-live": "polite" });
  words.style.minHeight = "3.1em";
  stage.append(element("p", { class: "ix-title" }, "The same requests under three ways of batching"),
    element("div", { class: "ix-controls" }, lengthsBox.box, arrivalsBox.box, handles.slots.box,
      handles.window.box, handles.time.box),
    problem,
    element("div", { class: "ix-buttons" }, play,
      button("◀ Step", () => { pause(); go(state.time - 1); }, "One pass back"),
      button("Step ▶", () => { pause(); go(state.time + 1); }, "One pass forward"),
      button("Show all", () => { pause(); go(last); }, "Show all passes"),
      ...data.presets.map((preset) => button(preset.name, () => {
        pause();
        Object.assign(state, { ...preset, time: Infinity });
        show();
      }))), facts, words);
  const redraw = chart(stage, "", (svg, width) => draw(svg, width, traces, state, last));
  stage.append(element("p", { class: "ix-words ix-note" }, "A bar is a request with its letter; it "
    + "yields a token in every pass it covers. Hatched: its slot is held until the batch ends. "
    + "Dashed outline: still to come. Every pass takes as long as any other here; an answer counts "
    + "from arrival until the request's batch lets it go."));

  function typed() {
    pause();
    const lengths = numbers(lengthsBox.input.value, 1, LIMITS.length, "The length");
    const arrivals = numbers(arrivalsBox.input.value, 0, LIMITS.arrival, "The arrival");
    let wrong = [lengths, arrivals].find((v) => typeof v === "string") ?? "";
    if (!wrong && (lengths.length < 1 || lengths.length > LIMITS.requests)) {
      wrong = `Give 1 to ${LIMITS.requests} lengths.`;
    }
    if (!wrong && arrivals.length && arrivals.length !== lengths.length) {
      wrong = `${arrivals.length} arrivals for ${lengths.length} requests: give one each, or none.`;
    }
    problem.textContent = wrong;
    for (const box of [lengthsBox, arrivalsBox]) {
      box.input.setAttribute("aria-invalid", wrong ? "true" : "false");
    }
    if (wrong) return;
    state.lengths = lengths;
    state.arrivals = arrivals.length ? arrivals : lengths.map(() => 0);
    recompute();
  }
  function start() {
    if (state.time >= last) go(0);
    play.textContent = "Pause";
    play.setAttribute("aria-label", "Pause");
    timer = window.setInterval(() => {
      if (state.time >= last) pause(); else go(state.time + 1);
    }, calm.matches ? 3 * PERIOD_MS : PERIOD_MS);
  }
  function pause() {
    window.clearInterval(timer);
    timer = null;
    play.textContent = "Play";
    play.setAttribute("aria-label", "Play from pass to pass");
  }
  function go(time) {
    state.time = Math.max(0, Math.min(last, time));
    update();
  }
  function recompute() {
    const { lengths, slots, arrivals, window: wait } = state;
    traces = Object.fromEntries(POLICIES.map((policy) => (
      [policy, simulate(policy, lengths, slots, arrivals, wait)])));
    const sums = POLICIES.map((policy) => summary(traces[policy], slots));
    last = Math.max(...sums.map((s) => s.makespan));
    state.time = last;
    handles.time.input.max = last;
    facts.replaceChildren(...POLICIES.flatMap((policy, k) => [
      ["done after", `${sums[k].makespan}`],
      ["slots used", `${Math.round(100 * sums[k].utilisation)} %`],
      ["mean answer", `${three(sums[k].answer)}`],
    ].map(([name, value], j) => element("div", {
      class: policy === "continuous" ? "ix-strong" : null, "data-fact": `${policy} ${name}`,
    }, element("dt", {}, j ? name : `${policy}: ${name}`), element("dd", {}, value)))));
    facts.style.gridTemplateColumns = "repeat(3, minmax(0, 1fr))";
    stateToAddress("batching", { lengths: lengths.join(","), slots, window: wait,
      ...(arrivals.some(Boolean) ? { arrivals: arrivals.join(",") } : {}) });
    update();
  }
  function update() {
    for (const [key, handle] of Object.entries(handles)) handle.refresh(state[key]);
    const at = state.time;
    words.textContent = at >= last
      ? `All ${last} passes. Continuous batching is done after ${
        summary(traces.continuous, state.slots).makespan}, static after ${
        summary(traces.static, state.slots).makespan}.`
      : `Pass ${at + 1}: ${POLICIES.map((policy) => `${policy} runs ${
        running(traces[policy], at) || "nothing"}`).join("; ")}.`;
    redraw(`Three timelines of ${state.lengths.length} requests in ${state.slots} slots. ${
      words.textContent}`);
  }
  function show() {
    lengthsBox.input.value = state.lengths.join(", ");
    arrivalsBox.input.value = state.arrivals.some(Boolean) ? state.arrivals.join(", ") : "";
    problem.textContent = "";
    recompute();
  }
  show();
}

const letter = (request) => String.fromCharCode(65 + request);
const running = (services, t) => services.filter((s) => s.start <= t && t < s.end)
  .map((s) => letter(s.request)).join(", ");

function draw(svg, width, traces, state, last) {
  const { slots, time } = state;
  const [left, top, gap] = [46, 24, 34];
  const block = slots * ROW;
  const height = POLICIES.length * (block + gap) + 18;
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  const unit = (width - left - 8) / Math.max(last, 1);
  const x = (t) => left + t * unit;
  const hatch = shape("pattern", { id: "batching-hatch", width: 6, height: 6,
    patternUnits: "userSpaceOnUse", patternTransform: "rotate(45)" });
  hatch.append(shape("line", { x1: 0, y1: 0, x2: 0, y2: 6, class: "ix-axis" }));
  svg.append(hatch);
  const step = [1, 2, 5, 10, 20, 50].find((s) => last / s <= width / 60) ?? 100;
  POLICIES.forEach((policy, k) => {
    const y0 = top + k * (block + gap);
    svg.append(shape("text", { x: 0, y: y0 - 8, "font-size": 13, "font-weight": 650 },
      `${policy} batching`));
    for (let t = 0; t <= last; t += step) {
      svg.append(shape("line", { class: "ix-gridline", x1: x(t), x2: x(t), y1: y0, y2: y0 + block }));
    }
    for (let slot = 0; slot < slots; slot += 1) {
      svg.append(shape("text", { x: 0, y: y0 + slot * ROW + 14, "font-size": 11.5,
        class: "ix-faint" }, `slot ${slot}`));
    }
    for (const s of traces[policy] ?? []) {
      const y = y0 + s.slot * ROW + 2;
      const done = Math.max(s.start, Math.min(s.end, time));
      const bar = (from, to, more) => to > from && svg.append(shape("rect", {
        x: x(from), y, width: Math.max(0, x(to) - x(from) - 1), height: ROW - 4, ...more }));
      bar(s.start, done, { style: `fill: ${COLOURS[s.request % COLOURS.length]}` });
      bar(done, s.end, { class: "ix-bar-cut" });
      bar(s.end, Math.max(s.end, Math.min(s.released, time)), { fill: "url(#batching-hatch)" });
      const room = x(s.end) - x(s.start);
      if (room > 11) {
        const filled = (done - s.start) * 2 > s.end - s.start;
        svg.append(shape("text", { x: x((s.start + s.end) / 2), y: y + 12, "font-size": 11.5,
          "text-anchor": "middle", "font-weight": 650,
          style: filled ? "fill: var(--infero-card)" : "" }, letter(s.request)));
      }
    }
    svg.append(shape("line", { class: "ix-drop", x1: x(time), x2: x(time), y1: y0 - 3,
      y2: y0 + block + 3 }));
  });
  for (let t = 0; t <= last; t += step) {
    svg.append(shape("text", { x: x(t), y: height - 4, "font-size": 11.5, "text-anchor": "middle",
      class: "ix-faint" }, `${t}`));
  }
}

fill("batching", mount);
