// A recorded run of the engine's block pool, played step by step. The frames come from the real engine
// (block_table.py writes them to block_table.json); the functions up to `problems` work out what is
// drawn from the block tables alone, and tests/book/test_explorer_block_table.py compares them with
// infero.cache.pool and with the engine's own counts.

import {
  chart, control, element, fill, shape, stateFromAddress, stateToAddress,
} from "./common.js";

/** Slot of each of the n tokens from position `start`: infero.cache.pool.slots_of. */
export function slotsOf(table, start, n, blockSize) {
  return Array.from({ length: n }, (_, i) => start + i)
    .map((p) => table[Math.floor(p / blockSize)] * blockSize + (p % blockSize));
}

/** For each block the ids of the requests whose table holds it, in the order of the tables. */
export function owners(frame, numBlocks) {
  const found = Array.from({ length: numBlocks }, () => []);
  for (const [id, table] of Object.entries(frame.tables)) {
    for (const block of table) found[block].push(id);
  }
  return found;
}

/** For each block how many of its slots hold a token that somebody can still use. */
export function filled(frame, numBlocks, blockSize) {
  const count = frame.named.map((named) => (named ? blockSize : 0));
  for (const [id, table] of Object.entries(frame.tables)) {
    for (const slot of slotsOf(table, 0, frame.tokens[id], blockSize)) {
      const block = Math.floor(slot / blockSize);
      count[block] = Math.max(count[block], (slot % blockSize) + 1);
    }
  }
  return count.slice(0, numBlocks);
}

/** What is wrong with a frame, in words: nothing, or the engine has a bug. */
export function problems(frame, numBlocks) {
  const said = [];
  owners(frame, numBlocks).forEach((ids, block) => {
    if (ids.length !== frame.refs[block]) said.push(`block ${block} counts ${frame.refs[block]} owners`);
    if ((ids.length === 0) !== frame.free.includes(block)) said.push(`block ${block} is misplaced`);
  });
  return said;
}

// ------------------------------------------------------------------------- the page

const COLOURS = {
  A: "var(--infero-blue)", B: "var(--infero-orange)", "C:0": "#00805d", "C:1": "#a8508a",
  D: "#946200", E: "#5b6bbf",
};
const colour = (id) => COLOURS[id] ?? "var(--pst-color-text-muted)";
const PERIOD_MS = 2600;

function mount(stage, data) {
  const { frames, num_blocks: numBlocks, block_size: blockSize } = data;
  const last = frames.length - 1;
  const asked = Number(stateFromAddress("block_table").step);
  const state = { step: Number.isInteger(asked) && asked >= 0 && asked <= last ? asked : 0 };
  let timer = null;

  const controls = element("div", { class: "ix-controls" });
  const button = (text, label, run) => {
    const made = element("button", { type: "button", "aria-label": label }, text);
    made.addEventListener("click", run);
    return made;
  };
  const words = element("p", { class: "ix-words", "aria-live": "polite" });
  const play = button("Play", "Play the run", () => (timer ? pause() : start()));
  const back = button("◀ Step", "One step back", () => { pause(); go(state.step - 1); });
  const forward = button("Step ▶", "One step forward", () => { pause(); go(state.step + 1); });
  const first = button("Restart", "Back to the beginning", () => { pause(); go(0); });
  stage.append(element("p", { class: "ix-title" },
    `The block pool, step by step: ${numBlocks} blocks of ${blockSize} tokens`),
  controls, element("div", { class: "ix-buttons" }, play, back, forward, first), words);
  words.style.minHeight = "4.6em";
  const redraw = chart(stage, "", (svg, width) => draw(svg, width, data, state.step));
  stage.append(element("p", { class: "ix-words ix-note" },
    "A block's dots are its tokens; its stripes are its owners, by letter and colour. # marks a block "
    + "that is full and can be found by its content. Blocks are taken from the left end of the free queue."));

  const slider = control("block_table", {
    id: "step", label: "Step", kind: "range", min: 0, max: last, step: 1,
    show: (v) => `${v} of ${last}`,
  }, state.step, (_, value) => { pause(); go(Number(value)); });
  controls.append(slider.box);

  function start() {
    if (state.step >= last) go(0);
    play.textContent = "Pause";
    play.setAttribute("aria-label", "Pause the run");
    timer = window.setInterval(() => {
      if (state.step >= last) pause(); else go(state.step + 1);
    }, PERIOD_MS);
  }
  function pause() {
    window.clearInterval(timer);
    timer = null;
    play.textContent = "Play";
    play.setAttribute("aria-label", "Play the run");
  }
  function go(step) {
    state.step = Math.max(0, Math.min(last, step));
    update();
    stateToAddress("block_table", { step: state.step });
  }
  function update() {
    const frame = frames[state.step];
    slider.refresh(state.step);
    back.disabled = state.step === 0;
    forward.disabled = state.step === last;
    const wrong = problems(frame, numBlocks);
    words.textContent = `${frame.step}. ${frame.words.join(" ")}${wrong.length ? ` (${wrong[0]})` : ""}`;
    redraw(`Step ${frame.step}. ${described(frame)}`);
  }
  update();
}

/** A frame for those who do not see it. */
function described(frame) {
  const tables = Object.entries(frame.tables)
    .map(([id, table]) => `${id} holds blocks ${table.join(", ")}`);
  return `${tables.length ? tables.join("; ") : "No request runs"}. Free queue, next first: ${
    frame.free.length ? frame.free.join(", ") : "empty"}.`;
}

function draw(svg, width, data, step) {
  const { num_blocks: numBlocks, block_size: blockSize } = data;
  const frame = data.frames[step];
  const before = data.frames[Math.max(0, step - 1)];
  const owned = owners(frame, numBlocks);
  const count = filled(frame, numBlocks, blockSize);
  const copied = new Set(frame.copies.map((copy) => copy.target));
  const text = (words, x, y, more = {}) => svg.append(
    shape("text", { x, y, "font-size": 12.5, ...more }, words));
  const heading = (words, y) => text(words, 0, y, { class: "ix-faint", "font-size": 12 });

  // The pool: five blocks a row, or ten where there is room.
  const columns = width < 560 ? 5 : numBlocks;
  const gap = 8;
  const w = Math.min(86, (width - gap * (columns - 1)) / columns);
  const h = 80;
  heading("the pool", 12);
  let top = 20;
  for (let b = 0; b < numBlocks; b += 1) {
    const x = (b % columns) * (w + gap);
    const y = top + Math.floor(b / columns) * (h + gap);
    block(svg, { x, y, w, h, b, ids: owned[b], count: count[b], frame, before, blockSize,
      copied: copied.has(b) });
  }
  top += Math.ceil(numBlocks / columns) * (h + gap) + 18;

  // The block tables, one row a request; room for four rows, so that nothing jumps.
  heading("block tables", top);
  const ids = Object.keys(frame.tables).sort();
  const rows = Math.max(3, ...data.frames.map((f) => Object.keys(f.tables).length));
  const chip = Math.min(34, (width - 150) / 6 - 4);
  ids.forEach((id, i) => {
    const y = top + 10 + i * 32;
    svg.append(shape("rect", { x: 1, y, width: 33, height: 24, rx: 4,
      style: `fill: ${colour(id)}; fill-opacity: 0.26; stroke: ${colour(id)}` }));
    text(id, 17, y + 17, { "text-anchor": "middle", "font-weight": 650 });
    frame.tables[id].forEach((b, k) => {
      const x = 44 + k * (chip + 4);
      const fresh = !(before.tables[id] ?? []).includes(b);
      svg.append(shape("rect", { x, y, width: chip, height: 24, rx: 4,
        style: `fill: none; stroke: ${colour(id)}; stroke-width: ${fresh ? 3 : 1.2}` }));
      text(String(b), x + chip / 2, y + 17, { "text-anchor": "middle",
        "font-weight": fresh ? 700 : 400 });
    });
    text(`${frame.tokens[id]} tokens`, 52 + frame.tables[id].length * (chip + 4), y + 17,
      { class: "ix-faint", "font-size": 12 });
  });
  if (!ids.length) text("no request runs", 0, top + 27, { "font-size": 12.5 });
  if (frame.waiting.length) {
    text(`waiting: ${frame.waiting.join(", ")}`, 0, top + 27 + Math.max(ids.length, 1) * 32,
      { "font-size": 12.5, "font-weight": 650 });
  }
  top += 10 + rows * 32 + 32;

  // The free queue.
  heading(`free queue: ${frame.free.length ? "the left one is taken next" : "empty"}`, top);
  const slot = Math.min(44, (width - 4 * (numBlocks - 1)) / numBlocks);
  frame.free.forEach((b, k) => {
    const x = k * (slot + 4);
    svg.append(shape("rect", { x, y: top + 9, width: slot, height: 26, rx: 4,
      style: `fill: ${frame.named[b] ? "var(--infero-grid)" : "none"}; stroke: var(--pst-color-text-muted);`
        + (frame.named[b] ? "" : " stroke-dasharray: 3 2") }));
    text(`${b}${frame.named[b] ? "#" : ""}`, x + slot / 2, top + 27, { "text-anchor": "middle" });
  });
  const height = top + 42;
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
}

/** One block of the pool: its number, its tokens, its owners' stripes, its name. */
function block(svg, { x, y, w, h, b, ids, count, frame, before, blockSize, copied }) {
  const named = frame.named[b];
  const changed = frame.refs[b] !== before.refs[b] || frame.names[b] !== before.names[b];
  const free = ids.length === 0;
  const stripe = (h - 22) / Math.max(1, ids.length); // the dots have the rest
  ids.forEach((id, i) => {
    svg.append(shape("rect", { x, y: y + i * stripe, width: w,
      height: i === ids.length - 1 ? h - i * stripe : stripe,
      style: `fill: ${colour(id)}; fill-opacity: 0.26` }));
    svg.append(shape("text", { x: x + 6, y: y + i * stripe + Math.min(17, stripe - 3),
      "font-size": ids.length > 2 ? 11 : 12.5, "font-weight": 650 }, id));
  });
  svg.append(shape("rect", { x, y, width: w, height: h, rx: 5,
    style: `fill: none; stroke: ${changed ? "var(--infero-orange)" : "var(--pst-color-text-muted)"};`
      + ` stroke-width: ${changed ? 2.5 : 1};${free && !named ? " stroke-dasharray: 4 3" : ""}` }));
  svg.append(shape("text", { x: x + w - 6, y: y + 16, "font-size": 12.5, "text-anchor": "end",
    "font-weight": 650 }, `${b}${named ? "#" : ""}`));
  if (copied) {
    svg.append(shape("text", { x: x + w - 6, y: y + 32, "font-size": 11, "text-anchor": "end" }, "copy"));
  }
  for (let i = 0; i < blockSize; i += 1) {
    svg.append(shape("circle", { cx: x + ((i + 0.5) * w) / blockSize, cy: y + h - 11, r: 4.2,
      style: i < count
        ? `fill: var(--pst-color-text-base); fill-opacity: ${free ? 0.45 : 1}`
        : "fill: none; stroke: var(--pst-color-text-muted)" }));
  }
}

fill("block_table", mount);
