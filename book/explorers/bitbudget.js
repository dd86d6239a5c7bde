// A budget of bits shared out among a model's matrices by their measured sensitivity. Chapter 5. The
// knapsack is that of infero.quant.sensitivity.choose, with the whole table kept, so that moving
// the budget only means reading another column.

import { BYTES, chart, control, element, fill, shape, stateFromAddress, stateToAddress, three,
  withUnit } from "./common.js";

// ----------------------------------------------------------------------- formula

const gcd = (a, b) => (b === 0 ? a : gcd(b, a % b));

/**
 * The table of the knapsack. costs[i][o]: what matrix i costs with options[o] bits; sizes: weights.
 * best[room] is the least cost within `room` units of bits, pick[i][room] the option it takes last.
 */
export function solve(costs, sizes, options) {
  const unit = sizes.reduce(gcd);
  const small = sizes.map((size) => size / unit);
  const most = small.reduce((a, b) => a + b, 0) * Math.max(...options);
  let best = new Float64Array(most + 1);
  const pick = costs.map(() => new Int8Array(most + 1).fill(-1));
  costs.forEach((row, i) => {
    const next = new Float64Array(most + 1).fill(Infinity);
    options.forEach((bits, o) => {
      const need = small[i] * bits;
      for (let room = need; room <= most; room += 1) {
        const cost = best[room - need] + row[o];
        if (cost < next[room]) {
          next[room] = cost;
          pick[i][room] = o;
        }
      }
    });
    best = next;
  });
  return { best, pick, small, options, most, total: small.reduce((a, b) => a + b, 0) };
}

/** Bits of each matrix for an average budget, or null where even the fewest bits are too many. */
export function plan(table, budget) {
  let room = Math.min(table.most, Math.floor(budget * table.total + 1e-9));
  if (!Number.isFinite(table.best[room])) return null;
  const bits = new Array(table.pick.length);
  for (let i = bits.length - 1; i >= 0; i -= 1) {
    const option = table.pick[i][room];
    bits[i] = table.options[option];
    room -= table.small[i] * bits[i];
  }
  return bits;
}

/** The same as infero's `choose`, from scratch. */
export function choose(costs, sizes, options, budget) {
  return plan(solve(costs, sizes, options), budget);
}

/** What a plan costs by the sum of its parts. */
export function costOf(costs, options, bits) {
  return costs.reduce((sum, row, i) => sum + row[options.indexOf(bits[i])], 0);
}

/** The same bits for all, as many as fit. */
export function uniform(costs, options, budget) {
  const bits = options.filter((b) => b <= budget + 1e-9).at(-1);
  return bits === undefined ? null : costs.map(() => bits);
}

// ------------------------------------------------------------------------- the page

const STEP = 0.05;
const START = { budget: 3.5, by: "knapsack" };
const RULES = { knapsack: "by sensitivity (knapsack)", uniform: "the same for all" };

function cleaned(found, options) {
  const state = { ...START };
  const budget = Math.round(Number(found.budget) / STEP) * STEP;
  if (found.budget !== undefined && budget >= options[0] && budget <= options.at(-1)) {
    state.budget = Number(budget.toFixed(2));
  }
  if (found.by in RULES) state.by = found.by;
  return state;
}

/** Everything the page says about one setting. */
export function answerOf(state, data, table) {
  const costs = data.matrices.map((row) => row[3]);
  const sizes = data.matrices.map((row) => row[2]);
  const bits = state.by === "knapsack" ? plan(table, state.budget)
    : uniform(costs, data.options, state.budget);
  const total = sizes.reduce((a, b) => a + b, 0);
  const used = sizes.reduce((sum, size, i) => sum + size * bits[i], 0) / total;
  const near = data[state.by === "knapsack" ? "plans" : "uniform"]
    .find(([budget]) => Math.abs(budget - (state.by === "knapsack" ? state.budget : used)) < STEP / 2);
  return {
    bits, used, total, near, budget: state.budget, by: state.by,
    bytes: (total * (used + data.scale_bits)) / 8,
    predicted: costOf(costs, data.options, bits),
    counts: data.options.map((b) => bits.filter((each) => each === b).length),
  };
}

function mount(stage, data) {
  const costs = data.matrices.map((row) => row[3]);
  const table = solve(costs, data.matrices.map((row) => row[2]), data.options);
  const state = cleaned(stateFromAddress("bitbudget"), data.options);
  const specs = [
    { id: "budget", label: "Budget, bits a weight", kind: "range", min: data.options[0],
      max: data.options.at(-1), step: STEP, show: (v) => Number(v).toFixed(2) },
    { id: "by", label: "Bits are shared out", kind: "select", options: Object.entries(RULES) },
  ];
  const controls = element("div", { class: "ix-controls" });
  const words = element("p", { class: "ix-words", "aria-live": "polite" });
  const facts = element("dl", { class: "ix-answer" });
  stage.append(element("p", { class: "ix-title" }, "A budget of bits"), controls, words, facts);
  let answer = answerOf(state, data, table);
  const redraw = chart(stage, "", (svg, width) => draw(svg, width, answer, data, table));
  const handles = {};
  const update = () => {
    answer = answerOf(state, data, table);
    for (const [key, handle] of Object.entries(handles)) handle.refresh(state[key]);
    words.textContent = sentence(answer, data);
    facts.replaceChildren(...rows(answer, data));
    redraw(`Bits of each matrix, and the KL over the budget. ${words.textContent}`);
  };
  for (const spec of specs) {
    handles[spec.id] = control("bitbudget", spec, state[spec.id], (key, value) => {
      state[key] = key === "budget" ? Number(Number(value).toFixed(2)) : value;
      update();
      stateToAddress("bitbudget", state);
    });
    controls.append(handles[spec.id].box);
  }
  update();
}

function sentence(a, data) {
  const parts = data.options.map((b, i) => [a.counts[i], b]).filter(([n]) => n > 0)
    .map(([n, b]) => `${n} with ${b} bits`);
  const measured = a.near ? ` Measured: ${three(a.near[1])}.` : "";
  return `Of ${a.bits.length} matrices: ${parts.join(", ")}. The sum of their costs predicts a KL `
    + `of ${three(a.predicted)} nats a token.${measured}`;
}

function rows(a, data) {
  const none = "not measured here";
  const list = [
    ["KL predicted", `${three(a.predicted)} nats`, true],
    ["KL measured", a.near ? `${three(a.near[1])} nats` : none],
    [`perplexity (${three(data.base_perplexity)} unquantized)`, a.near ? three(a.near[2]) : none],
    ["bits a weight", three(a.used)],
    ["with scales", three(a.used + data.scale_bits)],
    ["size of the layers", withUnit(a.bytes, BYTES)],
  ];
  return list.map(([name, value, strong]) => element("div", { class: strong ? "ix-strong" : null },
    element("dt", {}, name), element("dd", { "data-fact": name }, value)));
}

function draw(svg, width, a, data, table) {
  const height = 484;
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  const text = (words, px, py, more = {}) => svg.append(
    shape("text", { x: px, y: py, "font-size": 12, ...more }, words));

  // The map: a column a layer, a row a kind of matrix, a bar as high as its bits.
  const layers = 1 + Math.max(...data.matrices.map((row) => row[0]));
  const [left, top, tall] = [62, 26, 34];
  const cell = (width - left - 4) / layers;
  const most = data.options.at(-1);
  text("bits of each matrix", 0, 13, { class: "ix-faint" });
  data.names.forEach((name, r) => {
    text(name, left - 8, top + r * (tall + 6) + tall / 2 + 4, { "text-anchor": "end" });
  });
  data.matrices.forEach(([layer, name], i) => {
    const y = top + data.names.indexOf(name) * (tall + 6);
    const high = (tall * a.bits[i]) / most;
    svg.append(shape("rect", { class: "ix-bar-cut", x: left + layer * cell, y, height: tall,
      width: Math.max(1, cell - 1) }));
    svg.append(shape("rect", { class: "ix-bar", x: left + layer * cell, y: y + tall - high,
      height: high, width: Math.max(1, cell - 1) }));
    if (cell > 13) {
      text(`${a.bits[i]}`, left + (layer + 0.5) * cell, y + 11, { "text-anchor": "middle",
        "font-size": 11 });
    }
  });
  const under = top + data.names.length * (tall + 6) + 10;
  for (let layer = 0; layer < layers - (cell > 13 ? 0 : 5); layer += 5) {
    text(`${layer}`, left + (layer + 0.5) * cell, under, { "text-anchor": "middle" });
  }
  text("layer", width - 4, under, { "text-anchor": "end", class: "ix-faint" });

  // The curve: KL over the budget.
  const [gl, gr, gt, gb] = [48, width - 14, under + 38, height - 74];
  const [low, high] = [data.options[0], most];
  const all = [...data.plans, ...data.uniform].map((row) => row[1]);
  const floor = 10 ** Math.floor(Math.log10(Math.max(1e-5, Math.min(...all, table.best[table.most]))));
  const ceiling = 10 ** Math.ceil(Math.log10(Math.max(...all, table.best[low * table.total])));
  const gx = (budget) => gl + ((budget - low) / (high - low)) * (gr - gl);
  const gy = (kl) => gb - (Math.log(Math.min(Math.max(kl, floor), ceiling) / floor)
    / Math.log(ceiling / floor)) * (gb - gt);
  text("KL, nats a token", 0, gt - 12, { class: "ix-faint" });
  text("average bits a weight, without scales", (gl + gr) / 2, gb + 34, {
    "text-anchor": "middle", class: "ix-faint" });
  for (let kl = floor; kl <= ceiling * 1.01; kl *= 10) {
    svg.append(shape("line", { class: "ix-gridline", x1: gl, x2: gr, y1: gy(kl), y2: gy(kl) }));
    text(`${Number(kl.toPrecision(1))}`, gl - 6, gy(kl) + 4, { "text-anchor": "end" });
  }
  for (let b = low; b <= high; b += 1) {
    svg.append(shape("line", { class: "ix-gridline", x1: gx(b), x2: gx(b), y1: gt, y2: gb }));
    text(`${b}`, gx(b), gb + 16, { "text-anchor": "middle" });
  }
  const points = [];
  for (let b = low; b <= high + 1e-9; b += 0.05) {
    points.push(`${gx(b)},${gy(table.best[Math.min(table.most, Math.floor(b * table.total + 1e-9))])}`);
  }
  svg.append(shape("polyline", { class: "ix-roof", points: points.join(" ") }));
  for (const [b, kl] of data.plans) {
    svg.append(shape("circle", { class: "ix-dot", r: 4.5, cx: gx(b), cy: gy(kl) }));
  }
  for (const [b, kl] of data.uniform) {
    svg.append(shape("rect", { class: "ix-dot2", x: gx(b) - 4.5, y: gy(kl) - 4.5, width: 9,
      height: 9 }));
  }
  const keys = ["line: predicted", "● plan, measured",
    ...(data.uniform.length ? ["□ same bits, measured"] : [])];
  const wide = width > 480;
  text(wide ? keys.join("     ") : keys.slice(0, 2).join("     "), (gl + gr) / 2,
    wide ? height - 8 : height - 20, { "text-anchor": "middle" });
  if (!wide && keys[2]) text(keys[2], (gl + gr) / 2, height - 4, { "text-anchor": "middle" });
  const [px, py] = [gx(a.budget), gy(a.predicted)];
  svg.append(shape("line", { class: "ix-axis", x1: px, x2: px, y1: gt, y2: gb }));
  svg.append(shape("circle", { class: "ix-ring", r: 8, cx: px, cy: py, fill: "none",
    stroke: "currentColor", "stroke-width": 2 }));
}

fill("bitbudget", mount);
