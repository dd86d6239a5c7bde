// The token budget: what a long prompt costs the readers beside it, and what chunks cost the prompt.
// `stepTime` is infero.simulate.RooflineCost and `arrival` what the scheduler does with one prompt
// beside decoding requests; tests/book/test_explorer_token_budget.py compares both in a browser.

import {
  SECONDS, chart, control, element, fill, shape, stateFromAddress, stateToAddress, withUnit,
} from "./common.js";
import { activationBytes, kvBytes, stepFlops, weightBytes } from "./roofline.js";

/** Seconds of one step. `spans`: [how many requests, new tokens of each, context of each]. */
export function stepTime(model, device, share, spans) {
  let moved = weightBytes(model, 16);
  let flops = 0;
  for (const [batch, fresh, context] of spans) {
    moved += kvBytes(model, batch, fresh, context, 16) + activationBytes(model, batch, fresh);
    flops += stepFlops(model, batch, fresh, context);
  }
  return Math.max(flops / (share * device.peak_flops_per_s.bf16),
    moved / (share * device.bandwidth_bytes_per_s));
}

/**
 * The steps while a prompt is computed beside `readers` that decode: [{fresh, timeS}, …]. The
 * readers' caches hold `context` tokens in the first step. A budget of Infinity: no chunks.
 */
export function arrival(model, device, share, { readers, context, prompt, budget }) {
  const steps = [];
  for (let done = 0; done < prompt;) {
    const fresh = Math.min(prompt - done, budget - readers);
    done += fresh;
    const spans = [[1, fresh, done]];
    if (readers > 0) spans.push([readers, 1, context + steps.length]);
    steps.push({ fresh, timeS: stepTime(model, device, share, spans) });
  }
  return steps;
}

/** The prompt's time to first token and the readers' longest gap, in seconds. */
export function outcome(steps) {
  const times = steps.map((step) => step.timeS);
  return { ttftS: times.reduce((sum, time) => sum + time, 0), gapS: Math.max(...times),
    steps: steps.length };
}

// ------------------------------------------------------------------------- the page

const BUDGETS = [128, 192, 256, 320, 384, 512, 768, 1024, 1536, 2048, 4096, 8192, Infinity];
const START = { budget: 5, readers: 32, context: 10, prompt: 13 };
const LIMITS = { budget: [0, 12], readers: [0, 96], context: [7, 13], prompt: [9, 15] };
const whole = (value) => value.toLocaleString("en-US");
const budgetWords = (index) => (Number.isFinite(BUDGETS[index]) ? whole(BUDGETS[index])
  : "no chunks");

function cleaned(found) {
  const state = { ...START };
  for (const [key, [low, high]] of Object.entries(LIMITS)) {
    const value = Math.round(Number(found[key]));
    if (found[key] !== undefined && value >= low && value <= high) state[key] = value;
  }
  return state;
}

function mount(stage, data) {
  const { model, device, share } = data;
  const state = cleaned(stateFromAddress("token_budget"));
  const power = (v) => whole(2 ** v);
  const specs = [
    { id: "budget", label: "Token budget of a step", kind: "range", min: 0, max: 12, step: 1,
      show: budgetWords },
    { id: "prompt", label: "Prompt that arrives, tokens", kind: "range", min: 9, max: 15, step: 1,
      show: power },
    { id: "readers", label: "Requests that decode", kind: "range", min: 0, max: 96, step: 4,
      show: whole },
    { id: "context", label: "Context of each, tokens", kind: "range", min: 7, max: 13, step: 1,
      show: power },
  ];
  const controls = element("div", { class: "ix-controls" });
  const handles = {};
  const words = element("p", { class: "ix-words", "aria-live": "polite" });
  const answer = element("dl", { class: "ix-answer" });
  stage.append(element("p", { class: "ix-title" }, "A long prompt beside readers"), controls, words,
    answer);
  const steps = (budget) => arrival(model, device, share, {
    readers: state.readers, context: 2 ** state.context, prompt: 2 ** state.prompt, budget });
  const redraw = chart(stage, "", (svg, width) => draw(svg, width, steps, state));
  const update = () => {
    for (const [key, handle] of Object.entries(handles)) handle.refresh(state[key]);
    const here = outcome(steps(BUDGETS[state.budget]));
    const plain = outcome(steps(Infinity));
    words.textContent = `${model.name} on ${device.name}: the readers' longest gap is ${
      withUnit(here.gapS, SECONDS)}, and the prompt's first token comes after ${
      withUnit(here.ttftS, SECONDS)}. Without chunks: ${withUnit(plain.gapS, SECONDS)} and ${
      withUnit(plain.ttftS, SECONDS)}.`;
    const decode = state.readers
      ? stepTime(model, device, share, [[state.readers, 1, 2 ** state.context]]) : 0;
    const facts = [
      ["longest gap of a reader", state.readers ? withUnit(here.gapS, SECONDS) : "nobody reads",
        true],
      ["the prompt's first token", withUnit(here.ttftS, SECONDS), true],
      ["steps it takes", whole(here.steps)],
      ["a step that only decodes", state.readers ? withUnit(decode, SECONDS) : "none"],
    ];
    answer.replaceChildren(...facts.map(([name, value, strong]) => element("div",
      { class: strong ? "ix-strong" : null }, element("dt", {}, name),
      element("dd", { "data-fact": name }, value))));
    redraw(`Step times over time. ${words.textContent}`);
  };
  for (const spec of specs) {
    handles[spec.id] = control("token_budget", spec, state[spec.id], (key, value) => {
      state[key] = value;
      update();
      stateToAddress("token_budget", state);
    });
    controls.append(handles[spec.id].box);
  }
  update();
}

/** Each step as a bar as wide and as high as it is long; dots: every budget's gap and TTFT. */
function draw(svg, width, steps, state) {
  const height = 300;
  const [left, right, top, bottom] = [56, width - 14, 26, height - 42];
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  const text = (words, px, py, more = {}) => svg.append(
    shape("text", { x: px, y: py, "font-size": 12, ...more }, words));
  const all = BUDGETS.map((budget) => outcome(steps(budget)));
  const longest = Math.max(...all.map((one) => one.ttftS));
  const [low, high] = [0.004, Math.max(...all.map((one) => one.gapS)) * 1.4];
  const x = (s) => left + (s / longest) * (right - left) * 0.97;
  const y = (s) => bottom - (Math.log(Math.max(s, low) / low) / Math.log(high / low))
    * (bottom - top);
  for (const s of [0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5].filter((v) => v < high)) {
    svg.append(shape("line", { x1: left, x2: right, y1: y(s), y2: y(s), class: "ix-gridline" }));
    text(withUnit(s, SECONDS), left - 7, y(s) + 4, { "text-anchor": "end" });
  }
  const unit = 10 ** Math.floor(Math.log10(longest));
  const tick = longest / unit > 5 ? 2 * unit : longest / unit > 2 ? unit : unit / 2;
  for (let s = 0; s <= longest; s += tick) {
    text(withUnit(s, SECONDS).replace(/^0 .*/, "0"), x(s), bottom + 16, { "text-anchor": "middle" });
  }
  text("gap before a reader's token (a step's time)", 0, 12, { class: "ix-faint" });
  text("time after the prompt arrives", (left + right) / 2,
    height - 6, { "text-anchor": "middle", class: "ix-faint" });
  let at = 0;
  for (const step of steps(BUDGETS[state.budget])) {
    const wide = x(at + step.timeS) - x(at);
    svg.append(shape("rect", { class: "ix-bar", x: x(at), y: y(step.timeS),
      width: Math.max(0.5, wide - (wide > 3 ? 1 : 0)), height: bottom - y(step.timeS) }));
    at += step.timeS;
  }
  all.forEach((one, index) => {
    const here = index === state.budget;
    svg.append(shape("circle", { class: here ? "ix-dot" : "ix-dot2", r: here ? 7.5 : 3.5,
      cx: x(one.ttftS), cy: y(one.gapS) }));
  });
}

fill("token_budget", mount);
