// Number lines of int8, E4M3, E5M2, int4 and NF4: where a sample of weights lands when an outlier,
// chosen by the reader, sets the scale. The functions up to `judge` are compared with infero's in
// tests/book/test_explorer_numberline.py.

import {
  chart, control, element, fill, shape, stateFromAddress, stateToAddress, three,
} from "./common.js";

/** Whole numbers of `bits` bits, symmetric, as shares of the largest: from -1 to 1. */
export function wholeGrid(bits) {
  const top = 2 ** (bits - 1) - 1;
  return Array.from({ length: 2 * top + 1 }, (_, i) => (i - top) / top);
}

/** The numbers of a small float up to `largest`, as shares of it, ascending, both signs. */
export function floatGrid(exponentBits, mantissaBits, largest) {
  const bias = 2 ** (exponentBits - 1) - 1;
  const steps = 2 ** mantissaBits;
  const numbers = [];
  for (let m = 1; m < steps; m += 1) numbers.push((m / steps) * 2 ** (1 - bias));
  for (let e = 1; e < 2 ** exponentBits; e += 1) {
    for (let m = 0; m < steps; m += 1) numbers.push((1 + m / steps) * 2 ** (e - bias));
  }
  const kept = numbers.filter((x) => x <= largest).map((x) => x / largest);
  return [...kept.map((x) => -x).reverse(), 0, ...kept];
}

/** The grids of all formats, each from -1 to 1. */
export function grids(nf4) {
  return {
    int8: wholeGrid(8),
    e4m3: floatGrid(4, 3, 448),
    e5m2: floatGrid(5, 2, 57344),
    int4: wholeGrid(4),
    nf4,
  };
}

/** The number of an ascending grid, stretched to `largest`, that is nearest to x. */
export function nearest(x, grid, largest) {
  const at = x / largest;
  let low = 0;
  let high = grid.length - 1;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (grid[middle] <= at) low = middle; else high = middle;
  }
  return (at - grid[low] <= grid[high] - at ? grid[low] : grid[high]) * largest;
}

/** Where the sample lands beside an outlier (null: none), its error, and how many become 0. */
export function judge(sample, outlier, grid) {
  const all = outlier === null ? sample : [...sample, outlier];
  const largest = Math.max(...all.map(Math.abs));
  const landed = sample.map((x) => nearest(x, grid, largest));
  const squares = sample.map((x, i) => (landed[i] - x) ** 2);
  const error = Math.sqrt(squares.reduce((a, b) => a + b, 0) / sample.length);
  const lost = landed.filter((x, i) => x === 0 && sample[i] !== 0).length;
  return { largest, landed, error, lost };
}

// ------------------------------------------------------------------------- the page

const VIEWS = { near: "the weights, −3.5 σ to 3.5 σ", zero: "around 0, −0.5 σ to 0.5 σ",
  all: "everything, with the outlier" };
const START = { outlier: 0, view: "near" };
const TOP = 100;

/** The outlier of a slider position, in standard deviations; null at 0. */
export function outlierAt(position) {
  return position === 0 ? null : 3 * 10 ** (position / 50);
}

const percent = (error) => `${three(100 * error)} %`;
const sigma = (v) => (v === 0 ? "none" : `${three(outlierAt(v))} σ`);

function cleaned(found) {
  const state = { ...START };
  const at = Math.round(Number(found.outlier));
  if (found.outlier !== undefined && at >= 0 && at <= TOP) state.outlier = at;
  if (found.view in VIEWS) state.view = found.view;
  return state;
}

function mount(stage, data) {
  const state = cleaned(stateFromAddress("numberline"));
  const all = grids(data.nf4);
  const controls = element("div", { class: "ix-controls" });
  const words = element("p", { class: "ix-words", "aria-live": "polite" });
  const facts = element("dl", { class: "ix-answer" });
  words.style.minHeight = "3.2em";
  stage.append(element("p", { class: "ix-title" }, "Where the numbers lie"), controls, words, facts);
  const redraw = chart(stage, "", (svg, width) => draw(svg, width, data, all, state));
  stage.append(element("p", { class: "ix-words ix-note" },
    `Dots: ${data.sample.length} weights of standard deviation σ. Strokes: the format's numbers when `
    + "its largest is put on the largest weight. Lines join each weight with the number it becomes."));
  const specs = [
    { id: "outlier", label: "Outlier", kind: "range", min: 0, max: TOP, step: 1, show: sigma },
    { id: "view", label: "Show", kind: "select", options: Object.entries(VIEWS) },
  ];
  const handles = {};
  for (const spec of specs) {
    handles[spec.id] = control("numberline", spec, state[spec.id], (key, value) => {
      state[key] = value;
      update();
      stateToAddress("numberline", state);
    });
    controls.append(handles[spec.id].box);
  }
  function update() {
    for (const [key, handle] of Object.entries(handles)) handle.refresh(state[key]);
    const found = Object.entries(all).map(([key, grid]) => [
      key, judge(data.sample, outlierAt(state.outlier), grid)]);
    const best = [...found].sort((a, b) => a[1].error - b[1].error)[0][0];
    facts.replaceChildren(...found.map(([key, { error, lost }]) => element("div",
      { class: key === best ? "ix-strong" : null },
      element("dt", {}, data.names[key]), element("dd", {}, percent(error)),
      element("dd", { style: "font-weight: 400; font-size: 0.8rem" },
        lost ? `${lost} become 0` : "none lost"))));
    const eight = Object.fromEntries(found);
    const said = `${state.outlier === 0 ? "Without an outlier" : `With an outlier of ${sigma(state.outlier)}`} `
      + `the weights' error is ${percent(eight.int8.error)} of σ in int8 and ${
        percent(eight.e4m3.error)} in E4M3. The least error has ${data.names[best]}.`;
    words.textContent = said;
    redraw(said);
  }
  update();
}

function draw(svg, width, data, all, state) {
  const outlier = outlierAt(state.outlier);
  const left = 2;
  const right = width - 2;
  const top = outlier === null ? 0 : outlier;
  const limits = { near: [-3.5, 3.5], zero: [-0.5, 0.5], all: [-4, Math.max(4, top * 1.04)] };
  const [from, to] = limits[state.view];
  const px = (x) => left + ((x - from) / (to - from)) * (right - left);
  const inside = (x) => x >= from && x <= to;
  const text = (words, x, y, more = {}) => svg.append(
    shape("text", { x, y, "font-size": 12.5, ...more }, words));
  const line = (x1, y1, x2, y2, more) => svg.append(shape("line", { x1, y1, x2, y2, ...more }));
  let y = 18;
  for (const [key, grid] of Object.entries(all)) {
    const { largest, landed, error } = judge(data.sample, outlier, grid);
    text(data.names[key], left, y, { "font-weight": 650 });
    const points = grid.map((g) => g * largest).filter(inside);
    text(`${points.length} numbers in view, error ${percent(error)}`, right, y,
      { class: "ix-faint", "text-anchor": "end", "font-size": 12 });
    const dots = y + 13;
    const base = y + 44;
    line(left, base, right, base, { class: "ix-axis" });
    const dense = points.length > width / 3;
    for (const g of points) {
      line(px(g), base - 11, px(g), base, {
        style: `stroke: var(--infero-blue); stroke-width: ${dense ? 0.6 : 1.4}` });
    }
    data.sample.forEach((x, i) => {
      if (!inside(x)) return;
      const end = Math.max(from, Math.min(to, landed[i]));
      line(px(x), dots, px(end), base - 12, {
        style: "stroke: var(--infero-orange); stroke-width: 0.8; opacity: 0.75" });
      svg.append(shape("circle", { cx: px(x), cy: dots, r: 2.4,
        style: "fill: var(--infero-orange)" }));
    });
    if (outlier !== null && inside(outlier)) {
      svg.append(shape("circle", { cx: px(outlier), cy: dots, r: 4, class: "ix-dot2" }));
      line(px(outlier), dots + 4, px(outlier), base - 12, { class: "ix-drop" });
    }
    y += 74;
  }
  const step = [0.25, 1, 2, 5, 10, 20, 50, 100].find((s) => (to - from) / s <= Math.max(4, width / 75)) ?? 200;
  for (let k = Math.ceil(from / step); k * step <= to; k += 1) {
    const words = k === 0 ? "0" : `${three(k * step)} σ`.replace("-", "−");
    const x = px(k * step);
    const anchor = x < 24 ? "start" : x > width - 24 ? "end" : "middle";
    text(words, x, y - 12, { class: "ix-faint", "text-anchor": anchor, "font-size": 12 });
  }
  svg.setAttribute("viewBox", `0 0 ${width} ${y - 4}`);
}

fill("numberline", mount);
