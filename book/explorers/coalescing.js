// What one load of a warp costs: 32 threads, the addresses that the reader's own index expression
// gives them, the sectors and lines of memory they touch, or the banks of shared memory. The functions up
// to `bankConflicts` are infero/kernels/steps/coalescing.py in JavaScript, name for name;
// tests/book/test_explorer_coalescing.py compares the two in a browser. The expression is read by the
// small parser below and never handed to JavaScript.

import { chart, control, element, fill, shape, stateFromAddress, stateToAddress } from "./common.js";

const [SECTOR, LINE, BANKS, BANK, WARP] = [32, 128, 32, 4, 32];

function touched(indexes, size, unit) {
  const found = new Set();
  for (const i of indexes) {
    const last = Math.floor(((i + 1) * size - 1) / unit);
    for (let at = Math.floor((i * size) / unit); at <= last; at += 1) found.add(at);
  }
  return found;
}

export function sectors(indexes, size) {
  return touched(indexes, size, SECTOR).size;
}

export function lines(indexes, size) {
  return touched(indexes, size, LINE).size;
}

export function efficiency(indexes, size) {
  return (new Set(indexes).size * size) / (sectors(indexes, size) * SECTOR);
}

export function bankConflicts(indexes, size = 4) {
  return Math.max(...wordsByBank(indexes, size).map((words) => words.length));
}

/** The different words that each bank is asked for. */
export function wordsByBank(indexes, size) {
  const banks = Array.from({ length: BANKS }, () => []);
  for (const word of [...touched(indexes, size, BANK)].sort((a, b) => a - b)) {
    banks[word % BANKS].push(word);
  }
  return banks;
}

// ------------------------------------------------------------------------- the expression

/** Words for what is wrong with an expression. */
export class Unreadable extends Error {}

const LEVELS = [["|"], ["^"], ["&"], ["<<", ">>"], ["+", "-"], ["*", "/", "//", "%"]];
const DO = {
  "|": (a, b) => a | b,
  "^": (a, b) => a ^ b,
  "&": (a, b) => a & b,
  "<<": (a, b) => a * 2 ** b,
  ">>": (a, b) => Math.floor(a / 2 ** b),
  "+": (a, b) => a + b,
  "-": (a, b) => a - b,
  "*": (a, b) => a * b,
  "/": (a, b) => Math.floor(a / b),
  "//": (a, b) => Math.floor(a / b),
  "%": (a, b) => a - b * Math.floor(a / b),
};

/** A function of t for an index expression in integers, as Python or C would write it. */
export function parse(text) {
  const tokens = [];
  const pattern = /\s*(?:(\d+)|([A-Za-z_]\w*)|(\/\/|<<|>>|[-+*/%&|^()]))/y;
  const inside = text.match(/^\s*x\[(.*)\]\s*$/)?.[1] ?? text; // people copy the whole x[...]
  const source = inside.replace(/threadIdx\.x/g, "t").trimEnd();
  if (!source.trim()) throw new Unreadable("Type an index, for example 2 * t.");
  while (pattern.lastIndex < source.length) {
    const at = pattern.lastIndex;
    const found = pattern.exec(source);
    if (!found) throw new Unreadable(`I cannot read “${source.slice(at).trim()[0]}”.`);
    tokens.push(found[1] ?? found[2] ?? found[3]);
  }
  let place = 0;
  const take = () => tokens[place++];
  const atom = () => {
    const token = take();
    if (token === undefined) throw new Unreadable("The expression stops too early.");
    if (token === "(") {
      const inner = level(0);
      if (take() !== ")") throw new Unreadable("A bracket is not closed.");
      return inner;
    }
    if (token === "-") {
      const inner = atom();
      return (t) => -inner(t);
    }
    if (/^\d/.test(token)) {
      const value = Number(token);
      return () => value;
    }
    if (["t", "lane", "tid"].includes(token)) return (t) => t;
    if (/^\w/.test(token)) {
      throw new Unreadable(`“${token}” is unknown: t is the thread, 0 to 31, and all else is numbers.`);
    }
    throw new Unreadable(`“${token}” stands where a number should be.`);
  };
  const level = (depth) => {
    if (depth === LEVELS.length) return atom();
    let left = level(depth + 1);
    while (LEVELS[depth].includes(tokens[place])) {
      const [run, before, right] = [DO[take()], left, level(depth + 1)];
      left = (t) => run(before(t), right(t));
    }
    return left;
  };
  const whole = level(0);
  if (place < tokens.length) throw new Unreadable(`“${tokens[place]}” stands where nothing should follow.`);
  return whole;
}

/** The 32 indexes of an expression. Throws Unreadable where there are none. */
export function indexesOf(text) {
  const of = parse(text);
  const found = Array.from({ length: WARP }, (_, t) => of(t));
  const bad = found.findIndex((i) => !Number.isInteger(i) || Math.abs(i) > 1e9);
  if (bad >= 0) throw new Unreadable(`Thread ${bad} gets no whole number: a division by 0, or beyond 10⁹?`);
  const low = found.findIndex((i) => i < 0);
  if (low >= 0) throw new Unreadable(`Thread ${low} asks for element ${found[low]}, before the array.`);
  return found;
}

// ------------------------------------------------------------------------- the page

const SIZES = ["1", "2", "4", "8", "16"];
const START = { expression: "2 * t", size: "4", mode: "global", thread: 0 };

function cleaned(found) {
  const state = { ...START };
  if (typeof found.expression === "string" && found.expression.length <= 60) {
    state.expression = found.expression;
  }
  if (SIZES.includes(found.size)) state.size = found.size;
  if (["global", "shared"].includes(found.mode)) state.mode = found.mode;
  const thread = Number(found.thread);
  if (Number.isInteger(thread) && thread >= 0 && thread < WARP) state.thread = thread;
  return state;
}

/** Everything the page says about one setting. */
export function answerOf(state) {
  const size = Number(state.size);
  try {
    const indexes = indexesOf(state.expression);
    return {
      indexes, size, error: "", thread: state.thread, mode: state.mode,
      sectors: sectors(indexes, size), lines: lines(indexes, size),
      share: efficiency(indexes, size), rounds: bankConflicts(indexes, size),
    };
  } catch (error) {
    if (!(error instanceof Unreadable)) throw error;
    return { error: error.message, size, thread: state.thread, mode: state.mode };
  }
}

function mount(stage, data) {
  const state = cleaned(stateFromAddress("coalescing"));
  const handles = {};
  const still = window.matchMedia("(prefers-reduced-motion: reduce)");
  let timer = null;

  const preset = control("coalescing", {
    id: "preset", label: "Pattern", kind: "select",
    options: [["", "your own"], ...data.presets.map((p, i) => [String(i), `${p.name}: ${p.words}`])],
  }, "", (_, value) => {
    const chosen = data.presets[Number(value)];
    if (value === "" || !chosen) return;
    state.expression = chosen.expression;
    state.size = String(chosen.bytes);
    if (chosen.name.startsWith("Shared")) state.mode = "shared";
    changed();
  });
  const id = "coalescing-expression";
  const box = element("input", {
    id, type: "text", value: state.expression, maxlength: 60, spellcheck: "false",
    autocomplete: "off", autocapitalize: "off", "aria-describedby": "coalescing-words",
    style: "font: 1rem var(--infero-mono, monospace); padding: 0.3rem 0.4rem; width: 100%; "
      + "border: 1px solid var(--pst-color-border); border-radius: 5px; "
      + "background: var(--pst-color-background); color: var(--pst-color-text-base)",
  });
  box.addEventListener("input", () => {
    state.expression = box.value;
    changed(false);
  });
  const typed = element("div", { class: "ix-control" },
    element("label", { for: id }, "Thread t reads x[ … ]"), box);
  const specs = [
    { id: "size", label: "Bytes of an element", kind: "select", options: SIZES.map((s) => [s, s]) },
    { id: "mode", label: "Memory", kind: "select",
      options: [["global", "global: sectors and lines"], ["shared", "shared: banks"]] },
    { id: "thread", label: "Look at thread", kind: "range", min: 0, max: 31, step: 1,
      show: (v) => String(v) },
  ];
  const controls = element("div", { class: "ix-controls" }, preset.box, typed);
  const play = element("button", { type: "button", "aria-pressed": "false" }, "Play");
  const step = element("button", { type: "button" }, "Step");
  const words = element("p", { class: "ix-words", id: "coalescing-words", "aria-live": "polite" });
  const facts = element("dl", { class: "ix-answer" });
  stage.append(element("p", { class: "ix-title" }, "What one load of a warp costs"), controls,
    element("div", { class: "ix-buttons" }, play, step), words, facts);
  let answer = answerOf(state);
  const redraw = chart(stage, "", (svg, width) => draw(svg, width, answer));

  const update = () => {
    answer = answerOf(state);
    for (const [key, handle] of Object.entries(handles)) handle.refresh(state[key]);
    const at = data.presets.findIndex((p) => p.expression === state.expression.trim()
      && String(p.bytes) === state.size);
    preset.refresh(at < 0 ? "" : String(at));
    box.setAttribute("aria-invalid", answer.error ? "true" : "false");
    words.textContent = answer.error || sentence(answer);
    facts.replaceChildren(...(answer.error ? [] : rows(answer)));
    redraw(answer.error ? "Nothing to draw." : `${sentence(answer)} ${about(answer)}`);
  };
  const changed = (write = true) => {
    if (write) box.value = state.expression;
    update();
    stateToAddress("coalescing", state);
  };
  const stop = () => {
    window.clearInterval(timer);
    timer = null;
    play.textContent = "Play";
    play.setAttribute("aria-pressed", "false");
  };
  const next = () => {
    state.thread = (state.thread + 1) % WARP;
    changed();
  };
  play.addEventListener("click", () => {
    if (timer !== null) {
      stop();
      return;
    }
    play.textContent = "Pause";
    play.setAttribute("aria-pressed", "true");
    timer = window.setInterval(() => {
      next();
      if (state.thread === WARP - 1) stop();
    }, still.matches ? 1200 : 350);
  });
  step.addEventListener("click", () => {
    stop();
    next();
  });
  for (const spec of specs) {
    handles[spec.id] = control("coalescing", spec, state[spec.id], (key, value) => {
      state[key] = value;
      changed();
    });
    controls.append(handles[spec.id].box);
  }
  update();
}

const whole = (n) => n.toLocaleString("en-US");
const plural = (n, word) => `${whole(n)} ${word}${n === 1 ? "" : "s"}`;

function sentence(a) {
  if (a.mode === "shared") {
    return a.rounds === 1 ? "No conflict: the 32 threads are served in one round."
      : `The busiest bank is asked for ${a.rounds} different words: ${a.rounds} rounds in the place of one.`;
  }
  const asked = new Set(a.indexes).size * a.size;
  return `The warp wants ${plural(asked, "byte")} and ${plural(a.sectors, "sector")} of ${SECTOR} move: ${
    whole(a.sectors * SECTOR)} bytes, ${three(100 * a.share)} % of them used.`;
}

function three(value) {
  return String(Number(value.toPrecision(3)));
}

/** What the chosen thread does. */
function about(a) {
  const i = a.indexes[a.thread];
  const byte = i * a.size;
  const where = a.mode === "shared"
    ? `bank ${Math.floor(byte / BANK) % BANKS}, word ${whole(Math.floor(byte / BANK))}`
    : `sector ${whole(Math.floor(byte / SECTOR))}, line ${whole(Math.floor(byte / LINE))}`;
  return `Thread ${a.thread} reads x[${whole(i)}]: byte ${whole(byte)}, ${where}.`;
}

function rows(a) {
  const list = a.mode === "shared"
    ? [["rounds", String(a.rounds), true],
      ["banks in use", String(wordsByBank(a.indexes, a.size).filter((w) => w.length).length)]]
    : [["sectors moved", String(a.sectors), true], ["lines touched", String(a.lines)],
      ["share used", `${three(100 * a.share)} %`],
      ["fewest possible", String(Math.ceil((new Set(a.indexes).size * a.size) / SECTOR))]];
  return list.map(([name, value, strong]) => element("div", { class: strong ? "ix-strong" : null },
    element("dt", {}, name), element("dd", { "data-fact": name }, value)));
}

function draw(svg, width, a) {
  if (a.error) {
    svg.setAttribute("viewBox", `0 0 ${width} 40`);
    return;
  }
  const text = (words, x, y, more = {}) => svg.append(
    shape("text", { x, y, "font-size": 12, ...more }, words));
  if (a.mode === "shared") drawBanks(svg, width, a, text);
  else drawLines(svg, width, a, text);
}

function drawLines(svg, width, a, text) {
  const most = 8;
  const all = [...touched(a.indexes, a.size, LINE)].sort((x, y) => x - y);
  const mine = touched([a.indexes[a.thread]], a.size, LINE);
  let first = 0;
  const at = all.findIndex((line) => mine.has(line));
  if (at >= most) first = Math.min(at, all.length - most);
  const shown = all.slice(first, first + most);
  const [row, tall, gap] = [40, 18, width > 520 ? 8 : 4];
  const height = 34 + shown.length * row + 22;
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  const sector = (width - 3 * gap - 4) / 4;
  const cell = sector / 8;
  const wanted = touched(a.indexes, a.size, BANK);
  const own = touched([a.indexes[a.thread]], a.size, BANK);
  const moved = touched(a.indexes, a.size, SECTOR);
  text(about(a), 2, 14, { "data-thread": a.thread });
  shown.forEach((line, k) => {
    const y = 34 + k * row;
    text(`bytes ${whole(line * LINE)} to ${whole(line * LINE + LINE - 1)}`, 2, y + 2,
      { "font-size": 11, class: "ix-faint" });
    for (let s = 0; s < 4; s += 1) {
      const x = 2 + s * (sector + gap);
      const hit = moved.has(line * 4 + s);
      for (let c = 0; c < 8; c += 1) {
        const word = line * 32 + s * 8 + c;
        const [px, py] = [x + c * cell, y + 7];
        if (wanted.has(word)) {
          svg.append(shape("rect", { class: "ix-bar", x: px, y: py, width: cell, height: tall,
            opacity: own.has(word) ? 1 : 0.55 }));
        }
        if (own.has(word)) {
          svg.append(shape("circle", { class: "ix-dot", cx: px + cell / 2, cy: py + tall / 2,
            r: Math.min(5, cell / 2) }));
        }
        if (c > 0) {
          svg.append(shape("line", { class: "ix-gridline", x1: px, x2: px, y1: py, y2: py + tall }));
        }
      }
      svg.append(shape("rect", { class: hit ? "ix-before" : "ix-bar-cut", x, y: y + 7,
        width: sector, height: tall, "data-sector": hit ? "moved" : "left" }));
    }
  });
  const rest = all.length - shown.length;
  text(rest > 0 ? `${plural(rest, "more line")}; framed sectors are moved, filled words are wanted`
    : "framed sectors are moved, filled words are wanted", 2, height - 6,
  { "font-size": 11, class: "ix-faint" });
}

function drawBanks(svg, width, a, text) {
  const banks = wordsByBank(a.indexes, a.size);
  const deep = Math.max(...banks.map((words) => words.length));
  const tall = deep > 16 ? 8 : deep > 8 ? 12 : 18;
  const [top, cell] = [30, (width - 4) / BANKS];
  const height = top + deep * tall + 44;
  const base = top + deep * tall;
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  text(about(a), 2, 14, { "data-thread": a.thread });
  const own = touched([a.indexes[a.thread]], a.size, BANK);
  banks.forEach((words, b) => {
    const x = 2 + b * cell;
    words.forEach((word, k) => {
      const y = base - (k + 1) * tall;
      svg.append(shape("rect", { class: "ix-bar", x: x + 1, y: y + 1, width: cell - 2,
        height: tall - 2, opacity: own.has(word) ? 1 : 0.55, "data-bank": b }));
      if (own.has(word)) {
        svg.append(shape("circle", { class: "ix-dot", cx: x + cell / 2, cy: y + tall / 2,
          r: Math.min(5, tall / 2, cell / 2) }));
      }
    });
    svg.append(shape("line", { class: "ix-axis", x1: x + 1, x2: x + cell - 1, y1: base + 1,
      y2: base + 1 }));
    if (b % (width > 520 ? 4 : 8) === 0 || b === BANKS - 1) {
      text(String(b), x + cell / 2, base + 15, { "text-anchor": "middle", "font-size": 11 });
    }
  });
  text("bank of 4 bytes; each box is a different word that it is asked for", 2, height - 6,
    { "font-size": 11, class: "ix-faint" });
}

fill("coalescing", mount);
