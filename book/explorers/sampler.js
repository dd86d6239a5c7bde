// From logits to a distribution: temperature, then top-k, then top-p, then min-p.
// The functions up to `process` are infero/sampling.py in JavaScript, name for name;
// tests/book/test_explorers.py compares the two in a browser. The logits are the default model's own
// for a few prompts, written to sampler.json by the build.

import {
  chart, control, element, fill, shape, stateFromAddress, stateToAddress,
} from "./common.js";

export function temperature(logits, t) {
  return t > 0 ? logits.map((v) => v / t) : logits.slice();
}

export function topK(logits, k) {
  const kept = k <= 0 || k > logits.length ? logits.length : k;
  const kth = logits.slice().sort((a, b) => b - a)[kept - 1];
  return logits.map((v) => (v < kth ? -Infinity : v));
}

export function topP(logits, p) {
  if (p >= 1) return logits.slice();
  const probs = softmax(logits);
  const order = probs.map((_, i) => i).sort((a, b) => probs[b] - probs[a] || a - b);
  const out = logits.slice();
  let before = 0;
  for (const i of order) {
    if (before >= p) out[i] = -Infinity;
    before += probs[i];
  }
  return out;
}

export function minP(logits, p) {
  const threshold = Math.max(...logits) + Math.log(p);
  return logits.map((v) => (v < threshold ? -Infinity : v));
}

export function softmax(logits) {
  const top = Math.max(...logits);
  const raised = logits.map((v) => Math.exp(v - top));
  const sum = raised.reduce((a, b) => a + b, 0);
  return raised.map((v) => v / sum);
}

/** The distribution that the next token is drawn from; at temperature 0 all on the largest logit. */
export function process(logits, { t, k, p, m }) {
  if (t === 0) {
    const best = logits.indexOf(Math.max(...logits));
    return logits.map((_, i) => (i === best ? 1 : 0));
  }
  return softmax(minP(topP(topK(temperature(logits, t), k), p), m));
}

/** Which filter removed each token: "top-k", "top-p", "min-p", "greedy" or "". */
export function removedBy(logits, { t, k, p, m }) {
  if (t === 0) return process(logits, { t, k, p, m }).map((v) => (v ? "" : "greedy"));
  const stages = [["top-k", (v) => topK(v, k)], ["top-p", (v) => topP(v, p)],
    ["min-p", (v) => minP(v, m)]];
  let now = temperature(logits, t);
  const by = logits.map(() => "");
  for (const [name, filter] of stages) {
    now = filter(now);
    now.forEach((v, i) => { if (v === -Infinity && !by[i]) by[i] = name; });
  }
  return by;
}

// ------------------------------------------------------------------------- the page

const START = { prompt: 0, t: 1, k: 0, p: 1, m: 0 };
const LIMITS = { t: [0, 2], k: [0, 40], p: [0.05, 1], m: [0, 0.5] };
const ROWS = 14;

function cleaned(found, prompts) {
  const state = { ...START };
  const chosen = Number(found.prompt);
  if (Number.isInteger(chosen) && prompts[chosen]) state.prompt = chosen;
  for (const [key, [low, high]] of Object.entries(LIMITS)) {
    const value = Number(found[key]);
    if (found[key] !== undefined && value >= low && value <= high) state[key] = value;
  }
  state.k = Math.round(state.k);
  return state;
}

/** A token as a reader can see it: its spaces and line ends made visible. */
const visible = (token) => token.replace(/^ /, "␣").replace(/\n/g, "⏎");

function mount(stage, data) {
  const state = cleaned(stateFromAddress("sampler"), data.prompts);
  const off = (value, none, digits) => (value === none ? "off" : value.toFixed(digits));
  const specs = [
    { id: "prompt", label: "Prompt", kind: "select",
      options: data.prompts.map((row, i) => [i, `${row.prompt} …`]) },
    { id: "t", label: "Temperature", kind: "range", min: 0, max: 2, step: 0.05,
      show: (v) => (v === 0 ? "0 (greedy)" : v.toFixed(2)) },
    { id: "k", label: "Top-k", kind: "range", min: 0, max: 40, step: 1,
      show: (v) => off(v, 0, 0) },
    { id: "p", label: "Top-p", kind: "range", min: 0.05, max: 1, step: 0.01,
      show: (v) => off(v, 1, 2) },
    { id: "m", label: "Min-p", kind: "range", min: 0, max: 0.5, step: 0.01,
      show: (v) => off(v, 0, 2) },
  ];
  const controls = element("div", { class: "ix-controls" });
  const words = element("p", { class: "ix-words", "aria-live": "polite" });
  const drawn = element("p", { class: "ix-words ix-drawn", "aria-live": "polite" });
  const drawButton = element("button", { type: "button" }, "Draw 20 tokens");
  const resetButton = element("button", { type: "button" }, "Reset");
  stage.append(element("p", { class: "ix-title" }, "What the next token is drawn from"), controls,
    element("div", { class: "ix-buttons" }, drawButton, resetButton), words);
  const redraw = chart(stage, "", (svg, width) => draw(svg, width, data.prompts[state.prompt], state));
  stage.append(element("p", { class: "ix-words ix-note" }, `Filled bars: the distribution now. Outlines: `
    + `temperature 1 and no filter. The ${ROWS} likeliest are shown; ${data.prompts[0].tokens.length} of `
    + `the vocabulary's ${data.vocab_size.toLocaleString("en-US")} tokens stand for all of it.`), drawn);
  const handles = {};
  const update = () => {
    for (const [key, handle] of Object.entries(handles)) handle.refresh(state[key]);
    const row = data.prompts[state.prompt];
    const probs = process(row.logits, state);
    const left = probs.filter((v) => v > 0).length;
    const best = probs.indexOf(Math.max(...probs));
    const bits = -probs.reduce((sum, v) => sum + (v > 0 ? v * Math.log2(v) : 0), 0);
    words.textContent = `${left} of ${probs.length} tokens can be drawn. The likeliest is “${
      visible(row.tokens[best])}” at ${(100 * probs[best]).toFixed(1)}%; the choice holds ${
      Math.abs(bits).toFixed(2)} bits.`;
    drawn.textContent = "";
    redraw(`Bar chart of token probabilities. ${words.textContent}`);
  };
  for (const spec of specs) {
    handles[spec.id] = control("sampler", spec, state[spec.id], (key, value) => {
      state[key] = Number(value);
      update();
      stateToAddress("sampler", state);
    });
    controls.append(handles[spec.id].box);
  }
  drawButton.addEventListener("click", () => {
    const row = data.prompts[state.prompt];
    const probs = process(row.logits, state);
    const draws = Array.from({ length: 20 }, () => visible(row.tokens[pick(probs, Math.random())]));
    drawn.textContent = `Drawn: ${draws.join("  ")}`;
  });
  resetButton.addEventListener("click", () => {
    Object.assign(state, START, { prompt: state.prompt });
    update();
    stateToAddress("sampler", state);
  });
  update();
}

/** The index at which the running sum of `probs` passes `u`. */
function pick(probs, u) {
  let sum = 0;
  for (let i = 0; i < probs.length; i += 1) {
    sum += probs[i];
    if (u < sum) return i;
  }
  return probs.indexOf(Math.max(...probs));
}

function draw(svg, width, row, state) {
  const [line, top] = [23, 22];
  const before = softmax(row.logits);
  const after = process(row.logits, state);
  const by = removedBy(row.logits, state);
  const order = before.map((_, i) => i).sort((a, b) => before[b] - before[a]).slice(0, ROWS);
  const height = top + line * order.length + 6;
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  const left = width < 460 ? 92 : 130;
  const right = width - 62;
  const largest = Math.max(...before, ...after);
  const end = [0.1, 0.2, 0.4, 0.6, 0.8].find((v) => largest <= v) ?? 1;
  const scale = (v) => (v / end) * (right - left);
  const text = (words, x, y, more = {}) => svg.append(
    shape("text", { x, y, "font-size": 12.5, ...more }, words));
  for (let i = 0; i <= 4; i += 1) {
    const v = (end * i) / 4;
    const x = left + scale(v);
    svg.append(shape("line", { class: "ix-gridline", x1: x, x2: x, y1: top, y2: height - 4 }));
    text(`${Number((100 * v).toFixed(1))}%`, x, 14, { "text-anchor": "middle", class: "ix-faint" });
  }
  order.forEach((token, i) => {
    const y = top + i * line;
    text(visible(row.tokens[token]), left - 10, y + 16, { "text-anchor": "end" });
    svg.append(shape("rect", { class: "ix-bar ix-move", x: left, y: y + 4, height: line - 8,
      width: Math.max(0, scale(after[token])) }));
    svg.append(shape("rect", { class: "ix-before", x: left, y: y + 4, height: line - 8,
      width: Math.max(1, scale(before[token])) }));
    const x = left + scale(Math.max(after[token], before[token])) + 7;
    const percent = after[token] >= 0.0005 ? `${(100 * after[token]).toFixed(1)}%` : "<0.1%";
    text(by[token] ? `cut by ${by[token]}`.replace("by greedy", "at temperature 0") : percent, x,
      y + 16, by[token] ? { class: "ix-faint" } : { "font-weight": 650 });
  });
}

fill("sampler", mount);
