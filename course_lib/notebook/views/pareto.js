import { calmly, field, h, onWidth, readable, s, show } from "./shared.js";

const STEPS = 200; // of the limit's slider; the last one means "no limit"

// ---- The arithmetic of pareto.py; tests/test_pareto_view.py compares the two.

/** Positions of the points [cost, score] that nobody beats, from the cheapest to the dearest. */
function front(points) {
  const order = points.map((_, i) => i).sort((a, b) => points[a][0] - points[b][0] || points[b][1] - points[a][1] || a - b);
  const kept = [];
  for (const i of order) {
    const last = points[kept.at(-1)];
    if (!last || points[i][1] > last[1] || (points[i][0] === last[0] && points[i][1] === last[1])) kept.push(i);
  }
  return kept;
}

/** The highest score that costs at most `limit`; the cheaper one of two equals; null if there is none. */
function bestWithin(points, limit) {
  let best = null;
  points.forEach(([cost, score], i) => {
    if (cost > limit) return;
    if (best === null || score > points[best][1] || (score === points[best][1] && cost < points[best][0])) best = i;
  });
  return best;
}

/** The paired difference over the seeds: mean and 95 % interval. */
function difference(one, other, t) {
  const gaps = one.map((value, i) => value - other[i]);
  const mean = gaps.reduce((sum, gap) => sum + gap, 0) / gaps.length;
  const variance = gaps.reduce((sum, gap) => sum + (gap - mean) ** 2, 0) / (gaps.length - 1);
  const half = t * Math.sqrt(variance / gaps.length);
  return { mean, low: mean - half, high: mean + half };
}

const isAlike = (gap) => gap.low <= 1e-9 && gap.high >= -1e-9;

function verdict(gap, digits) {
  const [mean, low, high] = [gap.mean, gap.low, gap.high].map((value) => (value > 0 ? "+" : "") + readable(value, digits));
  return `${mean} [${low}, ${high}]: ${isAlike(gap) ? "not distinguishable" : gap.low > 0 ? "better" : "worse"}`;
}

// ---- Scales.

function scale(lowest, highest, log) {
  const [from, to] = log ? [Math.log(lowest / 1.25), Math.log(highest * 1.25)] : [0, highest * 1.06];
  return {
    at: (value) => ((log ? Math.log(value) : value) - from) / (to - from),
    value: (part) => (log ? Math.exp(from + part * (to - from)) : from + part * (to - from)),
    ticks: log ? decades(Math.exp(from), Math.exp(to)) : round(from, to),
  };
}

function decades(from, to) {
  const found = [];
  for (let power = Math.floor(Math.log10(from)); power <= Math.log10(to); power++) {
    for (const first of [1, 2, 5]) found.push(Number((first * 10 ** power).toPrecision(3)));
  }
  return found.filter((value) => value >= from && value <= to);
}

function round(from, to, count = 5) {
  const rough = (to - from) / count, power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((one) => one * power).find((one) => one >= rough);
  const found = [];
  for (let i = Math.ceil(from / step - 1e-9); i * step <= to + 1e-9; i++) found.push(Number((i * step).toPrecision(6)));
  return found;
}

// ---- The picture.

function render({ model, el }) {
  const all = model.get("points"), xs = model.get("xs"), ys = model.get("ys"), t = model.get("t");
  const state = { x: 0, y: 0, log: true, baselines: true, limit: STEPS, chosen: null };

  // Controls.
  const choice = (key, axes) => h("select", {
    "data-control": key, onchange: (event) => { state[key] = Number(event.target.value); if (key === "x") state.limit = STEPS; update(); },
  }, axes.map((axis, i) => h("option", { value: i }, axis.name)));
  const choices = { x: choice("x", xs), y: choice("y", ys) };
  const toggle = (name, words, set) => h("button", { type: "button", "data-control": name, onclick: () => { set(); update(); } }, words);
  const log = toggle("log", "Logarithmic", () => { state.log = !state.log; state.limit = STEPS; });
  const baselines = toggle("baselines", "Show baselines", () => { state.baselines = !state.baselines; });
  const slider = h("input", {
    type: "range", "data-control": "limit", min: "0", max: String(STEPS), step: "1",
    oninput: () => { state.limit = Number(slider.value); update(); },
  });
  const limitText = h("b", { "data-quantity": "limit" });

  // What is said.
  const best = h("p", { class: "cv-best" });
  const line = h("ol", { class: "cv-front" });
  const about = h("p", { class: "cv-about" });
  const chart = h("div", {
    class: "cv-chart", tabindex: "0", role: "group", "aria-label": "Points; the arrow keys walk from the cheapest to the dearest",
    onkeydown: (event) => {
      const move = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1, Home: -Infinity, End: Infinity }[event.key];
      if (move === undefined) return;
      event.preventDefault();
      walk(move);
    },
  });
  const heard = h("p", { class: "cv-heard", "aria-live": "polite" });
  const say = calmly((words) => { heard.textContent = words; });

  el.append(h("h4", { class: "cv-title" }, model.get("title")),
    h("div", { class: "cv-row" }, field("to the right (less is better)", choices.x), log, field("upwards (more is better)", choices.y), baselines),
    h("label", { class: "cv-limit" }, h("span", {}, h("span", { class: "cv-name" }, "Limit: "), limitText), slider),
    best, chart,
    h("p", { class: "cv-key" }, h("span", { class: "cv-mark cv-method" }), "method  ", h("span", { class: "cv-mark cv-base" }), "baseline without a teacher  ",
      h("span", { class: "cv-dash" }), "the front. Bars: 95 % interval of the mean."),
    about, h("p", { class: "cv-name" }, "The front, from the cheapest to the dearest, each against the point before:"), line, heard);
  onWidth(chart, draw);

  // ---- What follows from the state.

  function now() {
    const shown = all.filter((point) => state.baselines || !point.baseline);
    const pairs = shown.map((point) => [point.x[state.x], point.y[state.y].mean]);
    const costs = all.map((point) => point.x[state.x]);
    const along = scale(Math.min(...costs), Math.max(...costs), state.log);
    const limit = state.limit === STEPS ? Infinity : along.value(state.limit / STEPS);
    const chosen = bestWithin(pairs, limit);
    const gap = (a, b) => difference(shown[a].y[state.y].values, shown[b].y[state.y].values, t);
    const alike = chosen === null ? [] : shown.map((_, i) => i).filter((i) => i !== chosen && pairs[i][0] <= limit && isAlike(gap(chosen, i)));
    return { shown, pairs, along, limit, chosen, alike, gap, front: front(pairs) };
  }

  function words(found) {
    const axis = ys[state.y];
    if (found.chosen === null) return "Nothing is allowed by this limit.";
    const winner = found.shown[found.chosen];
    const others = found.alike.map((i) => found.shown[i].name);
    return `Highest mean within the limit: ${winner.name} (${axis.name}: ${readable(winner.y[state.y].mean, axis.digits)}). `
      + (others.length ? `Not distinguishable from it: ${others.join("; ")}.` : "Every other allowed point is shown to be lower.");
  }

  function update() {
    const found = now(), xAxis = xs[state.x], yAxis = ys[state.y];
    log.setAttribute("aria-pressed", String(state.log));
    baselines.setAttribute("aria-pressed", String(state.baselines));
    slider.value = String(state.limit);
    const limit = found.limit === Infinity ? "none" : `at most ${readable(found.limit, xAxis.digits)}`;
    show(limitText, found.limit === Infinity ? null : found.limit, `${xAxis.name}: ${limit}`);
    slider.setAttribute("aria-valuetext", limit);
    best.textContent = words(found);
    best.setAttribute("data-best", found.chosen === null ? "" : found.shown[found.chosen].name);
    best.setAttribute("data-alike", JSON.stringify(found.alike.map((i) => found.shown[i].name)));
    line.replaceChildren(...found.front.map((i, at) => {
      const gap = at ? found.gap(i, found.front[at - 1]) : null;
      return h("li", { "data-front": found.shown[i].name, "data-step": gap ? JSON.stringify([gap.mean, gap.low, gap.high]) : null },
        h("b", {}, found.shown[i].name), `, ${readable(found.pairs[i][0], xAxis.digits)}; ${yAxis.name}: ${readable(found.pairs[i][1], yAxis.digits)}`,
        gap ? ` (${verdict(gap, yAxis.digits)})` : "");
    }));
    tell(found);
    if (chart.clientWidth) draw(chart.clientWidth);
    say(best.textContent);
  }

  function tell(found) {
    const point = found.shown.find((one) => one.name === state.chosen);
    about.setAttribute("data-chosen", point ? point.name : "");
    if (!point) { about.textContent = "Choose a point: click it, or press the arrow keys in the picture."; return; }
    const i = found.shown.indexOf(point), value = point.y[state.y], digits = ys[state.y].digits;
    const beside = found.chosen === null || i === found.chosen ? ""
      : ` Against ${found.shown[found.chosen].name}: ${verdict(found.gap(i, found.chosen), digits)}.`;
    about.replaceChildren(h("b", {}, point.name), point.note ? ` (${point.note})` : "",
      `. ${xs[state.x].name}: ${readable(point.x[state.x], xs[state.x].digits)}; ${ys[state.y].name}: ${readable(value.mean, digits)} `
      + `[${readable(value.low, digits)}, ${readable(value.high, digits)}].${beside}`);
  }

  function walk(move) {
    const found = now();
    const order = found.shown.map((_, i) => i).sort((a, b) => found.pairs[a][0] - found.pairs[b][0] || found.pairs[a][1] - found.pairs[b][1] || a - b);
    const names = order.map((i) => found.shown[i].name), last = names.length - 1;
    const at = names.indexOf(state.chosen);
    const next = at < 0 ? (move === Infinity ? last : 0) : Math.max(0, Math.min(last, at + move));
    choose(names[next]);
  }

  function choose(name) {
    state.chosen = name;
    const found = now();
    tell(found);
    draw(chart.clientWidth);
    say(about.textContent);
  }

  function draw(width) {
    const found = now(), height = Math.round(Math.min(400, Math.max(270, width * 0.52)));
    const left = 44, right = 14, top = 14, bottom = 42;
    const level = ys[state.y].teacher;
    const tops = [...found.shown.map((one) => one.y[state.y].high), ...(level === null ? [] : [level])];
    const from = Math.min(...found.shown.map((one) => one.y[state.y].low)), to = Math.max(...tops), air = 0.06 * (to - from) || 1;
    const px = (value) => left + found.along.at(value) * (width - left - right);
    const py = (value) => top + (1 - (value - from + air) / (to - from + 2 * air)) * (height - top - bottom);
    const edge = height - bottom, xTicks = found.along.ticks.filter((_, i, every) => width > 480 || every.length < 7 || i % 2 === 0);
    const stairs = found.front.map((i, at) => {
      const [x, y] = [px(found.pairs[i][0]), py(found.pairs[i][1])];
      return at ? `H${x.toFixed(1)}V${y.toFixed(1)}` : `M${x.toFixed(1)},${y.toFixed(1)}`;
    }).join("");
    chart.replaceChildren(s("svg", {
      width, height, role: "img",
      "aria-label": `${found.shown.length} points. On the front: ${found.front.map((i) => found.shown[i].name).join(", ")}. ${words(found)}`,
    },
      found.limit === Infinity ? null : s("rect", { class: "cv-forbidden", x: Math.min(px(found.limit), width - right), y: top, width: Math.max(0, width - right - px(found.limit)), height: edge - top }),
      xTicks.map((tick) => s("g", {}, s("line", { class: "cv-grid", x1: px(tick), x2: px(tick), y1: top, y2: edge }),
        s("text", { x: px(tick), y: edge + 16, "text-anchor": "middle" }, String(tick)))),
      round(from - air, to + air).map((tick) => s("g", {}, s("line", { class: "cv-grid", x1: left, x2: width - right, y1: py(tick), y2: py(tick) }),
        s("text", { x: left - 6, y: py(tick) + 4, "text-anchor": "end" }, String(tick)))),
      s("text", { x: (left + width - right) / 2, y: height - 6, "text-anchor": "middle" }, xs[state.x].name),
      level === null ? null : s("line", { class: "cv-level", x1: left, x2: width - right, y1: py(level), y2: py(level) }),
      level === null ? null : s("text", { class: "cv-level-name", x: left + 5, y: py(level) + 13 }, "teacher"),
      s("path", { class: "cv-stairs", d: stairs }),
      found.shown.map((point, i) => mark(found, point, i, px(found.pairs[i][0]), py)),
    ));
  }

  function mark(found, point, i, x, py) {
    const value = point.y[state.y], y = py(value.mean), number = found.front.indexOf(i) + 1;
    const shape = point.baseline ? s("path", { d: `M${x},${y - 6}L${x + 6},${y}L${x},${y + 6}L${x - 6},${y}Z` }) : s("circle", { cx: x, cy: y, r: 5.5 });
    const classes = ["cv-point", point.baseline ? "cv-base" : "cv-method", found.pairs[i][0] > found.limit ? "cv-out" : "",
      point.name === state.chosen ? "cv-chosen" : "", i === found.chosen ? "cv-winner" : ""];
    return s("g", { class: classes.join(" "), "data-point": point.name, onclick: () => choose(point.name) },
      s("title", {}, point.name),
      s("line", { class: "cv-bar", x1: x, x2: x, y1: py(value.low), y2: py(value.high) }),
      s("circle", { class: "cv-halo", cx: x, cy: y, r: 11 }), shape,
      number ? s("text", { class: "cv-number", x: x - 9, y: y - 8, "text-anchor": "end" }, String(number)) : null);
  }

  update();
}

export default { render };
