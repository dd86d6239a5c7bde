// What the explorers share: controls with labels, a state that lives in the page's address, an SVG
// that is drawn again at the width it has, so that its words keep their size on a phone.

const SVG = "http://www.w3.org/2000/svg";

/** An HTML element: tag, attributes, children (nodes or strings). */
export function element(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) {
    if (value !== undefined && value !== null && value !== false) node.setAttribute(key, value);
  }
  node.append(...children);
  return node;
}

/** An SVG element; a string child becomes its text. */
export function shape(tag, attributes = {}, text = "") {
  const node = document.createElementNS(SVG, tag);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  if (text) node.textContent = text;
  return node;
}

/** The state in `#name?key=value&…`, or an empty object when the address is not of this explorer. */
export function stateFromAddress(name) {
  const [head, query] = decodeURI(window.location.hash.slice(1)).split("?");
  return head === name && query ? Object.fromEntries(new URLSearchParams(query)) : {};
}

/** Put the state into the address without a new entry in the history. */
export function stateToAddress(name, state) {
  const query = new URLSearchParams(state).toString();
  window.history.replaceState(null, "", `#${name}?${query}`);
}

/**
 * A labelled control. `spec`: {id, label, kind: "select", options: [[value, text]]} or
 * {id, label, kind: "range", min, max, step, show: value => text}. Calls `changed(id, value)`.
 */
export function control(prefix, spec, value, changed) {
  const id = `${prefix}-${spec.id}`;
  const label = element("label", { for: id }, spec.label);
  let input;
  let output;
  if (spec.kind === "select") {
    input = element("select", { id, name: spec.id });
    for (const [key, text] of spec.options) input.append(element("option", { value: key }, text));
    input.value = value;
    input.addEventListener("change", () => changed(spec.id, input.value));
  } else {
    input = element("input", {
      id, name: spec.id, type: "range", min: spec.min, max: spec.max, step: spec.step,
    });
    input.value = value;
    output = element("output", { for: id });
    label.append(output);
    input.addEventListener("input", () => changed(spec.id, Number(input.value)));
  }
  const box = element("div", { class: "ix-control" }, label, input);
  const refresh = (now) => {
    input.value = now;
    if (output) {
      output.textContent = spec.show(now);
      input.setAttribute("aria-valuetext", spec.show(now));
    }
  };
  refresh(value);
  return { box, input, refresh };
}

/** Draw with `draw(svg, width)` now and whenever the width changes. Returns a function to redraw. */
export function chart(parent, label, draw) {
  const svg = shape("svg", { role: "img", "aria-label": label });
  parent.append(svg);
  let width = 0;
  const redraw = () => {
    width = Math.max(280, Math.round(parent.clientWidth - 36));
    svg.replaceChildren();
    draw(svg, width);
  };
  new ResizeObserver(() => {
    if (Math.abs(parent.clientWidth - 36 - width) > 1) redraw();
  }).observe(parent);
  return (words) => {
    if (words) svg.setAttribute("aria-label", words);
    redraw();
  };
}

/** Fetch NAME.json beside this module. */
export async function load(name) {
  const answer = await fetch(new URL(`./${name}.json`, import.meta.url));
  if (!answer.ok) throw new Error(`${name}.json: ${answer.status}`);
  return answer.json();
}

/** Fill the explorer `name` of the page, if it has one, and mark it ready. */
export async function fill(name, mount) {
  const place = document.querySelector(`[data-explorer="${name}"]`);
  if (!place) return;
  const stage = place.querySelector(".infero-explorer-stage");
  try {
    const data = await load(name);
    stage.hidden = false;
    mount(stage, data);
    place.dataset.ready = "true";
  } catch (error) {
    stage.hidden = false;
    stage.textContent = `The chart could not start (${error.message}). The table below still holds.`;
    place.querySelector("details").open = true;
  }
}

/** A number with three significant digits and thousands marks. */
export function three(value) {
  if (!Number.isFinite(value)) return "∞";
  const digits = Number(value.toPrecision(3));
  return digits.toLocaleString("en-US", { maximumSignificantDigits: 3 });
}

/** `value` with the first unit in which it is below 1000; `units`: [[size, name], …] ascending. */
export function withUnit(value, units) {
  const fit = units.find(([size]) => Math.abs(value) < 1000 * size) ?? units[units.length - 1];
  return `${three(value / fit[0])} ${fit[1]}`;
}

export const BYTES = [[1, "B"], [1e3, "kB"], [1e6, "MB"], [1e9, "GB"], [1e12, "TB"]];
export const SECONDS = [[1e-9, "ns"], [1e-6, "µs"], [1e-3, "ms"], [1, "s"]];
