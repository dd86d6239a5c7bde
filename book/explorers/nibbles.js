// A 32-bit word of eight 4-bit weights, unpacked by shift, mask and magic number, two weights at a
// time. The reader chooses in which order the weights were packed; the kernel always assumes
// 0, 2, 4, 6, 1, 3, 5, 7. tests/book/test_explorer_nibbles.py compares the functions up to `dot`
// with infero.kernels.steps.matmul.

import {
  chart, control, element, fill, shape, stateFromAddress, stateToAddress,
} from "./common.js";

/** The word whose nibble p holds values[order[p]], as an unsigned number. */
export function pack(values, order) {
  return order.reduce((word, at, p) => (word | (values[at] << (4 * p))) >>> 0, 0);
}

/** What shift 4k, mask and magic make of a word: numbers of 32 bits, unsigned. */
export function unpackStep(word, k) {
  const shifted = (word >>> (4 * k)) >>> 0;
  const masked = (shifted & 0x000f000f) >>> 0;
  const bits = (masked | 0x64006400) >>> 0;
  return { shifted, masked, bits, low: half(bits & 0xffff), high: half(bits >>> 16) };
}

/** The number of a float16 pattern (normal numbers). */
export function half(bits) {
  const sign = bits & 0x8000 ? -1 : 1;
  return sign * 2 ** (((bits >>> 10) & 31) - 15) * (1 + (bits & 1023) / 1024);
}

/** The eight numbers in the order in which the kernel takes them for weights 0 to 7. */
export function unpack(word) {
  return [0, 1, 2, 3].flatMap((k) => {
    const { low, high } = unpackStep(word, k);
    return [low - 1024, high - 1024];
  });
}

/** Sum of products after the first `pairs` shifts. */
export function dot(word, x, pairs = 4) {
  return unpack(word).slice(0, 2 * pairs).reduce((sum, w, i) => sum + w * x[i], 0);
}

// ------------------------------------------------------------------------- the page

const STAGES = ["shift", "mask", "magic", "numbers"];
const LAST = 4 * STAGES.length;
const PERIOD_MS = 1600;
const COLOURS = ["var(--infero-blue)", "var(--infero-orange)", "#00805d", "#a8508a"];

const hex = (word) => word.toString(16).toUpperCase().padStart(8, "0");
const num = (value) => (Object.is(value, -0) ? "0" : String(value)).replace("-", "−");

function mount(stage, data) {
  const orders = new Map(data.orders.map(([key, words, order]) => [key, { words, order }]));
  const asked = stateFromAddress("nibbles");
  const step = Number(asked.step);
  const state = {
    order: orders.has(asked.order) ? asked.order : data.orders[0][0],
    step: Number.isInteger(step) && step >= 0 && step <= LAST ? step : 0,
  };
  let timer = null;

  const controls = element("div", { class: "ix-controls" });
  const button = (text, label, run) => {
    const made = element("button", { type: "button", "aria-label": label }, text);
    made.addEventListener("click", run);
    return made;
  };
  const words = element("p", { class: "ix-words", "aria-live": "polite" });
  words.style.minHeight = "4.6em";
  const play = button("Play", "Play the steps", () => (timer ? pause() : start()));
  const back = button("◀ Step", "One step back", () => { pause(); go(state.step - 1); });
  const forward = button("Step ▶", "One step forward", () => { pause(); go(state.step + 1); });
  const first = button("Restart", "Back to the beginning", () => { pause(); go(0); });
  stage.append(element("p", { class: "ix-title" }, "Eight weights in a word"), controls,
    element("div", { class: "ix-buttons" }, play, back, forward, first), words);
  const redraw = chart(stage, "", (svg, width) => draw(svg, width, data, orders, state));
  stage.append(element("p", { class: "ix-words ix-note" },
    "Digits are hexadecimal, the highest bits on the left. Colour and number say which weight a "
    + "nibble holds. The kernel takes the two numbers of shift 4k for the weights 2k and 2k + 1."));

  const chosen = control("nibbles", {
    id: "order", label: "Packed in the order", kind: "select",
    options: data.orders.map(([key, text]) => [key, text]),
  }, state.order, (_, value) => { state.order = value; update(); keep(); });
  const slider = control("nibbles", {
    id: "step", label: "Step", kind: "range", min: 0, max: LAST, step: 1,
    show: (v) => `${v} of ${LAST}`,
  }, state.step, (_, value) => { pause(); go(Number(value)); });
  controls.append(chosen.box, slider.box);

  function start() {
    if (state.step >= LAST) go(0);
    play.textContent = "Pause";
    play.setAttribute("aria-label", "Pause the steps");
    timer = window.setInterval(() => {
      if (state.step >= LAST) pause(); else go(state.step + 1);
    }, PERIOD_MS);
  }
  function pause() {
    window.clearInterval(timer);
    timer = null;
    play.textContent = "Play";
    play.setAttribute("aria-label", "Play the steps");
  }
  function keep() { stateToAddress("nibbles", { order: state.order, step: state.step }); }
  function go(to) {
    state.step = Math.max(0, Math.min(LAST, to));
    update();
    keep();
  }
  function update() {
    slider.refresh(state.step);
    back.disabled = state.step === 0;
    forward.disabled = state.step === LAST;
    const said = told(data, orders.get(state.order).order, state.step);
    words.textContent = said;
    redraw(said);
  }
  update();
}

/** Where a step stands: the shift k, the stage within it, and pairs already multiplied. */
function place(step) {
  if (step === 0) return { k: -1, at: -1, done: 0 };
  const k = Math.floor((step - 1) / STAGES.length);
  const at = (step - 1) % STAGES.length;
  return { k, at, done: at === STAGES.length - 1 ? k + 1 : k };
}

/** The step in words. */
function told(data, order, step) {
  const word = pack(data.values, order);
  const { k, at, done } = place(step);
  if (k < 0) return `The weights ${data.values.join(", ")} are packed into the word ${hex(word)}.`;
  const { shifted, masked, bits, low, high } = unpackStep(word, k);
  const below = order[k];
  const above = order[k + 4];
  if (at === 0) return `Shift by ${4 * k}: nibbles ${k} and ${k + 4} are now the lowest of their halves. ${hex(shifted)}.`;
  if (at === 1) return `Mask with 000F000F: only weight ${below} (below) and weight ${above} (above) remain. ${hex(masked)}.`;
  if (at === 2) return `Or with 64006400: two float16 numbers, ${num(low)} and ${num(high)}. ${hex(bits)}.`;
  const wrong = below !== 2 * k || above !== 2 * k + 1;
  const now = dot(word, data.x, done);
  let said = `Subtract 1024: ${num(low - 1024)} meets x${2 * k} and ${num(high - 1024)} meets x${2 * k + 1}. Sum so far ${num(now)}.`;
  if (wrong) said += ` But they are weights ${below} and ${above}.`;
  if (done === 4) {
    const right = data.values.reduce((sum, w, i) => sum + w * data.x[i], 0);
    said += now === right ? " That is the right sum."
      : ` The right sum is ${num(right)}: nothing failed, and the result is wrong.`;
  }
  return said;
}

function draw(svg, width, data, orders, state) {
  const { order } = orders.get(state.order);
  const word = pack(data.values, order);
  const { k, at, done } = place(state.step);
  const text = (words, x, y, more = {}) => svg.append(
    shape("text", { x, y, "font-size": 13, ...more }, words));
  const middle = { "text-anchor": "middle" };
  const gap = Math.min(14, width / 40);
  const cell = Math.min(62, (width - gap) / 8);
  const left = 0;

  // One row of eight nibbles; `held` says which weight each one holds, or undefined.
  const row = (y, label, number, held) => {
    text(label, left, y - 7, { class: "ix-faint", "font-size": 12 });
    for (let p = 7; p >= 0; p -= 1) {
      const x = left + (7 - p) * cell + (p < 4 ? gap : 0);
      const weight = held(p);
      const tint = weight === undefined ? null : COLOURS[Math.floor(weight / 2)];
      svg.append(shape("rect", { x: x + 1, y, width: cell - 3, height: 40, rx: 4,
        style: tint ? `fill: ${tint}; fill-opacity: 0.24; stroke: ${tint}`
          : "fill: none; stroke: var(--pst-color-text-muted)" }));
      text(((number >>> (4 * p)) & 15).toString(16).toUpperCase(), x + cell / 2, y + 18,
        { ...middle, "font-weight": 650 });
      if (weight !== undefined) text(`w${weight}`, x + cell / 2, y + 34, { ...middle, "font-size": 11.5 });
    }
  };
  row(20, "the word, as packed", word, (p) => order[p]);
  let y = 92;
  if (k >= 0) {
    const { shifted, masked, bits } = unpackStep(word, k);
    const kept = (p) => (p === 0 ? order[k] : p === 4 ? order[k + 4] : undefined);
    const labels = [`shifted by ${4 * k}`, "masked with 000F000F", "or'ed with 64006400"];
    const number = at === 0 ? shifted : at === 1 ? masked : bits;
    row(y, labels[Math.min(at, 2)], number,
      at === 0 ? (p) => (p + k < 8 ? order[p + k] : undefined) : kept);
  } else {
    text("step forward to unpack it", left, y + 20, { class: "ix-faint" });
  }

  // What the kernel has made of it so far: a number for each x.
  y = 168;
  const taken = unpack(word);
  text("what each x has met", left, y - 7, { class: "ix-faint", "font-size": 12 });
  const columns = width < 430 ? 4 : 8;
  const w = Math.min(78, width / columns);
  data.x.forEach((x, i) => {
    const px = left + (i % columns) * w;
    const py = y + Math.floor(i / columns) * 66;
    const met = i < 2 * done;
    const weight = order[(i % 2) * 4 + Math.floor(i / 2)];
    const right = weight === i;
    const tint = COLOURS[Math.floor(weight / 2)];
    svg.append(shape("rect", { x: px + 1, y: py, width: w - 4, height: 58, rx: 4,
      style: met ? `fill: ${tint}; fill-opacity: 0.2; stroke: ${right ? tint : "var(--infero-orange)"};`
        + ` stroke-width: ${right ? 1 : 2.5}` : "fill: none; stroke: var(--pst-color-text-muted); stroke-dasharray: 3 2" }));
    text(`x${i} = ${num(x)}`, px + w / 2 - 1, py + 17, { ...middle, "font-size": 12 });
    if (met) {
      text(`× ${num(taken[i])}`, px + w / 2 - 1, py + 34, { ...middle, "font-weight": 650 });
      text(right ? `w${weight}` : `w${weight}, not w${i}`, px + w / 2 - 1, py + 50,
        { ...middle, "font-size": 11 });
    }
  });
  y += Math.ceil(8 / columns) * 66 + 20;
  const right = data.values.reduce((sum, value, i) => sum + value * data.x[i], 0);
  text(`sum: ${num(dot(word, data.x, done))}`, left, y, { "font-weight": 650 });
  const narrow = width < 430;
  if (narrow) y += 20;
  text(`of all eight weights with their own x: ${num(right)}`, narrow ? left : left + 110, y,
    { class: "ix-faint", "font-size": 12 });
  svg.setAttribute("viewBox", `0 0 ${width} ${y + 10}`);
}

fill("nibbles", mount);
