// The roofline of one step: what it must move, what it must compute, which takes longer.
// The functions up to `predict` are infero/roofline.py in JavaScript, name for name;
// tests/book/test_explorers.py compares the two in a browser. Devices and models come from
// roofline.json, which the build writes from infero.

import {
  BYTES, SECONDS, chart, control, element, fill, shape, stateFromAddress, stateToAddress, three,
  withUnit,
} from "./common.js";

const ACTIVATION_BYTES = 2;
const LOGIT_BYTES = 4;

export function weightBytes(config, weightBits) {
  const queries = config.num_heads * config.head_dim;
  const keys = config.num_kv_heads * config.head_dim;
  const layer = config.hidden_size * (2 * queries + 2 * keys + 3 * config.intermediate_size);
  const head = config.vocab_size * config.hidden_size;
  return ((config.num_layers * layer + head) * weightBits) / 8;
}

export function kvBytes(config, batch, fresh, context, kvBits) {
  const perToken = (2 * config.num_layers * config.num_kv_heads * config.head_dim * kvBits) / 8;
  return batch * (fresh + context) * perToken;
}

export function stepFlops(config, batch, fresh, context) {
  const head = config.vocab_size * config.hidden_size;
  const layers = weightBytes(config, 8) - head;
  const matrices = 2 * batch * (fresh * layers + head);
  const pairs = fresh * context - (fresh * (fresh - 1)) / 2;
  return matrices + 4 * batch * pairs * config.num_layers * config.num_heads * config.head_dim;
}

export function activationBytes(config, batch, fresh) {
  const queries = config.num_heads * config.head_dim;
  const keys = config.num_kv_heads * config.head_dim;
  const hidden = config.hidden_size;
  const inter = config.intermediate_size;
  const layer = hidden + queries + 2 * keys + 2 * queries + queries + hidden
    + (hidden + 2 * inter) + (inter + hidden);
  const logits = hidden * ACTIVATION_BYTES + config.vocab_size * LOGIT_BYTES;
  return batch * (fresh * config.num_layers * layer * ACTIVATION_BYTES + logits);
}

export function parameters(config) {
  const embedding = config.tie_embeddings ? 0 : config.vocab_size * config.hidden_size;
  let norms = (2 * config.num_layers + 1) * config.hidden_size;
  if (config.qk_norm) norms += 2 * config.num_layers * config.head_dim;
  return weightBytes(config, 8) + embedding + norms;
}

export function memoryNeededBytes(config, batch, context, weightBits, kvBits) {
  const stored = (parameters(config) * weightBits) / 8;
  return stored + batch * context * kvBytes(config, 1, 0, 1, kvBits);
}

export function criticalBatch(fixedBytes, requestBytes, requestFlops, peak, bandwidth) {
  const gain = requestFlops / peak - requestBytes / bandwidth;
  return gain <= 0 ? Infinity : fixedBytes / bandwidth / gain;
}

export function predictCriticalBatch(config, device, { context, weightBits, kvBits, compute }) {
  return criticalBatch(
    weightBytes(config, weightBits),
    kvBytes(config, 1, 1, context, kvBits) + activationBytes(config, 1, 1),
    stepFlops(config, 1, 1, context),
    device.peak_flops_per_s[compute],
    device.bandwidth_bytes_per_s,
  );
}

/** One step: batch requests, `fresh` new tokens each, `context` tokens in the cache afterwards. */
export function predict(config, device, { batch, fresh, context, weightBits, kvBits, compute }) {
  const weights = weightBytes(config, weightBits);
  const cache = kvBytes(config, batch, fresh, context, kvBits);
  const activations = activationBytes(config, batch, fresh);
  const flops = stepFlops(config, batch, fresh, context);
  const moved = weights + cache + activations;
  const computeS = flops / device.peak_flops_per_s[compute];
  const memoryS = moved / device.bandwidth_bytes_per_s;
  const timeS = Math.max(computeS, memoryS);
  const needed = memoryNeededBytes(config, batch, context, weightBits, kvBits);
  return {
    weights, cache, activations, flops, moved, computeS, memoryS, timeS, needed,
    bound: computeS > memoryS ? "compute" : "memory",
    intensity: flops / moved,
    tokensPerS: (batch * fresh) / timeS,
    fits: !device.memory_bytes || needed <= device.memory_bytes,
  };
}

// ------------------------------------------------------------------------- the page

/** Weight formats: bits a weight with its scale, and the number formats that may multiply them. */
export const FORMATS = {
  w16: { text: "16 bit", weightBits: 16, compute: ["bf16", "fp16", "fp32"] },
  w8: { text: "8 bit weights", weightBits: 8, compute: ["bf16", "fp16", "fp32"] },
  w4: { text: "4 bit weights, groups of 64", weightBits: 4.25, compute: ["bf16", "fp16", "fp32"] },
  fp8: { text: "FP8 weights and activations", weightBits: 8, compute: ["fp8"] },
  int8: { text: "INT8 weights and activations", weightBits: 8, compute: ["int8"] },
};

/** The number format in which `device` multiplies weights of `format`; undefined if it cannot. */
export function computeFormat(device, format) {
  return FORMATS[format].compute.find((name) => name in device.peak_flops_per_s);
}

/** The arguments of `predict` for a state of the controls. */
export function stepOf(state, device) {
  const context = 2 ** state.context;
  return {
    batch: 2 ** state.batch,
    fresh: state.step === "prefill" ? context : 1,
    context,
    weightBits: FORMATS[state.weights].weightBits,
    kvBits: Number(state.cache),
    compute: computeFormat(device, state.weights),
  };
}

const START = {
  device: "h100", model: "llama-3-8b", step: "decode", weights: "w16", cache: "16", batch: 0,
  context: 11,
};
const NUMBERS = ["batch", "context"];

function cleaned(found, devices, models) {
  const state = { ...START };
  if (!devices[state.device]) state.device = Object.keys(devices)[0];
  if (!models[state.model]) state.model = Object.keys(models)[0];
  const allowed = {
    device: (v) => v in devices, model: (v) => v in models, weights: (v) => v in FORMATS,
    step: (v) => v === "decode" || v === "prefill", cache: (v) => v === "16" || v === "8",
    batch: (v) => v >= 0 && v <= 10, context: (v) => v >= 5 && v <= 17,
  };
  for (const [key, good] of Object.entries(allowed)) {
    const value = NUMBERS.includes(key) ? Math.round(Number(found[key])) : found[key];
    if (found[key] !== undefined && good(value)) state[key] = value;
  }
  return state;
}

function mount(stage, data) {
  const devices = Object.fromEntries(data.devices.map((row) => [row.slug, row]));
  const { models } = data;
  const state = cleaned(stateFromAddress("roofline"), devices, models);
  const kinds = { datasheet: "", measured: ", as measured" };
  const specs = [
    { id: "device", label: "Device", kind: "select",
      options: data.devices.map((row) => [row.slug, row.name + (kinds[row.evidence] ?? "")]) },
    { id: "model", label: "Model", kind: "select",
      options: Object.entries(models).map(([key, row]) => [key, row.name]) },
    { id: "step", label: "Step", kind: "select",
      options: [["decode", "decode: one new token a request"],
        ["prefill", "prefill: the whole context at once"]] },
    { id: "weights", label: "Weights", kind: "select",
      options: Object.entries(FORMATS).map(([key, row]) => [key, row.text]) },
    { id: "cache", label: "KV cache", kind: "select",
      options: [["16", "16 bit"], ["8", "8 bit"]] },
    { id: "batch", label: "Batch, requests", kind: "range", min: 0, max: 10, step: 1,
      show: (v) => (2 ** v).toLocaleString("en-US") },
    { id: "context", label: "Context, tokens", kind: "range", min: 5, max: 17, step: 1,
      show: (v) => (2 ** v).toLocaleString("en-US") },
  ];
  const controls = element("div", { class: "ix-controls" });
  const handles = {};
  const words = element("p", { class: "ix-words", "aria-live": "polite" });
  const answer = element("dl", { class: "ix-answer" });
  stage.append(element("p", { class: "ix-title" }, "Roofline of one step"), controls, words, answer);
  const redraw = chart(stage, "", (svg, width) => draw(svg, width, models[state.model],
    devices[state.device], state));

  const update = () => {
    const device = devices[state.device];
    for (const option of handles.weights.input.options) {
      option.disabled = !computeFormat(device, option.value);
    }
    if (!computeFormat(device, state.weights)) state.weights = "w16";
    for (const [key, handle] of Object.entries(handles)) handle.refresh(state[key]);
    const model = models[state.model];
    const step = stepOf(state, device);
    const p = predict(model, device, step);
    words.textContent = sentence(p, step, device);
    answer.replaceChildren(...facts(p, step, model, device));
    redraw(`Roofline chart. ${words.textContent}`);
  };
  for (const spec of specs) {
    handles[spec.id] = control("roofline", spec, state[spec.id], (key, value) => {
      state[key] = value;
      update();
      stateToAddress("roofline", state);
    });
    controls.append(handles[spec.id].box);
  }
  update();
}

function sentence(p, step, device) {
  const memory = `Moving ${withUnit(p.moved, BYTES)} takes ${withUnit(p.memoryS, SECONDS)}`;
  const computing = `computing takes ${withUnit(p.computeS, SECONDS)} in ${step.compute}`;
  const end = p.bound === "memory"
    ? "The step waits for memory." : "The step waits for the arithmetic units.";
  const room = p.fits ? "" : ` But it needs ${withUnit(p.needed, BYTES)}, and ${device.name} has ${
    withUnit(device.memory_bytes, BYTES)}.`;
  return `${memory}, ${computing}. ${end}${room}`;
}

function facts(p, step, model, device) {
  const turn = predictCriticalBatch(model, device, step);
  const rows = [
    ["bound by", p.bound, true],
    ["least time of the step", withUnit(p.timeS, SECONDS)],
    ["tokens/s, all requests", three(p.tokensPerS)],
    ["tokens/s, each request", three(p.tokensPerS / step.batch)],
    ["intensity", `${three(p.intensity)} flop/byte`],
    ["decode turns compute-bound", Number.isFinite(turn) ? `at batch ${
      Math.ceil(turn).toLocaleString("en-US")}` : "never"],
    ["memory it needs", `${withUnit(p.needed, BYTES)}${p.fits ? "" : ", too much"}`],
  ];
  return rows.map(([name, value, strong]) => element("div", { class: strong ? "ix-strong" : null },
    element("dt", {}, name), element("dd", { "data-fact": name }, value)));
}

function draw(svg, width, model, device, state) {
  const height = 300;
  const [left, right, top, bottom] = [52, width - 12, 26, height - 42];
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  const step = stepOf(state, device);
  const peak = device.peak_flops_per_s[step.compute];
  const bandwidth = device.bandwidth_bytes_per_s;
  const ridge = peak / bandwidth;
  const xs = [0.1, 1e5];
  const highest = 10 ** Math.ceil(Math.log10(peak * 1.3));
  const ys = [highest / 1e5, highest];
  const along = (v, [low, high], from, to) => from
    + ((Math.log10(v) - Math.log10(low)) / (Math.log10(high) - Math.log10(low))) * (to - from);
  const x = (v) => along(Math.min(Math.max(v, xs[0]), xs[1]), xs, left, right);
  const y = (v) => along(Math.min(Math.max(v, ys[0]), ys[1]), ys, bottom, top);
  const roof = (v) => Math.min(peak, v * bandwidth);
  const text = (words, px, py, more = {}) => svg.append(
    shape("text", { x: px, y: py, "font-size": 12, ...more }, words));

  for (let e = Math.log10(xs[0]); e <= Math.log10(xs[1]); e += 1) {
    const at = x(10 ** e);
    svg.append(shape("line", { x1: at, x2: at, y1: top, y2: bottom, class: "ix-gridline" }));
    if (width > 480 || e % 2 === 0) {
      text((10 ** e).toLocaleString("en-US"), at, bottom + 16, { "text-anchor": "middle" });
    }
  }
  for (let e = Math.log10(ys[0]); e <= Math.log10(ys[1]) + 1e-9; e += 1) {
    const at = y(10 ** e);
    svg.append(shape("line", { x1: left, x2: right, y1: at, y2: at, class: "ix-gridline" }));
    text(`${(10 ** e / 1e12).toLocaleString("en-US", { maximumSignificantDigits: 1 })}`, left - 7,
      at + 4, { "text-anchor": "end" });
  }
  text("arithmetic intensity, flop/byte", (left + right) / 2, height - 6, {
    "text-anchor": "middle", class: "ix-faint" });
  text("TFLOP/s", 0, 12, { class: "ix-faint" });

  const corner = ys[0] / bandwidth;
  const points = [[Math.max(corner, xs[0]), roof(Math.max(corner, xs[0]))], [ridge, peak],
    [xs[1], peak]];
  svg.append(shape("polyline", { class: "ix-roof",
    points: points.map(([a, b]) => `${x(a)},${y(b)}`).join(" ") }));
  text(`${three(peak / 1e12)} TFLOP/s ${step.compute}`, right - 4, y(peak) - 7, {
    "text-anchor": "end" });
  text(`ridge ${three(ridge)}`, x(ridge) + 6, y(peak) + 18, { class: "ix-faint" });
  svg.append(shape("line", { class: "ix-ghost", x1: x(ridge), x2: x(ridge), y1: y(peak), y2: bottom }));
  text("memory-bound", x(ridge) - 8, bottom - 8, { "text-anchor": "end", class: "ix-faint" });
  text("compute-bound", x(ridge) + 8, bottom - 8, { class: "ix-faint" });

  for (let b = 0; b <= 10; b += 1) {
    const other = predict(model, device, { ...step, batch: 2 ** b });
    svg.append(shape("circle", { class: "ix-dot2", r: 3.5, cx: x(other.intensity),
      cy: y(other.flops / other.timeS) }));
  }
  const here = predict(model, device, step);
  const [px, py] = [x(here.intensity), y(here.flops / here.timeS)];
  svg.append(shape("line", { class: "ix-drop", x1: px, x2: px, y1: py, y2: bottom }));
  svg.append(shape("circle", { class: "ix-dot", r: 7.5, cx: px, cy: py }));
  const name = `${state.step}, batch ${step.batch.toLocaleString("en-US")}`;
  const atRight = px < (left + right) / 2;
  text(name, px + (atRight ? 13 : -13), py + (here.bound === "compute" ? 24 : 6), {
    "font-weight": 650, "text-anchor": atRight ? "start" : "end" });
}

fill("roofline", mount);
