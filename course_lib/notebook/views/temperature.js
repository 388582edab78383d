import { calmly, field, h, onWidth, readable, s, show } from "./shared.js";

const LOWEST = 0.05, HIGHEST = 100;
const TICKS = [0.05, 0.1, 0.5, 1, 2, 5, 10, 100];

// ---- The arithmetic of temperature.py, line for line; tests/test_views.py compares the two.

function logSoftmax(logits, temperature) {
  const top = Math.max(...logits);
  const shifted = logits.map((logit) => (logit - top) / temperature);
  const logSum = Math.log(shifted.reduce((sum, value) => sum + Math.exp(value), 0));
  return shifted.map((value) => value - logSum);
}

function distance(a, b) {
  return Math.hypot(...a.map((value, index) => value - b[index]));
}

function centred(logits) {
  const mean = logits.reduce((sum, value) => sum + value, 0) / logits.length;
  return logits.map((value) => value - mean);
}

function temperatureNumbers(teacher, temperature, student) {
  const logP = logSoftmax(teacher, temperature), logQ = logSoftmax(student, temperature);
  const p = logP.map(Math.exp), q = logQ.map(Math.exp);
  const order = teacher.map((_, index) => index).sort((a, b) => teacher[b] - teacher[a] || a - b);
  const add = (term) => p.reduce((sum, a, index) => (a > 0 ? sum + a * term(index) : sum), 0);
  const loss = add((index) => logP[index] - logQ[index]);
  const gradient = distance(q, p) / temperature;
  return {
    probs: p, studentProbs: q, order, loss, gradient,
    entropy: -add((index) => logP[index]),
    ratio: order.length < 3 ? null : Math.exp((teacher[order[1]] - teacher[order[2]]) / temperature),
    lossTimesT2: loss * temperature ** 2,
    gradientTimesT2: gradient * temperature ** 2,
    gradientLimit: distance(centred(student), centred(teacher)) / teacher.length,
  };
}

// ---- The picture.

const where = (temperature) => (Math.log10(temperature) - Math.log10(LOWEST)) / Math.log10(HIGHEST / LOWEST);
const percent = (p) => `${(100 * p).toFixed(1)} %`;

function render({ model, el }) {
  const labels = model.get("labels");
  const given = model.get("student_logits");
  const student = given ?? labels.map(() => 0);
  const state = { logits: [...model.get("logits")], temperature: model.get("temperature") };

  // Controls.
  const slider = h("input", {
    type: "range", "data-control": "temperature", min: "-1.3", max: "2", step: "0.02", "aria-label": "Temperature",
    oninput: () => {
      const exact = 10 ** Number(slider.value);
      state.temperature = Number(slider.value) <= -1.3 ? LOWEST : Number(exact.toPrecision(3));
      update("slider");
    },
  });
  const number = h("input", {
    type: "number", "data-control": "temperature-number", min: LOWEST, max: HIGHEST, step: "0.05", inputmode: "decimal",
    oninput: () => {
      const value = number.valueAsNumber;
      const good = value >= LOWEST && value <= HIGHEST;
      number.setAttribute("aria-invalid", String(!good));
      complaint.textContent = good ? "" : `Please write a temperature from ${LOWEST} to ${HIGHEST}.`;
      if (good) { state.temperature = value; update("number"); }
    },
    onchange: () => { if (number.getAttribute("aria-invalid") === "true") update("reset"); },
  });
  const complaint = h("span", { class: "cv-complaint", role: "status" });
  const ticks = h("div", { class: "cv-ticks", "aria-hidden": "true" }, TICKS.map((tick) =>
    h("span", { style: `left:${(100 * where(tick)).toFixed(2)}%`, class: [0.1, 0.5, 2, 5].includes(tick) ? "cv-minor" : "" }, String(tick))));

  const starts = [...model.get("presets")];
  if (!starts.some((preset) => same(preset.logits, state.logits))) {
    starts.unshift({ name: "This example", logits: [...state.logits] });
  }
  const presets = starts.map((preset) => h("button", {
    type: "button", "data-preset": preset.name,
    onclick: () => { state.logits = [...preset.logits]; update("preset"); },
  }, preset.name));

  // One row of bars per class.
  const rows = labels.map((label, index) => {
    const input = h("input", {
      type: "number", step: "0.5", "data-logit": index, inputmode: "decimal", "aria-label": `Logit of ${label}`,
      oninput: () => {
        const good = Number.isFinite(input.valueAsNumber) && Math.abs(input.valueAsNumber) <= 1e6;
        input.setAttribute("aria-invalid", String(!good));
        if (good) { state.logits[index] = input.valueAsNumber; update("logit"); }
      },
      onchange: () => { if (input.getAttribute("aria-invalid") === "true") update("reset"); },
    });
    const fill = h("span", { class: "cv-fill" });
    const mark = h("span", { class: "cv-mark" });
    const second = given && h("span", { class: "cv-second" });
    const prob = h("span", { class: "cv-prob", "data-prob": index });
    const studentProb = given && h("span", { class: "cv-prob cv-of-student", "data-student-prob": index });
    const node = h("div", { class: "cv-class" }, h("span", { class: "cv-label" }, label), input,
      h("span", { class: "cv-track" }, fill, second, mark), h("span", { class: "cv-probs" }, prob, studentProb));
    return { node, input, fill, mark, second, prob, studentProb };
  });

  // Tiles: one number each, with a sentence.
  const tile = (key, name) => {
    const value = h("span", { class: "cv-value", "data-quantity": key });
    const note = h("span", { class: "cv-note" });
    return { node: h("div", { class: "cv-tile" }, h("span", { class: "cv-name" }, name), value, note), value, note };
  };
  const entropy = tile("entropy", "Entropy");
  const dark = labels.length > 2 ? tile("ratio", "Dark knowledge") : null;
  const loss = tile("loss", "Soft loss");
  const lossT2 = tile("loss_times_t2", "Soft loss × T²");

  const chart = h("div", { class: "cv-chart" });
  const gradient = h("b", { "data-quantity": "gradient" });
  const gradientT2 = h("b", { "data-quantity": "gradient_times_t2" });
  const summary = h("p", { class: "cv-summary", "aria-live": "polite" });
  const speak = calmly((text) => { summary.textContent = text; });
  let width = 0;

  el.append(
    h("div", { class: "cv-title" }, model.get("title")),
    h("div", { class: "cv-row cv-presets", role: "group", "aria-label": "Examples" }, presets),
    h("div", { class: "cv-temperature" },
      field("Temperature T", number, "cv-number"),
      h("div", { class: "cv-slider" }, slider, ticks)),
    complaint,
    h("div", { class: "cv-classes" },
      h("div", { class: "cv-class cv-head", "aria-hidden": "true" }, h("span", {}, "class"), h("span", {}, "logit"),
        h("span", { class: "cv-key" }, h("i", { class: "cv-swatch" }), given ? "teacher" : "softmax(logit / T)",
          given && h("i", { class: "cv-swatch cv-thin" }), given && "student", h("i", { class: "cv-tickmark" }), "at T = 1"),
        h("span", {})),
      rows.map((row) => row.node)),
    h("div", { class: "cv-tiles" }, [entropy, dark, loss, lossT2].filter(Boolean).map((one) => one.node)),
    h("div", { class: "cv-figure" },
      h("div", { class: "cv-caption" }, "Size of the soft loss’s gradient. Now: ",
        h("span", { class: "cv-nowrap" }, h("i", { class: "cv-dash" }), "without T² ", gradient), ", ",
        h("span", { class: "cv-nowrap" }, h("i", { class: "cv-dash cv-solid" }), "with T² ", gradientT2), "."),
      chart),
    summary,
  );
  onWidth(chart, (now) => { width = now; drawChart(); });
  update("start");

  function update(cause) {
    const numbers = temperatureNumbers(state.logits, state.temperature, student);
    const plain = temperatureNumbers(state.logits, 1, student).probs;
    const text = `T = ${state.temperature}`;
    if (cause !== "slider") slider.value = Math.log10(state.temperature);
    slider.setAttribute("aria-valuetext", text);
    if (cause !== "number") {
      number.value = state.temperature;
      number.setAttribute("aria-invalid", "false");
      complaint.textContent = "";
    }
    rows.forEach((row, index) => {
      if (cause !== "logit") {
        row.input.value = state.logits[index];
        row.input.setAttribute("aria-invalid", "false");
      }
      row.fill.style.width = percent(numbers.probs[index]).replace(" ", "");
      row.mark.style.left = percent(plain[index]).replace(" ", "");
      show(row.prob, numbers.probs[index], percent(numbers.probs[index]));
      if (given) {
        row.second.style.width = percent(numbers.studentProbs[index]).replace(" ", "");
        show(row.studentProb, numbers.studentProbs[index], percent(numbers.studentProbs[index]));
      }
    });
    presets.forEach((button, index) => button.setAttribute("aria-pressed", String(same(starts[index].logits, state.logits))));

    const [first, second, third] = numbers.order.map((index) => labels[index]);
    show(entropy.value, numbers.entropy, readable(numbers.entropy));
    entropy.note.textContent = `nats, of at most ${Math.log(labels.length).toFixed(3)}`;
    if (dark) {
      show(dark.value, numbers.ratio, numbers.ratio < 1e5 ? `${numbers.ratio.toFixed(numbers.ratio < 100 ? 2 : 0)} : 1` : `${readable(numbers.ratio)} : 1`);
      dark.note.textContent = `“${second}” to “${third}”`;
    }
    show(loss.value, numbers.loss, readable(numbers.loss));
    loss.note.textContent = given ? "KL(teacher ‖ student)" : "for a student that knows nothing";
    show(lossT2.value, numbers.lossTimesT2, readable(numbers.lossTimesT2));
    lossT2.note.textContent = "the soft term of Hinton’s loss";
    show(gradient, numbers.gradient, readable(numbers.gradient, 4));
    show(gradientT2, numbers.gradientTimesT2, readable(numbers.gradientTimesT2, 4));
    el.setAttribute("data-temperature", state.temperature);
    drawChart();

    const rival = dark ? ` “${second}” is ${numbers.ratio < 1e5 ? numbers.ratio.toFixed(1) : readable(numbers.ratio)} times as likely as “${third}”.` : "";
    const sentence = `At ${text}, “${first}” has ${percent(numbers.probs[numbers.order[0]])}.${rival} ` +
      `Entropy ${readable(numbers.entropy, 2)} of ${Math.log(labels.length).toFixed(2)} nats.`;
    if (cause === "start") summary.textContent = sentence; else speak(sentence);
  }

  // Both axes are logarithmic: a line that falls with slope -2 is the 1/T² of the paper.
  function drawChart() {
    if (!width) return;
    const height = width < 480 ? 190 : 215, left = 46, right = 14, top = 12, bottom = 34;
    const steps = Array.from({ length: 121 }, (_, index) => LOWEST * (HIGHEST / LOWEST) ** (index / 120));
    const lines = steps.map((temperature) => temperatureNumbers(state.logits, temperature, student));
    const here = temperatureNumbers(state.logits, state.temperature, student);
    const sizes = lines.flatMap((line) => [line.gradient, line.gradientTimesT2]).filter((size) => size > 0);
    if (!sizes.length) {
      chart.replaceChildren(h("p", {}, "The student answers exactly as the teacher does: there is no gradient at any temperature."));
      return;
    }
    const high = Math.ceil(Math.log10(Math.max(...sizes)));
    const low = Math.max(Math.floor(Math.log10(Math.min(...sizes))), high - 7);
    const x = (temperature) => left + where(temperature) * (width - left - right);
    const y = (size) => top + ((high - Math.max(Math.log10(Math.max(size, 1e-300)), low)) / (high - low)) * (height - top - bottom);
    const path = (key) => lines.map((line, index) => `${index ? "L" : "M"}${x(steps[index]).toFixed(1)},${y(line[key]).toFixed(1)}`).join("");
    const every = high - low > 4 ? 2 : 1;
    const decades = Array.from({ length: high - low + 1 }, (_, index) => high - index).filter((power) => (high - power) % every === 0);
    const limit = here.gradientLimit > 0 ? y(here.gradientLimit) : null;
    chart.replaceChildren(s("svg", {
      width, height, role: "img",
      "aria-label": `Two lines over the temperature. Without T² the gradient falls to ${readable(lines.at(-1).gradient)} at T = 100; with T² it comes to rest at ${readable(here.gradientLimit)}.`,
    },
      decades.map((power) => s("g", {},
        s("line", { class: "cv-grid", x1: left, x2: width - right, y1: y(10 ** power), y2: y(10 ** power) }),
        s("text", { x: left - 7, y: y(10 ** power) + 4, "text-anchor": "end" }, ...powerOfTen(power)))),
      [0.1, 1, 10, 100].map((tick) => s("g", {},
        s("line", { class: "cv-grid", x1: x(tick), x2: x(tick), y1: top, y2: height - bottom }),
        s("text", { x: x(tick), y: height - bottom + 15, "text-anchor": tick === 100 ? "end" : "middle" }, String(tick)))),
      s("text", { x: (left + width - right) / 2, y: height - 3, "text-anchor": "middle" }, "temperature T"),
      limit === null ? null : s("line", { class: "cv-limit", x1: left, x2: width - right, y1: limit, y2: limit }),
      limit === null ? null : s("text", { class: "cv-faint", x: left + 4, y: Math.max(limit - 5, top + 9) }, "limit for T → ∞"),
      s("path", { class: "cv-curve cv-without", d: path("gradient") }),
      s("path", { class: "cv-curve", d: path("gradientTimesT2") }),
      s("line", { class: "cv-now", x1: x(state.temperature), x2: x(state.temperature), y1: top, y2: height - bottom }),
      s("circle", { class: "cv-dot cv-hollow", cx: x(state.temperature), cy: y(here.gradient), r: 5 }),
      s("circle", { class: "cv-dot", cx: x(state.temperature), cy: y(here.gradientTimesT2), r: 5 }),
    ));
  }
}

function same(a, b) {
  return a.length === b.length && a.every((value, index) => value === b[index]);
}

function powerOfTen(power) {
  if (power >= -2 && power <= 3) return [String(Number((10 ** power).toPrecision(1)))];
  return ["10", s("tspan", { dy: -5, "font-size": "9px" }, String(power).replace("-", "−"))];
}

export default { render };
