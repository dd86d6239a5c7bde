// Host and device as two lanes over four decode steps: launches one by one or a graph, plans in turn
// or one step ahead. `timeline` is infero.lanes put together; tests/book/test_explorer_lanes.py
// compares them in a browser.

import {
  SECONDS, chart, control, element, fill, shape, stateFromAddress, stateToAddress, three, withUnit,
} from "./common.js";

const STEPS = 4;
const PERIOD_MS = 40;
const FRAMES = 150; // of a whole run, when it is played

/**
 * What both lanes do in `steps` steps: [{host: [[kind, from, to]], device: [[from, to]]}], seconds.
 * A step is planned, then its kernels are launched: each for launchS, or all by one launch of graphS
 * with gapS before each kernel. Ahead: the host begins step n when it is done with step n - 1 and
 * the device with step n - 2; else when the device is done with step n - 1.
 */
export function timeline({ kernels, kernelS, launchS, graphS, gapS, planS, graph, ahead, steps }) {
  const found = [];
  let free = 0; // when the device has done all that was launched
  let host = 0;
  const ends = [];
  for (let n = 0; n < steps; n += 1) {
    const before = ahead ? ends[n - 2] ?? 0 : ends[n - 1] ?? 0;
    const begin = Math.max(host, before);
    let at = begin + planS;
    const step = { host: planS > 0 ? [["plan", begin, at]] : [], device: [] };
    if (graph) {
      step.host.push(["graph", at, at + graphS]);
      at += graphS;
    }
    for (let i = 0; i < kernels; i += 1) {
      let start = Math.max(at, free);
      if (graph) start += gapS;
      else {
        step.host.push(["launch", at, at + launchS]);
        at += launchS;
        start = Math.max(at, free);
      }
      free = start + kernelS;
      step.device.push([start, free]);
    }
    host = at;
    ends.push(free);
    found.push(step);
  }
  return found;
}

/** Seconds of a step in the steady state, and the share of it in which the device works. */
export function steady(options) {
  const run = timeline({ ...options, steps: 24 });
  const end = (n) => run[n].device[run[n].device.length - 1][1];
  const stepS = (end(23) - end(13)) / 10;
  return { stepS, busy: (options.kernels * options.kernelS) / stepS };
}

// ------------------------------------------------------------------------- the page

const START = { kernels: 24, kernel: 20, launch: 70, plan: 100, graph: 0, ahead: 0 };
const LIMITS = { kernels: [4, 200], kernel: [5, 300], launch: [10, 300], plan: [0, 2000],
  graph: [0, 1], ahead: [0, 1] };
const GRAPH_S = 4e-6;
const GAP_S = 1.3e-6;

function cleaned(found) {
  const state = { ...START };
  for (const [key, [low, high]] of Object.entries(LIMITS)) {
    const value = Math.round(Number(found[key]));
    if (found[key] !== undefined && value >= low && value <= high) state[key] = value;
  }
  return state;
}

const optionsOf = (state) => ({ kernels: state.kernels, kernelS: state.kernel * 1e-7,
  launchS: state.launch * 1e-7, graphS: GRAPH_S, gapS: GAP_S, planS: state.plan * 1e-6,
  graph: Boolean(state.graph), ahead: Boolean(state.ahead) });

function mount(stage, data) {
  const state = cleaned(stateFromAddress("lanes"));
  const calm = window.matchMedia("(prefers-reduced-motion: reduce)");
  let run = [];
  let last = 0;
  let now = Infinity;
  let timer = null;
  const tenth = (v) => `${three(v / 10)} µs`;
  const specs = [
    { id: "kernels", label: "Kernels a step", kind: "range", min: 4, max: 200, step: 1,
      show: (v) => `${v}` },
    { id: "kernel", label: "A kernel runs for", kind: "range", min: 5, max: 300, step: 5,
      show: tenth },
    { id: "launch", label: "A launch costs", kind: "range", min: 10, max: 300, step: 5, show: tenth },
    { id: "plan", label: "Planning a step", kind: "range", min: 0, max: 2000, step: 20,
      show: (v) => `${v} µs` },
    { id: "graph", label: "Kernels are launched", kind: "select",
      options: [[0, "one by one"], [1, "as one graph"]] },
    { id: "ahead", label: "The host plans", kind: "select",
      options: [[0, "in turn with the device"], [1, "one step ahead"]] },
  ];
  const button = (text, action, label) => {
    const made = element("button", { type: "button", "aria-label": label }, text);
    made.addEventListener("click", action);
    return made;
  };
  const controls = element("div", { class: "ix-controls" });
  const handles = {};
  const play = button("Play", () => (timer ? pause() : start()), "Play");
  const words = element("p", { class: "ix-words", "aria-live": "polite" });
  const facts = element("dl", { class: "ix-answer" });
  stage.append(element("p", { class: "ix-title" }, "Four steps, two lanes"), controls,
    element("div", { class: "ix-buttons" }, play,
      button("◀ Step", () => { pause(); hop(-1); }, "Back to the kernel's end before"),
      button("Step ▶", () => { pause(); hop(1); }, "On to the next kernel's end"),
      button("Show all", () => { pause(); go(Infinity); }, "Show all of it"),
      ...data.presets.map((preset) => button(preset.name, () => {
        pause();
        Object.assign(state, preset.state);
        recompute();
      }))), words, facts);
  const redraw = chart(stage, "", (svg, width) => draw(svg, width, run, last, now));
  stage.append(element("p", { class: "ix-words ix-note" }, `A graph is started in ${
    withUnit(GRAPH_S, SECONDS)} and costs the device ${withUnit(GAP_S, SECONDS)} before each kernel. `
    + "Every second step is drawn lighter. On the host's lane the outlined part is planning."));

  function start() {
    if (now >= last) go(0);
    play.textContent = "Pause";
    play.setAttribute("aria-label", "Pause");
    timer = window.setInterval(() => {
      if (now >= last) pause(); else go(now + last / (calm.matches ? 12 : FRAMES));
    }, calm.matches ? 12 * PERIOD_MS : PERIOD_MS);
  }
  function pause() {
    window.clearInterval(timer);
    timer = null;
    play.textContent = "Play";
    play.setAttribute("aria-label", "Play");
  }
  function go(time) {
    now = Math.max(0, time);
    update();
  }
  function hop(way) {
    const ends = [0, ...run.flatMap((step) => step.device.map(([, end]) => end))];
    const here = Math.min(now, last);
    const next = way > 0 ? ends.find((end) => end > here + 1e-12)
      : ends.findLast((end) => end < here - 1e-12);
    go(next ?? (way > 0 ? last : 0));
  }
  function recompute() {
    const options = optionsOf(state);
    run = timeline({ ...options, steps: STEPS });
    last = run[STEPS - 1].device[state.kernels - 1][1];
    now = Infinity;
    const ways = [["one by one, in turn", 0, 0], ["one by one, ahead", 0, 1],
      ["graph, in turn", 1, 0], ["graph, ahead", 1, 1]];
    facts.replaceChildren(...ways.map(([name, graph, ahead]) => {
      const found = steady({ ...options, graph: Boolean(graph), ahead: Boolean(ahead) });
      const here = graph === Number(state.graph) && ahead === Number(state.ahead);
      return element("div", { class: here ? "ix-strong" : null }, element("dt", {}, name),
        element("dd", { "data-fact": name }, `${withUnit(found.stepS, SECONDS)}, ${
          Math.round(100 * found.busy)} % busy`));
    }));
    stateToAddress("lanes", state);
    update();
  }
  function update() {
    for (const [key, handle] of Object.entries(handles)) handle.refresh(state[key]);
    const found = steady(optionsOf(state));
    const done = run.flatMap((step) => step.device).filter(([, end]) => end <= now + 1e-12).length;
    words.textContent = now >= last
      ? `A step takes ${withUnit(found.stepS, SECONDS)} in the long run, ${
        three(1 / found.stepS)} tokens/s for one request. The device works ${
        Math.round(100 * found.busy)} % of the time.`
      : `After ${withUnit(now, SECONDS)}: ${done} of ${STEPS * state.kernels} kernels have ended.`;
    redraw(`Host and device over ${STEPS} steps. ${words.textContent}`);
  }
  for (const spec of specs) {
    handles[spec.id] = control("lanes", spec, state[spec.id], (key, value) => {
      pause();
      state[key] = Number(value);
      recompute();
    });
    controls.append(handles[spec.id].box);
  }
  recompute();
}

function draw(svg, width, run, last, now) {
  const [left, right, top, high] = [54, width - 8, 12, 40];
  const height = top + 2 * (high + 14) + 26;
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  const x = (s) => left + (s / last) * (right - left);
  const unit = 10 ** Math.floor(Math.log10(last));
  const tick = last / unit > 5 ? 2 * unit : last / unit > 2 ? unit : unit / 2;
  for (let s = 0; s <= last * 1.0001; s += tick) {
    svg.append(shape("line", { class: "ix-gridline", x1: x(s), x2: x(s), y1: top,
      y2: height - 24 }), shape("text", { x: x(s), y: height - 8, "font-size": 11.5,
      "text-anchor": "middle", class: "ix-faint" }, s ? withUnit(s, SECONDS) : "0"));
  }
  ["host", "device"].forEach((name, lane) => svg.append(shape("text", { x: 0,
    y: top + lane * (high + 14) + high / 2 + 4, "font-size": 12.5 }, name)));
  const box = (lane, from, to, more) => {
    const end = Math.min(to, now);
    if (end <= from) return;
    const wide = x(end) - x(from);
    svg.append(shape("rect", { x: x(from), y: top + lane * (high + 14), height: high,
      width: Math.max(0.4, wide - (wide > 3 ? 0.8 : 0)), ...more }));
  };
  run.forEach((step, n) => {
    const light = n % 2 ? 0.62 : 1;
    for (const [kind, from, to] of step.host) {
      box(0, from, to, kind === "plan" ? { class: "ix-before" }
        : { style: "fill: var(--infero-orange)", opacity: light });
    }
    for (const [from, to] of step.device) box(1, from, to, { class: "ix-bar", opacity: light });
  });
  if (now < last) {
    svg.append(shape("line", { class: "ix-drop", x1: x(now), x2: x(now), y1: top - 6,
      y2: height - 24 }));
  }
}

fill("lanes", mount);
