// How much memory the KV cache takes and how many users it leaves room for. The functions up to
// `shareOfReads` are infero/cache/shapes.py in JavaScript, name for name;
// tests/book/test_explorer_kv_memory.py compares the two in a browser.

import {
  BYTES, chart, control, element, fill, shape, stateFromAddress, stateToAddress, three, withUnit,
} from "./common.js";

export function bytesPerToken(model, kvBits) {
  return (model.layers * model.numbers * kvBits) / 8;
}

export function requestBytes(model, context, kvBits) {
  const kept = (model.layers - model.windowed) * context
    + model.windowed * Math.min(context, model.window);
  return (kept * model.numbers * kvBits) / 8;
}

export function requestsThatFit(model, context, memoryBytes, weightBits, kvBits, utilization) {
  const left = utilization * memoryBytes - (model.parameters * weightBits) / 8;
  return Math.trunc(Math.max(0, left) / requestBytes(model, context, kvBits));
}

export function shareOfReads(model, requests, context, weightBits, kvBits) {
  const cache = requests * requestBytes(model, context, kvBits);
  return cache / (cache + (model.parameters * weightBits) / 8);
}

// ------------------------------------------------------------------------- the page

const WEIGHTS = { 16: "16 bit", 8: "8 bit", 4.25: "4 bit, groups of 64" };
const CACHE = { 16: "16 bit", 8: "8 bit", 4: "4 bit" };
const COUNTS = ["1", "2", "4", "8", "16"];
const START = {
  model: "llama-3-8b", device: "h100", count: "1", weights: "16", cache: "16", context: 13, users: 4,
};
const whole = (n) => n.toLocaleString("en-US");

function cleaned(found, data, devices) {
  const state = { ...START };
  const allowed = {
    model: (v) => v in data.models, device: (v) => v in devices, count: (v) => COUNTS.includes(v),
    weights: (v) => v in WEIGHTS, cache: (v) => v in CACHE,
    context: (v) => v >= 7 && v <= 17, users: (v) => v >= 0 && v <= 12,
  };
  for (const [key, good] of Object.entries(allowed)) {
    const number = typeof START[key] === "number";
    const value = number ? Math.round(Number(found[key])) : found[key];
    if (found[key] !== undefined && good(value)) state[key] = value;
  }
  return state;
}

/** Everything the page says about one setting. */
export function answerOf(state, data, devices) {
  const model = data.models[state.model];
  const memory = devices[state.device].memory_bytes * Number(state.count);
  const [weightBits, kvBits] = [Number(state.weights), Number(state.cache)];
  const [context, users] = [2 ** state.context, 2 ** state.users];
  const weights = (model.parameters * weightBits) / 8;
  const one = requestBytes(model, context, kvBits);
  const fit = requestsThatFit(model, context, memory, weightBits, kvBits, data.utilization);
  return {
    model, memory, weightBits, kvBits, context, users, weights, one, cache: users * one, fit,
    usable: data.utilization * memory, perToken: bytesPerToken(model, kvBits),
    share: shareOfReads(model, users, context, weightBits, kvBits),
    fits: weights + users * one <= data.utilization * memory,
  };
}

function mount(stage, data) {
  const devices = Object.fromEntries(data.devices.map((row) => [row.slug, row]));
  const state = cleaned(stateFromAddress("kv_memory"), data, devices);
  const pairs = (table) => Object.entries(table);
  const specs = [
    { id: "model", label: "Model", kind: "select",
      options: pairs(data.models).map(([key, row]) => [key, `${row.name} (${row.kind})`]) },
    { id: "device", label: "Device", kind: "select",
      options: data.devices.map((row) => [row.slug, row.name]) },
    { id: "count", label: "How many of them", kind: "select", options: COUNTS.map((n) => [n, n]) },
    { id: "weights", label: "Weights", kind: "select",
      options: pairs(WEIGHTS).sort((a, b) => b[0] - a[0]) },
    { id: "cache", label: "KV cache", kind: "select",
      options: pairs(CACHE).sort((a, b) => b[0] - a[0]) },
    { id: "context", label: "Context of each user, tokens", kind: "range", min: 7, max: 17, step: 1,
      show: (v) => whole(2 ** v) },
    { id: "users", label: "Users at once", kind: "range", min: 0, max: 12, step: 1,
      show: (v) => whole(2 ** v) },
  ];
  const controls = element("div", { class: "ix-controls" });
  const words = element("p", { class: "ix-words", "aria-live": "polite" });
  const facts = element("dl", { class: "ix-answer" });
  stage.append(element("p", { class: "ix-title" }, "Memory of the KV cache"), controls, words, facts);
  let answer = answerOf(state, data, devices);
  const redraw = chart(stage, "", (svg, width) => draw(svg, width, answer, data.utilization));
  const handles = {};

  const update = () => {
    answer = answerOf(state, data, devices);
    for (const [key, handle] of Object.entries(handles)) handle.refresh(state[key]);
    words.textContent = sentence(answer);
    facts.replaceChildren(...rows(answer));
    redraw(`Memory, and users that fit by context. ${words.textContent}`);
  };
  for (const spec of specs) {
    handles[spec.id] = control("kv_memory", spec, state[spec.id], (key, value) => {
      state[key] = value;
      update();
      stateToAddress("kv_memory", state);
    });
    controls.append(handles[spec.id].box);
  }
  update();
}

function sentence(a) {
  if (a.weights > a.usable) {
    return `The weights alone, ${withUnit(a.weights, BYTES)}, do not fit into ${
      withUnit(a.usable, BYTES)}: take more devices or fewer bits a weight.`;
  }
  const long = a.context > a.model.max_context
    ? ` (This model's context ends at ${whole(a.model.max_context)}.)` : "";
  const need = `${whole(a.users)} ${a.users === 1 ? "user keeps" : "users keep"} ${
    withUnit(a.cache, BYTES)} beside ${withUnit(a.weights, BYTES)} of weights.`;
  const end = a.fits ? `There is room for ${whole(a.fit)}.`
    : `That is too much: there is room for ${whole(a.fit)}.`;
  return `${need} ${end}${long}`;
}

function rows(a) {
  const kib = (bytes) => `${three(bytes / 1024)} KiB`;
  const list = [
    ["users that fit", whole(a.fit), true],
    ["bytes a token", kib(a.perToken)],
    ["one user's cache", withUnit(a.one, BYTES)],
    ["all users' cache", withUnit(a.cache, BYTES)],
    ["weights", withUnit(a.weights, BYTES)],
    ["cache, share of a decode step's reads", `${three(100 * a.share)} %`],
  ];
  return list.map(([name, value, strong]) => element("div", { class: strong ? "ix-strong" : null },
    element("dt", {}, name), element("dd", { "data-fact": name }, value)));
}

function draw(svg, width, a, utilization) {
  const height = 356;
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  const text = (words, px, py, more = {}) => svg.append(
    shape("text", { x: px, y: py, "font-size": 12, ...more }, words));

  // The bar: weights, cache, and the memory that there is.
  const [left, right] = [4, width - 4];
  const most = Math.max(a.memory, a.weights + a.cache) * 1.02;
  const x = (bytes) => left + (bytes / most) * (right - left);
  const [top, tall] = [26, 30];
  const block = (from, to, kind, words) => {
    if (to <= from) return;
    svg.append(shape("rect", { class: kind, x: x(from), y: top, height: tall,
      width: Math.max(1, x(to) - x(from)) }));
    const room = x(to) - x(from);
    const shown = room > 7.2 * words.length ? words : "";
    text(shown, x(from) + room / 2, top + 47, { "text-anchor": "middle" });
  };
  block(0, a.weights, "ix-bar", "weights");
  block(a.weights, a.weights + a.cache, "ix-dot", "cache");
  for (const bytes of [a.usable, a.memory]) {
    svg.append(shape("line", { class: "ix-axis", x1: x(bytes), x2: x(bytes), y1: top - 6,
      y2: top + tall + 6 }));
  }
  const end = x(a.memory);
  text(`${withUnit(a.memory, BYTES)} of memory`, end, top - 11, {
    "text-anchor": end > 150 ? "end" : "start" });
  svg.append(shape("rect", { class: "ix-bar-cut", x: left, y: top, height: tall,
    width: Math.max(0, x(a.usable) - left) }));
  svg.append(shape("rect", { class: "ix-bar-cut", x: x(a.usable), y: top, height: tall,
    width: Math.max(0, x(a.memory) - x(a.usable)) }));

  // The curves: users that fit against the context, for three widths of the cache.
  const [gl, gr, gt, gb] = [46, width - 62, 122, height - 40];
  const [cs, us] = [[2 ** 7, 2 ** 17], [1, 1e5]];
  const along = (v, [low, high], from, to) => from
    + (Math.log(Math.min(Math.max(v, low), high) / low) / Math.log(high / low)) * (to - from);
  const gx = (v) => along(v, cs, gl, gr);
  const gy = (v) => along(v, us, gb, gt);
  for (let e = 7; e <= 17; e += width > 480 ? 2 : 5) {
    svg.append(shape("line", { x1: gx(2 ** e), x2: gx(2 ** e), y1: gt, y2: gb,
      class: "ix-gridline" }));
    text(whole(2 ** e), gx(2 ** e), gb + 16, { "text-anchor": "middle" });
  }
  for (let e = 0; e <= 5; e += 1) {
    svg.append(shape("line", { x1: gl, x2: gr, y1: gy(10 ** e), y2: gy(10 ** e),
      class: "ix-gridline" }));
    text(e < 5 ? whole(10 ** e) : "100k", gl - 6, gy(10 ** e) + 4, { "text-anchor": "end" });
  }
  text("users that fit", 0, gt - 12, { class: "ix-faint" });
  text("context of each user, tokens", (gl + gr) / 2, height - 6, {
    "text-anchor": "middle", class: "ix-faint" });
  for (const bits of [16, 8, 4]) {
    const points = [];
    for (let e = 7; e <= 17; e += 0.25) {
      const users = requestsThatFit(a.model, 2 ** e, a.memory, a.weightBits, bits, utilization);
      if (users >= 1) points.push([2 ** e, users]);
    }
    if (points.length === 0) continue;
    svg.append(shape("polyline", { class: bits === a.kvBits ? "ix-roof" : "ix-ghost",
      points: points.map(([c, u]) => `${gx(c)},${gy(u)}`).join(" ") }));
    const [c, u] = points[points.length - 1];
    text(`${bits} bit`, gx(c) + 6, gy(u) + { 16: 9, 8: 4, 4: -1 }[bits], bits === a.kvBits ? { "font-weight": 650 }
      : { class: "ix-faint" });
  }
  const [px, py] = [gx(a.context), gy(a.users)];
  svg.append(shape("circle", { class: a.fits ? "ix-dot" : "ix-dot2", r: 7, cx: px, cy: py }));
  const atRight = px < (gl + gr) / 2;
  text(a.fits ? "you: fits" : "you: too much", px + (atRight ? 12 : -12), py + 4, {
    "font-weight": 650, "text-anchor": atRight ? "start" : "end" });
}

fill("kv_memory", mount);
