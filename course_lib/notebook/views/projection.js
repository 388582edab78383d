import { calmly, field, h, onWidth, readable, s, show } from "./shared.js";

// ---- The arithmetic of projection.py, line for line; tests/test_projection_view.py compares the two.

const sum = (values) => values.reduce((total, value) => total + value, 0);

function projectionNumbers(spreads, width, side, scale, bertWidth) {
  const teacherWidth = spreads.length;
  const variances = spreads.map((spread) => spread ** 2);
  const kept = sum(variances.slice(0, width)), lost = sum(variances.slice(width));
  const students = side === "student";
  const best = students ? (lost + (1 - scale) ** 2 * kept) / teacherWidth : 0;
  const constant = students ? (lost + kept) / teacherWidth : (scale ** 2 * kept) / width;
  const narrowBert = Math.round((bertWidth * width) / teacherWidth);
  return {
    kept: kept / (kept + lost),
    lost_error: lost / teacherWidth,
    parameters: width * teacherWidth,
    parameters_with_bias: width * teacherWidth + (students ? teacherWidth : width),
    best, constant,
    taught: constant - best,
    bert_width: narrowBert,
    bert_parameters: bertWidth * narrowBert,
  };
}

// ---- The picture.

const SIDES = [["student", "Student’s side: W h_S against h_T"], ["teacher", "Teacher’s side: h_S against W h_T"]];
const percent = (share) => `${(100 * share).toFixed(1)} %`;
const count = (number) => String(number).replace(/\B(?=(\d{3})+$)/g, ",");

function render({ model, el }) {
  const layers = model.get("layers"), presets = model.get("presets");
  const teacherWidth = layers[0][1].length;
  const state = { layer: model.get("start"), width: model.get("width"), side: model.get("side"), scale: 1 };
  const spreads = () => layers[state.layer][1];
  const numbersAt = (scale) => projectionNumbers(spreads(), state.width, state.side, scale, model.get("bert"));

  // Controls.
  const presetButtons = presets.map((preset) => h("button", {
    type: "button", "data-preset": preset.name,
    onclick: () => { Object.assign(state, { width: preset.width, side: preset.side, scale: preset.scale }); update("preset"); },
  }, preset.name));
  const sideButtons = SIDES.map(([side, name]) => h("button", {
    type: "button", "data-side": side, onclick: () => { state.side = side; update("side"); },
  }, name));
  const choice = h("select", { "data-control": "layer", onchange: () => { state.layer = choice.selectedIndex; update("layer"); } },
    layers.map(([layer]) => h("option", {}, layer === 0 ? "0, the embeddings" : String(layer))));
  const slider = (control, name, min, max, step, read) => h("input", {
    type: "range", "data-control": control, min, max, step, "aria-label": name,
    oninput: (event) => { state[control] = read(Number(event.target.value)); update("slider"); },
  });
  const narrowest = model.get("narrowest");
  const widthSlider = slider("width", "Width of the student", narrowest, teacherWidth, model.get("step"), (value) => value);
  const scaleSlider = slider("scale", "Scale of the map", 0, 100, 1, (value) => value / 100);
  const widthText = h("b", { class: "cv-now-text" }), scaleText = h("b", { class: "cv-now-text" });

  // Tiles: one number each, with a sentence.
  const tile = (key, name) => {
    const value = h("span", { class: "cv-value", "data-quantity": key });
    const note = h("span", { class: "cv-note" });
    return { node: h("div", { class: "cv-tile" }, h("span", { class: "cv-name" }, name), value, note), value, note };
  };
  const kept = tile("kept", "Variance kept"), lost = tile("lost_error", "Error of the rest");
  const parameters = tile("parameters", "Numbers in the map"), bert = tile("bert_parameters", "The same share of 768");
  const best = h("b", { "data-quantity": "best" }), constant = h("b", { "data-quantity": "constant" });
  const taught = h("b", { "data-quantity": "taught" });
  const spectrum = h("div", { class: "cv-chart" }), losses = h("div", { class: "cv-chart" });
  const spectrumTitle = h("div", { class: "cv-caption" });
  const summary = h("p", { class: "cv-summary", "aria-live": "polite" });
  const speak = calmly((text) => { summary.textContent = text; });
  const sizes = { spectrum: 0, losses: 0 };

  el.append(
    h("div", { class: "cv-title" }, model.get("title")),
    h("div", { class: "cv-row cv-presets", role: "group", "aria-label": "Examples" }, presetButtons),
    h("div", { class: "cv-row cv-sides", role: "group", "aria-label": "Where the map sits" }, sideButtons,
      layers.length > 1 ? field("Teacher’s layer", choice) : null),
    h("div", { class: "cv-sliders" },
      h("div", {}, h("span", { class: "cv-name" }, "Width of the student: ", widthText), widthSlider),
      h("div", {}, h("span", { class: "cv-name" }, "Scale of the map W: ", scaleText), scaleSlider)),
    h("div", { class: "cv-tiles" }, [kept, lost, parameters, bert].map((one) => one.node)),
    h("div", { class: "cv-charts" },
      h("div", { class: "cv-figure" }, spectrumTitle, spectrum),
      h("div", { class: "cv-figure" },
        h("div", { class: "cv-caption" }, "Loss now. ",
          h("span", { class: "cv-nowrap" }, h("i", { class: "cv-dash cv-solid" }), "best student ", best), ", ",
          h("span", { class: "cv-nowrap" }, h("i", { class: "cv-dash" }), "constant student ", constant), ". ",
          h("span", { class: "cv-nowrap" }, "Their difference ", taught), " is what the loss can teach."),
        losses)),
    summary,
  );
  onWidth(spectrum, (now) => { sizes.spectrum = now; drawSpectrum(); });
  onWidth(losses, (now) => { sizes.losses = now; drawLosses(); });
  update("start");

  function update(cause) {
    const numbers = numbersAt(state.scale), students = state.side === "student";
    widthSlider.value = state.width;
    widthSlider.setAttribute("aria-valuetext", `${state.width} of ${teacherWidth}`);
    widthText.textContent = `${state.width} of ${teacherWidth}`;
    scaleSlider.value = Math.round(100 * state.scale);
    scaleSlider.setAttribute("aria-valuetext", `scale ${state.scale.toFixed(2)}`);
    scaleText.textContent = state.scale.toFixed(2);
    choice.selectedIndex = state.layer;
    sideButtons.forEach((button) => button.setAttribute("aria-pressed", String(button.dataset.side === state.side)));
    presetButtons.forEach((button, index) => button.setAttribute("aria-pressed",
      String(["width", "side", "scale"].every((key) => presets[index][key] === state[key]))));

    show(kept.value, numbers.kept, percent(numbers.kept));
    kept.note.textContent = `of the teacher’s layer ${layers[state.layer][0]}, by the best ${state.width} directions`;
    show(lost.value, numbers.lost_error, readable(numbers.lost_error, 4));
    lost.note.textContent = `mean square, ${teacherWidth} → ${state.width} → ${teacherWidth}`;
    show(parameters.value, numbers.parameters, count(numbers.parameters));
    parameters.note.textContent = `${state.width} × ${teacherWidth}; with a bias ${count(numbers.parameters_with_bias)}`;
    show(bert.value, numbers.bert_parameters, count(numbers.bert_parameters));
    bert.note.textContent = students ? `numbers for ${numbers.bert_width} → 768` : `numbers for 768 → ${numbers.bert_width}`;
    show(best, numbers.best, readable(numbers.best, 4));
    show(constant, numbers.constant, readable(numbers.constant, 4));
    show(taught, numbers.taught, readable(numbers.taught, 4));
    spectrumTitle.textContent = `Singular values of layer ${layers[state.layer][0]}: the filled ones fit into ${state.width} numbers.`;
    el.setAttribute("data-state", `${state.side} ${state.width} ${state.scale}`);
    drawSpectrum();
    drawLosses();

    const sentence = students
      ? `Student’s side, width ${state.width}, scale ${state.scale.toFixed(2)}: the target stands still. A student that says the same at every token ` +
        `pays ${readable(numbers.constant, 4)}, whatever the scale; the best student pays ${readable(numbers.best, 4)}.`
      : `Teacher’s side, width ${state.width}, scale ${state.scale.toFixed(2)}: the target shrinks with the map. A student that says the same at every token ` +
        `pays ${readable(numbers.constant, 4)}. ` + (state.scale === 0
        ? "The loss is 0 and nothing was learned: this is the trivial optimum."
        : "A smaller map makes it smaller still, so training goes there.");
    if (cause === "start") summary.textContent = sentence; else speak(sentence);
  }

  // Logarithmic upwards: the last directions are a hundred times shorter than the first.
  function drawSpectrum() {
    const width = sizes.spectrum;
    if (!width) return;
    const height = 190, left = 40, right = 8, top = 10, bottom = 34, values = spreads();
    const high = Math.ceil(Math.log10(values[0])), low = high - 3;
    const x = (index) => left + (index / teacherWidth) * (width - left - right);
    const y = (value) => top + ((high - Math.max(Math.log10(Math.max(value, 1e-300)), low)) / 3) * (height - top - bottom);
    const area = (from, to) => `M${x(from).toFixed(1)},${y(10 ** low)}` + values.slice(from, to).map((value, index) =>
      `L${x(from + index).toFixed(1)},${y(value).toFixed(1)}L${x(from + index + 1).toFixed(1)},${y(value).toFixed(1)}`).join("") +
      `L${x(to).toFixed(1)},${y(10 ** low)}Z`;
    spectrum.replaceChildren(s("svg", { width, height, role: "img",
      "aria-label": `The ${teacherWidth} singular values from ${readable(values[0])} down to ${readable(values.at(-1))}; the first ${state.width} are filled.` },
      [0, 1, 2, 3].map((step) => s("g", {},
        s("line", { class: "cv-grid", x1: left, x2: width - right, y1: y(10 ** (high - step)), y2: y(10 ** (high - step)) }),
        s("text", { x: left - 6, y: y(10 ** (high - step)) + 4, "text-anchor": "end" }, String(Number((10 ** (high - step)).toPrecision(1)))))),
      s("path", { class: "cv-kept", d: area(0, state.width) }),
      s("path", { class: "cv-lost", d: area(state.width, teacherWidth) }),
      s("line", { class: "cv-now", x1: x(state.width), x2: x(state.width), y1: top, y2: height - bottom }),
      [1, state.width, teacherWidth].filter((one, index, all) => all.indexOf(one) === index
        && (one !== teacherWidth || x(teacherWidth) - x(state.width) > 30 || one === state.width)).map((one) =>
        s("text", { x: x(one), y: height - bottom + 15, "text-anchor": one > 0.9 * teacherWidth ? "end" : "middle" }, String(one))),
      s("text", { x: (left + width - right) / 2, y: height - 3, "text-anchor": "middle" }, "direction, strongest first")));
  }

  function drawLosses() {
    const width = sizes.losses;
    if (!width) return;
    const height = 190, left = 40, right = 12, top = 10, bottom = 34;
    const steps = Array.from({ length: 51 }, (_, index) => index / 50);
    const lines = steps.map((scale) => numbersAt(scale)), here = numbersAt(state.scale);
    const highest = 1.05 * Math.max(...lines.flatMap((line) => [line.best, line.constant]));
    const x = (scale) => left + scale * (width - left - right);
    const y = (loss) => top + (1 - loss / highest) * (height - top - bottom);
    const path = (key) => lines.map((line, index) => `${index ? "L" : "M"}${x(steps[index]).toFixed(1)},${y(line[key]).toFixed(1)}`).join("");
    losses.replaceChildren(s("svg", { width, height, role: "img",
      "aria-label": `Loss over the scale of the map. At scale 0 the constant student pays ${readable(lines[0].constant, 4)} and the best student ${readable(lines[0].best, 4)}; at scale 1 ${readable(lines.at(-1).constant, 4)} and ${readable(lines.at(-1).best, 4)}.` },
      [0, 0.5, 1].map((part) => s("g", {},
        s("line", { class: "cv-grid", x1: left, x2: width - right, y1: y(part * highest), y2: y(part * highest) }),
        s("text", { x: left - 6, y: y(part * highest) + 4, "text-anchor": "end" }, part ? readable(part * highest, 2) : "0"))),
      [0, 0.5, 1].map((scale) => s("text", { x: x(scale), y: height - bottom + 15, "text-anchor": scale === 1 ? "end" : "middle" }, String(scale))),
      s("text", { x: (left + width - right) / 2, y: height - 3, "text-anchor": "middle" }, "scale of the map W"),
      s("path", { class: "cv-curve", d: path("best") }),
      s("path", { class: "cv-curve cv-without", d: path("constant") }),
      s("line", { class: "cv-now", x1: x(state.scale), x2: x(state.scale), y1: top, y2: height - bottom }),
      s("circle", { class: "cv-dot", cx: x(state.scale), cy: y(here.best), r: 5 }),
      s("circle", { class: "cv-dot cv-hollow", cx: x(state.scale), cy: y(here.constant), r: 5 })));
  }
}

export default { render };
