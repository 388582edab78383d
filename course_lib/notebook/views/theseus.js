import { calmly, field, h, onWidth, readable, s, show } from "./shared.js";

const FRAME = 125, SLOW_FRAME = 1000; // milliseconds per batch

// ---- The arithmetic of theseus.py and methods/theseus.py; tests/test_theseus_view.py compares the two.

function rateAt(recipe, step) {
  if (recipe.schedule === "linear") return Math.min(1, recipe.k * step + recipe.base);
  const jumped = recipe.replacing_steps !== null && step >= Math.max(1, recipe.replacing_steps);
  return jumped ? 1 : recipe.rate;
}

function drawn(recipe, chances, step) {
  const rate = rateAt(recipe, step);
  return chances[step].map((chance) => (chance + 0.5) / 1000 < rate);
}

function layerPath(draws, perModule) {
  return draws.flatMap((replaced, module) => replaced ? [`scc${module}`]
    : Array.from({ length: perModule }, (_, layer) => `prd${module * perModule + layer}`));
}

const count = (draws) => draws.filter(Boolean).length;
const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;

function theseusNumbers(recipe, chances, step, perModule, frames) {
  const history = Array.from({ length: step + 1 }, (_, t) => drawn(recipe, chances, t));
  const rate = rateAt(recipe, step), modules = chances[0].length, now = history[step];
  return {
    rate, draws: now,
    expected: modules * rate,
    replaced: count(now),
    path: layerPath(now, perModule),
    nobody: (1 - rate) ** modules,
    learned: now.map((_, module) => history.filter((draws) => draws[module]).length),
    idle: history.filter((draws) => !draws.some(Boolean)).length,
    recent: mean(history.slice(-frames).map(count)),
  };
}

// ---- The picture.

function render({ model, el }) {
  const modules = model.get("modules"), perModule = model.get("layers_per_module"), steps = model.get("steps");
  const frames = model.get("window"), presets = model.get("presets"), digits = model.get("chances");
  const chances = Array.from({ length: steps }, (_, step) => Array.from({ length: modules }, (_, module) =>
    Number(digits.slice(3 * (step * modules + module), 3 * (step * modules + module + 1)))));
  const calm = globalThis.matchMedia?.("(prefers-reduced-motion: reduce)");
  const state = { ...presets[0], step: 0 };
  let timer = 0, width = 0, sceneWidth = 0;

  // The schedule.
  const buttons = presets.map((preset) => h("button", {
    type: "button", "data-preset": preset.name,
    onclick: () => { Object.assign(state, preset, { step: state.step }); update("preset"); },
  }, preset.name));
  const kinds = ["constant", "linear"].map((kind) => h("button", {
    type: "button", "data-schedule": kind, onclick: () => { state.schedule = kind; update("kind"); },
  }, kind === "constant" ? "constant p" : "linear p = k·t + b"));
  const complaint = h("span", { class: "cv-complaint", role: "status" });
  const numberField = (key, text, limits, empty) => {
    const input = h("input", {
      type: "number", "data-control": key, inputmode: "decimal", ...limits,
      oninput: () => {
        const blank = empty && input.value === "" && !input.validity.badInput;
        const value = blank ? null : input.valueAsNumber;
        const good = blank || (value >= limits.min && value <= limits.max && (!empty || Number.isInteger(value)));
        input.setAttribute("aria-invalid", String(!good));
        complaint.textContent = good ? "" : `Please write a number from ${limits.min} to ${limits.max}${empty ? ", or nothing for never" : ""}.`;
        if (good) { state[key] = value; update(key); }
      },
      onchange: () => { if (input.getAttribute("aria-invalid") === "true") update("reset"); },
    });
    return { key, input, node: field(text, input, "cv-knob") };
  };
  const knobs = {
    constant: [numberField("rate", "rate p", { min: 0.01, max: 1, step: 0.05 }),
      numberField("replacing_steps", "p = 1 from batch", { min: 0, max: steps, step: 10 }, true)],
    linear: [numberField("base", "base b", { min: 0.01, max: 1, step: 0.05 }),
      numberField("k", "k per batch", { min: 0, max: 1, step: 0.0005 })],
  };
  const groups = Object.fromEntries(Object.entries(knobs).map(([kind, fields]) =>
    [kind, h("div", { class: "cv-row" }, fields.map((one) => one.node))]));

  // The film and its controls.
  const scene = h("div", { class: "cv-scene" });
  const play = h("button", { type: "button", class: "cv-play", "data-control": "play", onclick: () => toggle() }, "Play");
  const button = (name, text, to) => h("button", { type: "button", "data-control": name, onclick: () => { pause(); go(to()); } }, text);
  const slider = h("input", {
    type: "range", "data-control": "step", min: "0", max: String(steps - 1), step: "1", "aria-label": "Batch",
    oninput: () => { pause(); go(Number(slider.value), "slider"); },
  });
  const clock = h("b", { "data-quantity": "step" });
  const film = h("div", {
    class: "cv-film", tabindex: "0", role: "group",
    "aria-label": "The film. The space bar plays and pauses; the arrow keys go one batch back or on.",
    onkeydown: (event) => {
      const onSlider = event.target === slider;
      if (!onSlider && event.target !== film) return; // a button keeps its own space bar
      if (event.ctrlKey || event.altKey || event.metaKey) return;
      if (event.key === " ") { event.preventDefault(); toggle(); return; }
      const to = { ArrowRight: state.step + 1, ArrowLeft: state.step - 1, Home: 0, End: steps - 1 }[event.key];
      if (to === undefined || onSlider) return; // the slider knows the arrows itself
      event.preventDefault();
      pause();
      go(to);
    },
  }, scene,
  h("div", { class: "cv-controls" }, play,
    button("back", "Step back", () => state.step - 1), button("on", "Step on", () => state.step + 1),
    button("first", "Start", () => 0), h("span", { class: "cv-clock" }, "batch ", clock, ` of 0 to ${steps - 1}`)),
  slider);

  // Tiles: one number each, with a sentence.
  const tile = (key, name) => {
    const value = h("span", { class: "cv-value", "data-quantity": key });
    const note = h("span", { class: "cv-note" });
    return { node: h("div", { class: "cv-tile" }, h("span", { class: "cv-name" }, name), value, note), value, note };
  };
  const tiles = { rate: tile("rate", "Replacing rate p"), expected: tile("expected", "Expected replaced"),
    replaced: tile("replaced", "Replaced now"), nobody: tile("nobody", "Chance that nobody learns") };
  const idle = h("span", { "data-quantity": "idle" }), recent = h("span", { "data-quantity": "recent" });
  tiles.nobody.note.append("so far in ", idle, " batches");
  tiles.replaced.note.append("mean of the latest ", String(frames), ": ", recent);
  const learned = Array.from({ length: modules }, (_, module) => h("b", { "data-learned": module }));
  const chart = h("div", { class: "cv-chart" });
  const summary = h("p", { class: "cv-summary", "aria-live": "polite" });
  const speak = calmly((text) => { summary.textContent = text; });

  el.append(
    h("div", { class: "cv-title" }, model.get("title")),
    h("div", { class: "cv-row cv-presets", role: "group", "aria-label": "Examples" }, buttons),
    h("div", { class: "cv-row cv-schedule" },
      h("div", { class: "cv-row cv-kinds", role: "group", "aria-label": "Schedule" }, kinds), Object.values(groups)),
    complaint, film,
    h("p", { class: "cv-learned" }, "Batches that each successor has learned in: ",
      learned.flatMap((node, module) => [h("span", { class: "cv-nowrap" }, `scc${module} `, node, module < modules - 1 ? "," : "."), " "])),
    h("div", { class: "cv-tiles" }, Object.values(tiles).map((one) => one.node)),
    h("div", { class: "cv-figure" },
      h("div", { class: "cv-caption" }, "Above: each column is a batch, each row a module, filled where the successor works. ",
        "Below: ", h("span", { class: "cv-nowrap" }, h("i", { class: "cv-dash" }), "rate p and expected number,"), " ",
        h("span", { class: "cv-nowrap" }, h("i", { class: "cv-dash cv-thin-dash" }), `mean of the latest ${frames} batches.`)),
      chart),
    summary,
  );
  onWidth(scene, (now) => { sceneWidth = now; drawScene(); });
  onWidth(chart, (now) => { width = now; drawChart(); });
  update("start");

  function go(step, cause = "step") {
    state.step = Math.min(Math.max(step, 0), steps - 1);
    update(cause);
  }

  function toggle() {
    if (timer) { pause(); return; }
    if (state.step === steps - 1) go(0);
    timer = setInterval(() => {
      if (!el.isConnected) { pause(); return; }
      go(state.step + 1, "film");
      if (state.step === steps - 1) pause();
    }, calm?.matches ? SLOW_FRAME : FRAME);
    play.textContent = "Pause";
  }

  function pause() {
    clearInterval(timer);
    timer = 0;
    play.textContent = "Play";
  }

  function update(cause) {
    const numbers = theseusNumbers(state, chances, state.step, perModule, frames);
    const same = (preset) => ["schedule", ...knobs[preset.schedule].map((one) => one.key)].every((key) => preset[key] === state[key]);
    buttons.forEach((node, index) => node.setAttribute("aria-pressed", String(same(presets[index]))));
    kinds.forEach((node) => node.setAttribute("aria-pressed", String(node.dataset.schedule === state.schedule)));
    for (const [kind, fields] of Object.entries(knobs)) {
      groups[kind].hidden = kind !== state.schedule;
      for (const one of fields) {
        if (cause === one.key || cause === "film") continue; // do not write into the field that is being written in
        one.input.value = state[one.key] ?? "";
        one.input.setAttribute("aria-invalid", "false");
      }
    }
    if (["reset", "preset", "kind"].includes(cause)) complaint.textContent = "";
    if (cause !== "slider") slider.value = state.step;
    slider.setAttribute("aria-valuetext", `batch ${state.step}`);
    show(clock, state.step, String(state.step));
    show(tiles.rate.value, numbers.rate, readable(numbers.rate));
    tiles.rate.note.textContent = full();
    show(tiles.expected.value, numbers.expected, readable(numbers.expected, 2));
    tiles.expected.note.textContent = `of ${modules} modules: ${modules} · p`;
    show(tiles.replaced.value, numbers.replaced, `${numbers.replaced} of ${modules}`);
    show(recent, numbers.recent, readable(numbers.recent, 2));
    show(tiles.nobody.value, numbers.nobody, `${(100 * numbers.nobody).toFixed(1)} %`);
    show(idle, numbers.idle, String(numbers.idle));
    learned.forEach((node, module) => show(node, numbers.learned[module], String(numbers.learned[module])));
    film.setAttribute("data-path", numbers.path.join(" "));
    drawScene();
    drawChart();
    const text = `Batch ${state.step}: p = ${readable(numbers.rate)}. Path: ${numbers.path.join(", ")}. ` +
      (numbers.replaced ? `${numbers.replaced} of ${modules} modules are replaced.` : "Only predecessor layers: nobody learns from this batch.");
    if (cause === "start") summary.textContent = text; else speak(text);
  }

  function full() {
    const first = chances.findIndex((_, step) => rateAt(state, step) >= 1);
    return first < 0 ? "below 1 to the end of the film" : `1 from batch ${first} on`;
  }

  // The ship: predecessor layers above, successors below, and the line that this batch takes.
  function drawScene() {
    const width = sceneWidth;
    if (!width) return;
    const height = 168, draws = drawn(state, chances, state.step);
    const inner = width - 4, end = Math.min(62, Math.max(26, inner * 0.09)), gap = Math.max(3, Math.min(12, inner / 90));
    const column = (inner - 2 * end - 2 * gap) / modules, box = 40, top = 24, low = 112;
    const room = column - gap, each = (room - gap * (perModule - 1) / 2) / perModule;
    const words = each >= 40, names = end >= 52;
    const block = (x, y, w, kind, on, label, more = {}) => s("g", { class: `cv-block cv-${kind}${on ? " cv-on" : ""}`, ...more },
      s("rect", { x, y, width: Math.max(w, 2), height: box, rx: 6 }),
      s("text", { x: x + w / 2, y: y + box / 2 + 4, "text-anchor": "middle", "font-size": w < 22 ? "9px" : null }, label));
    const middle = (top + low + box) / 2, points = [[2 + end, middle]], boxes = [];
    draws.forEach((replaced, module) => {
      const left = 2 + end + gap + module * column + gap / 2;
      for (let index = 0; index < perModule; index += 1) {
        const number = module * perModule + index, x = left + index * (each + gap / 2);
        boxes.push(block(x, top, each, "prd", !replaced, words ? `prd${number}` : String(number)));
        if (!replaced) points.push([x, top + box / 2], [x + each, top + box / 2]);
      }
      boxes.push(block(left, low, room, "scc", replaced, words || room >= 40 ? `scc${module}` : String(module), { "data-draw": module, "data-value": Number(replaced) }));
      if (replaced) points.push([left, low + box / 2], [left + room, low + box / 2]);
    });
    const right = width - 2 - end;
    points.push([right, middle]);
    const fixed = (x, label) => s("g", { class: "cv-block cv-fixed" }, s("rect", { x, y: middle - 30, width: end, height: 60, rx: 6 }),
      s("text", { x: x + end / 2, y: middle + 4, "text-anchor": "middle", "font-size": "11px" }, label));
    scene.replaceChildren(s("svg", {
      width, height, role: "img",
      "aria-label": `Batch ${state.step}: the path is ${layerPath(draws, perModule).join(", ")}.`,
    },
      s("text", { class: "cv-faint", x: 2, y: 14 }, `predecessor: ${modules * perModule} layers, frozen`),
      s("text", { class: "cv-faint", x: 2, y: height - 2 }, `successor: ${modules} layers, learning where the line runs`),
      s("path", { class: "cv-path", d: points.map(([x, y], index) => `${index ? "L" : "M"}${x.toFixed(1)},${y.toFixed(1)}`).join("") }),
      fixed(2, names ? "embed." : "E"), fixed(right, names ? "head" : "H"), boxes));
  }

  function drawChart() {
    if (!width) return;
    const left = 34, right = 30, row = Math.max(6, Math.min(11, 60 / modules)), strip = modules * row, top = strip + 20;
    const height = top + 150, bottom = 34, y = (p) => top + (1 - p) * (height - top - bottom);
    const x = (step) => left + (step / steps) * (width - left - right);
    const all = chances.map((_, step) => drawn(state, chances, step));
    const runs = chances[0].map((_, module) => all.map((draws, step) => draws[module]
      ? `M${x(step).toFixed(1)},${2 + module * row}H${x(step + 1).toFixed(1)}V${2 + (module + 1) * row - 1.5}H${x(step).toFixed(1)}Z` : "").join(""));
    const line = (value) => all.map((_, step) => `${step ? "L" : "M"}${x(step + 0.5).toFixed(1)},${y(value(step)).toFixed(1)}`).join("");
    const recentAt = (step) => mean(all.slice(Math.max(0, step + 1 - frames), step + 1).map(count)) / modules;
    const now = x(state.step + 0.5), ticks = [0, 0.5, 1];
    chart.replaceChildren(s("svg", {
      width, height, role: "img",
      "aria-label": `The replacing rate over ${steps} batches: ${readable(rateAt(state, 0))} at the start, ${full()}. At batch ${state.step} it is ${readable(rateAt(state, state.step))}.`,
    },
      runs.map((d, module) => s("g", {}, s("path", { class: "cv-run", d }),
        s("text", { class: "cv-faint", x: left - 5, y: 2 + module * row + row / 2 + 3.5, "text-anchor": "end", "font-size": "9px" }, String(module)))),
      ticks.map((p) => s("g", {},
        s("line", { class: "cv-grid", x1: left, x2: width - right, y1: y(p), y2: y(p) }),
        s("text", { x: left - 5, y: y(p) + 4, "text-anchor": "end" }, String(p)),
        s("text", { x: width - right + 5, y: y(p) + 4 }, String(p * modules)))),
      s("text", { class: "cv-faint", x: left + 4, y: top - 6 }, "p"),
      s("text", { class: "cv-faint", x: width - right, y: top - 6, "text-anchor": "end" }, "expected number"),
      [0, 0.25, 0.5, 0.75].map((part) => s("text", { x: x(part * steps), y: height - bottom + 15, "text-anchor": "middle" }, String(Math.round(part * steps)))),
      s("text", { x: width - right, y: height - bottom + 15, "text-anchor": "end" }, String(steps)),
      s("text", { x: (left + width - right) / 2, y: height - 3, "text-anchor": "middle" }, "batch"),
      s("path", { class: "cv-recent", d: line(recentAt) }),
      s("path", { class: "cv-curve", d: line((step) => rateAt(state, step)) }),
      s("line", { class: "cv-now", x1: now, x2: now, y1: 0, y2: height - bottom }),
      s("circle", { class: "cv-dot", cx: now, cy: y(rateAt(state, state.step)), r: 5 }),
    ));
  }
}

export default { render };
