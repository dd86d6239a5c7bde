// FlashAttention tile by tile: one row of queries walks over tiles of keys and keeps a maximum, a sum
// and an accumulator. The functions up to `walk` are infero.kernels.steps.attention.blockwise and
// attention_io in JavaScript; tests/book/test_explorer_flash.py compares the two in a browser.

import {
  chart, control, element, fill, shape, stateFromAddress, stateToAddress, three,
} from "./common.js";

/** One past the last key that the queries of a tile may see. */
export function keysSeen(tile, rows, n) {
  return Math.min(n, (tile + 1) * rows);
}

/** The tiles [i, j] that are computed, in the order of the programs. */
export function tilesOf(n, rows, keys) {
  const found = [];
  for (let i = 0; i < Math.ceil(n / rows); i += 1) {
    for (let j = 0; j < Math.ceil(keysSeen(i, rows, n) / keys); j += 1) found.push([i, j]);
  }
  return found;
}

/** Bytes read and written after `done` tiles: queries once, keys and values a tile, results once. */
export function movedAfter(done, n, rows, keys, dim, width) {
  const order = tilesOf(n, rows, keys);
  const moved = { read: 0, written: 0 };
  order.slice(0, done).forEach(([i, j], at) => {
    const mine = Math.min(rows, n - i * rows);
    if (j === 0) moved.read += mine * dim * width;
    moved.read += 2 * Math.min(keys, n - j * keys) * dim * width;
    const last = at + 1 === order.length || order[at + 1][0] !== i;
    if (last) moved.written += mine * dim * width;
  });
  return moved;
}

/** Bytes of the way that writes scores and weights to memory. */
export function naiveBytes(n, dim, width) {
  return (4 * n * dim + 4 * n * n) * width;
}

/**
 * Maximum, sum, factor and accumulator of one query after each tile of keys that its program visits;
 * `hidden` counts the keys of the tile that the mask hides.
 */
export function walk(data, query, n, rows, keys) {
  const steps = [];
  let m = -Infinity;
  let total = 0;
  let acc = new Array(data.dim).fill(0);
  const end = keysSeen(Math.floor(query / rows), rows, n);
  for (let start = 0; start < end; start += keys) {
    const scores = [];
    for (let j = start; j < Math.min(start + keys, n); j += 1) {
      const dot = data.q[query].reduce((sum, x, d) => sum + x * data.k[j][d], 0);
      scores.push(j <= query ? dot * data.scale : -Infinity);
    }
    const next = Math.max(m, ...scores);
    const shrink = Math.exp(m - next);
    const weights = scores.map((s) => Math.exp(s - next));
    total = total * shrink + weights.reduce((a, b) => a + b, 0);
    acc = acc.map((a, d) => a * shrink
      + weights.reduce((sum, w, i) => sum + w * data.v[start + i][d], 0));
    m = next;
    steps.push({ start, scores, weights, m, shrink, total, acc: [...acc],
      hidden: scores.filter((s) => s === -Infinity).length });
  }
  return steps;
}

// ------------------------------------------------------------------------- the page

const PERIOD_MS = 1400;
const START = { n: 48, rows: 16, keys: 8, query: 44, step: 1 };

function cleaned(found, data) {
  const state = { ...START };
  const number = (key) => Number(found[key]);
  if (data.lengths.includes(number("n"))) state.n = number("n");
  if (data.tiles.includes(number("rows"))) state.rows = number("rows");
  if (data.tiles.includes(number("keys"))) state.keys = number("keys");
  for (const key of ["query", "step"]) {
    if (Number.isInteger(number(key)) && number(key) >= 0) state[key] = number(key);
  }
  return state;
}

function mount(stage, data) {
  const state = cleaned(stateFromAddress("flash"), data);
  let timer = null;
  const controls = element("div", { class: "ix-controls" });
  const words = element("p", { class: "ix-words", "aria-live": "polite" });
  words.style.minHeight = "6em";
  const button = (text, label, run) => {
    const made = element("button", { type: "button", "aria-label": label }, text);
    made.addEventListener("click", run);
    return made;
  };
  const play = button("Play", "Play the walk", () => (timer ? pause() : start()));
  const back = button("◀ Tile", "One tile back", () => { pause(); set("step", state.step - 1); });
  const forward = button("Tile ▶", "One tile forward", () => { pause(); set("step", state.step + 1); });
  const first = button("Restart", "Back to the beginning", () => { pause(); set("step", 0); });
  stage.append(element("p", { class: "ix-title" }, "FlashAttention, tile by tile"), controls,
    element("div", { class: "ix-buttons" }, play, back, forward, first), words);
  const facts = element("dl", { class: "ix-answer" });
  stage.append(facts);
  const redraw = chart(stage, "", (svg, width) => draw(svg, width, data, state));
  stage.append(element("p", { class: "ix-words ix-note" },
    "Each square of the grid is a tile of the score matrix. Filled: done; slashed: the causal mask cuts it; "
    + "dots: skipped. The bars are the accumulator over the sum, the result so far, of the chosen query."));
  const ticks = (values) => ({ min: 0, max: values.length - 1, step: 1, show: (v) => String(values[v]) });
  const specs = [
    { id: "n", label: "Tokens", kind: "range", ...ticks(data.lengths), values: data.lengths },
    { id: "rows", label: "Queries a tile", kind: "range", ...ticks(data.tiles), values: data.tiles },
    { id: "keys", label: "Keys a tile", kind: "range", ...ticks(data.tiles), values: data.tiles },
    { id: "query", label: "Query to follow", kind: "range", min: 0, max: 63, step: 1, show: String },
    { id: "step", label: "Tiles done in all", kind: "range", min: 0, max: 100, step: 1, show: String },
  ];
  const handles = {};

  function last() {
    return tilesOf(state.n, state.rows, state.keys).length;
  }
  /** How many tiles are done when the chosen query's program begins. */
  function before() {
    const tile = Math.floor(state.query / state.rows);
    return tilesOf(state.n, state.rows, state.keys).filter(([i]) => i < tile).length;
  }
  function start() {
    if (state.step >= last()) set("step", before());
    play.textContent = "Pause";
    play.setAttribute("aria-label", "Pause the walk");
    timer = window.setInterval(() => {
      if (state.step >= last()) pause(); else set("step", state.step + 1);
    }, PERIOD_MS);
  }
  function pause() {
    window.clearInterval(timer);
    timer = null;
    play.textContent = "Play";
    play.setAttribute("aria-label", "Play the walk");
  }
  function set(key, value) {
    state[key] = value;
    if (key === "query" || key === "rows" || key === "keys" || key === "n") {
      state.query = Math.min(state.query, state.n - 1);
      state.step = before() + 1;
    }
    update();
    stateToAddress("flash", state);
  }
  function update() {
    state.query = Math.max(0, Math.min(state.n - 1, state.query));
    state.step = Math.max(0, Math.min(last(), state.step));
    for (const spec of specs) {
      const handle = handles[spec.id];
      if (spec.id === "query") handle.input.max = state.n - 1;
      if (spec.id === "step") handle.input.max = last();
      handle.refresh(spec.values ? spec.values.indexOf(state[spec.id]) : state[spec.id]);
    }
    back.disabled = state.step === 0;
    forward.disabled = state.step === last();
    const now = standing(data, state);
    words.textContent = sentence(now, state);
    facts.replaceChildren(...rowsOf(now));
    redraw(`Tiles of the score matrix. ${words.textContent}`);
  }
  for (const spec of specs) {
    const value = spec.values ? spec.values.indexOf(state[spec.id]) : state[spec.id];
    handles[spec.id] = control("flash", spec, value, (key, raw) => {
      pause();
      set(key, spec.values ? spec.values[raw] : raw);
    });
    controls.append(handles[spec.id].box);
  }
  if (stateFromAddress("flash").step === undefined) state.step = before() + 3;
  update();
}

/** Everything the page says about one state. */
export function standing(data, state) {
  const { n, rows, keys, query, step } = state;
  const order = tilesOf(n, rows, keys);
  const tile = Math.floor(query / rows);
  const mine = order.slice(0, step).filter(([i]) => i === tile).length;
  const steps = walk(data, query, n, rows, keys);
  const moved = movedAfter(step, n, rows, keys, data.dim, data.width);
  return { order, tile, mine, steps, at: mine ? steps[mine - 1] : null, moved,
    total: movedAfter(order.length, n, rows, keys, data.dim, data.width),
    naive: naiveBytes(n, data.dim, data.width), all: Math.ceil(n / rows) * Math.ceil(n / keys) };
}

const kib = (bytes) => `${three(bytes / 1024)} KiB`;

function sentence(s, state) {
  const where = `${state.step} of ${s.order.length} tiles are done (${s.all - s.order.length} are skipped).`;
  if (!s.at) return `${where} The program of query ${state.query}, tile row ${s.tile}, has not begun.`;
  const keys = `keys ${s.at.start} to ${s.at.start + s.at.scores.length - 1}`;
  const mask = s.at.hidden ? `, ${s.at.hidden} of them hidden by the mask` : "";
  const head = `${where} Query ${state.query}, tile ${s.mine} of ${s.steps.length}: ${keys}${mask}.`;
  if (s.mine === 1) return `${head} The first tile sets the maximum to ${three(s.at.m)}.`;
  return s.at.shrink < 1
    ? `${head} The maximum grows to ${three(s.at.m)}: sum and accumulator are multiplied by ${three(s.at.shrink)}.`
    : `${head} The maximum stays ${three(s.at.m)}: the factor is 1.`;
}

function rowsOf(s) {
  const list = [
    ["maximum m", s.at ? three(s.at.m) : "−∞"],
    ["factor", s.at ? three(s.at.shrink) : "–"],
    ["sum ℓ", s.at ? three(s.at.total) : "0"],
    ["log of the sum, m + log ℓ", s.at ? three(s.at.m + Math.log(s.at.total)) : "−∞"],
    ["moved so far", kib(s.moved.read + s.moved.written), true],
    ["moved in the end", kib(s.total.read + s.total.written)],
    ["with the scores in memory", kib(s.naive)],
  ];
  return list.map(([name, value, strong]) => element("div", { class: strong ? "ix-strong" : null },
    element("dt", {}, name), element("dd", { "data-fact": name }, value)));
}

function draw(svg, width, data, state) {
  const s = standing(data, state);
  const { n, rows, keys, query } = state;
  const side = Math.min(300, width);
  const cell = side / n;
  const wide = width >= 560;
  const text = (words, x, y, more = {}) => svg.append(
    shape("text", { x, y, "font-size": 12, ...more }, words));
  const top = 34;
  text("keys →", 0, 14, { class: "ix-faint" });
  text("queries ↓", 0, 28, { class: "ix-faint" });
  const done = new Set(s.order.slice(0, state.step).map(([i, j]) => `${i},${j}`));
  const current = state.step ? s.order[state.step - 1].join() : "";
  for (let i = 0; i < Math.ceil(n / rows); i += 1) {
    for (let j = 0; j < Math.ceil(n / keys); j += 1) {
      const x = j * keys * cell;
      const y = top + i * rows * cell;
      const w = Math.min(keys, n - j * keys) * cell;
      const h = Math.min(rows, n - i * rows) * cell;
      const seen = j * keys < keysSeen(i, rows, n);
      const cut = seen && (j + 1) * keys - 1 > i * rows;
      const here = `${i},${j}`;
      const face = done.has(here) ? "var(--infero-blue)" : "none";
      svg.append(shape("rect", { x, y, width: w, height: h, style:
        `fill: ${face}; fill-opacity: ${here === current ? 0.95 : 0.45}; stroke: var(--pst-color-text-muted);`
        + ` stroke-width: ${seen ? 1 : 0.4}` }));
      if (cut) {
        svg.append(shape("line", { x1: x, y1: y, x2: x + w, y2: y + h,
          style: "stroke: var(--pst-color-text-base); stroke-width: 1" }));
      }
      if (!seen) text("·", x + w / 2, y + h / 2 + 4, { "text-anchor": "middle", class: "ix-faint" });
    }
  }
  svg.append(shape("rect", { x: 0, y: top + query * cell, width: (query + 1) * cell,
    height: Math.max(2.5, cell), style: "fill: var(--infero-orange); fill-opacity: 0.55; stroke: var(--infero-orange)" }));
  text(`query ${query}`, side + 4 > width - 60 ? side - 4 : side + 6, top + query * cell + 5, {
    "text-anchor": side + 4 > width - 60 ? "end" : "start", "font-weight": 650 });

  // The result so far, as bars, and the weights of the tile.
  const left = wide ? side + 72 : 0;
  const room = width - left;
  const y0 = wide ? top : top + side + 26;
  text("result so far, a / ℓ", left, y0, { class: "ix-faint" });
  const middle = y0 + 62;
  const out = s.at ? s.at.acc.map((a) => a / s.at.total) : new Array(data.dim).fill(0);
  const final = s.steps[s.steps.length - 1];
  const bar = room / data.dim;
  const tall = 46 / Math.max(...final.acc.map((a) => Math.abs(a / final.total)), ...out.map(Math.abs));
  out.forEach((value, d) => {
    const h = Math.abs(value) * tall;
    svg.append(shape("rect", { x: left + d * bar + 1, y: value > 0 ? middle - h : middle, height: Math.max(0.5, h),
      width: bar - 2, style: "fill: var(--infero-blue); fill-opacity: 0.8" }));
    const end = (final.acc[d] / final.total) * tall;
    svg.append(shape("line", { x1: left + d * bar + 1, x2: left + (d + 1) * bar - 1, y1: middle - end,
      y2: middle - end, style: "stroke: var(--infero-orange); stroke-width: 2" }));
  });
  svg.append(shape("line", { class: "ix-axis", x1: left, x2: left + room, y1: middle, y2: middle }));
  text("lines: the result in the end", left, middle + 66, { class: "ix-faint", "font-size": 11.5 });
  const wTop = middle + 96;
  text(s.at ? `weights of keys ${s.at.start} to ${s.at.start + s.at.scores.length - 1}` : "weights of the tile",
    left, wTop, { class: "ix-faint" });
  const base = wTop + 70;
  const each = room / Math.max(8, keys);
  (s.at ? s.at.weights : []).forEach((value, k) => {
    const hidden = s.at.scores[k] === -Infinity;
    svg.append(shape("rect", { x: left + k * each + 1, y: base - 56 * value, width: each - 2,
      height: Math.max(0.5, 56 * value), style: "fill: var(--infero-orange); fill-opacity: 0.75" }));
    if (hidden) text("×", left + (k + 0.5) * each, base - 4, { "text-anchor": "middle", class: "ix-faint" });
  });
  svg.append(shape("line", { class: "ix-axis", x1: left, x2: left + room, y1: base, y2: base }));
  text("e^(s − m); × is hidden by the mask", left, base + 17, { class: "ix-faint", "font-size": 11.5 });
  const height = Math.max(top + side + 10, base + 28);
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
}

fill("flash", mount);
