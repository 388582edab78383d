import { calmly, field, h, onWidth, readable, s, show } from "./shared.js";

const ROLES = ["healthy", "switched", "yours"];

// ---- The choices of failure_lab.py, line for line; tests/test_failure_lab.py compares the two.

function shownRuns(lab, on) {
  const known = new Map(lab.switches.map((one) => [one.key, one]));
  const chosen = [...on].filter((key) => !known.get(key).needs || on.has(known.get(key).needs));
  const arm = (keys) => lab.arms.find(([these]) => these.join() === keys.sort().join())[1];
  return [arm(chosen.filter((key) => known.get(key).setting)), arm(chosen)];
}

/** The last place in `steps` that is not after `step`. */
const placeOf = (steps, step) => Math.max(0, steps.filter((at) => at <= step).length - 1);

function reading(run, step, measure) {
  return measure === "loss" ? run.loss[placeOf(run.lossSteps, step)] : run.measures[measure][placeOf(run.steps, step)];
}

// ---- The picture.

const worded = (value, measure) => `${readable(value, measure.digits)}${measure.unit ? ` ${measure.unit}` : ""}`;

function render({ model, el }) {
  const labs = model.get("labs"), yours = model.get("yours"), yourLab = model.get("yourLab");
  const switchedOn = new Map(labs.map((lab) => [lab.key, new Set(lab.key === model.get("lab") ? model.get("on") : [])]));
  const state = { lab: labs.find((lab) => lab.key === model.get("lab")), step: Infinity };

  const labChoice = labs.map((lab) => h("label", { class: "cv-choice" },
    h("input", { type: "radio", name: "lab", "data-lab": lab.key, checked: lab === state.lab, onchange: () => {
      state.lab = lab;
      state.step = Infinity;
      build();
    } }), h("span", {}, lab.name)));
  const switches = h("div", { class: "cv-switches" });
  const about = h("p", { class: "cv-about" });
  const slider = h("input", { type: "range", "data-control": "step", "aria-label": "Training step", oninput: () => {
    state.step = state.lab.runs[0].steps[Number(slider.value)];
    draw("slider");
  } });
  const stepText = h("b", { class: "cv-step" });
  const key = h("div", { class: "cv-key" });
  const charts = h("div", { class: "cv-charts" });
  const rowsTitle = h("div", { class: "cv-rows-title" });
  const text = h("div", { class: "cv-text" });
  const rows = h("div", { class: "cv-rows" });
  const summary = h("p", { class: "cv-summary", "aria-live": "polite" });
  const speak = calmly((said) => { summary.textContent = said; });
  let plots = [];

  // A form keeps the names of the radio buttons apart from those of another view on the page.
  el.append(
    h("div", { class: "cv-title" }, model.get("title")),
    h("form", { onsubmit: (event) => event.preventDefault(), autocomplete: "off" },
      h("fieldset", { class: "cv-labs" }, h("legend", { class: "cv-name" }, "Lab"), labChoice),
      about,
      switches,
      h("div", { class: "cv-stepper" }, field("Training step", slider, "cv-slider"), stepText)),
    key, charts, rowsTitle, text, rows, summary,
  );
  build();

  function runs() {
    const [healthy, switched] = shownRuns(state.lab, switchedOn.get(state.lab.key));
    const found = [[ROLES[0], state.lab.runs[healthy]]];
    if (switched !== healthy) found.push([ROLES[1], state.lab.runs[switched]]);
    if (yours && state.lab.key === yourLab) found.push([ROLES[2], yours]);
    return found;
  }

  /** Everything that depends on the lab only. */
  function build() {
    const { lab } = state, on = switchedOn.get(lab.key), steps = lab.runs[0].steps;
    about.textContent = lab.about;
    const boxes = lab.switches.map((one) => {
      const box = h("input", { type: "checkbox", "data-switch": one.key, checked: on.has(one.key), onchange: () => {
        if (box.checked) on.add(one.key); else on.delete(one.key);
        arrange();
        draw("switch");
      } });
      return { one, box, node: h("label", { class: `cv-choice${one.setting ? " cv-setting" : ""}` }, box, h("span", {}, one.label)) };
    });
    const arrange = () => boxes.forEach(({ one, box, node }) => {
      box.disabled = Boolean(one.needs) && !on.has(one.needs);
      node.classList.toggle("cv-off", box.disabled);
      if (box.disabled) { box.checked = false; on.delete(one.key); }
    });
    arrange();
    const mistakes = boxes.filter(({ one }) => !one.setting), settings = boxes.filter(({ one }) => one.setting);
    switches.replaceChildren(
      h("fieldset", {}, h("legend", { class: "cv-name" }, "Mistakes"), mistakes.map(({ node }) => node)),
      settings.length ? h("fieldset", {}, h("legend", { class: "cv-name" }, "Setting of both runs"), settings.map(({ node }) => node)) : "",
      h("ul", { class: "cv-why" }, boxes.map(({ one }) => h("li", { "data-why": one.key, hidden: true }, h("b", {}, `${one.label}: `), one.about))));
    Object.assign(slider, { min: 0, max: steps.length - 1, step: 1 });
    if (!steps.includes(state.step)) state.step = steps.at(-1);
    slider.value = steps.indexOf(state.step);
    plots = lab.measures.map((measure) => {
      const paper = h("div", { class: "cv-chart" }), values = h("span", { class: "cv-now-values" });
      const plot = { measure, paper, values, width: 0 };
      onWidth(paper, (width) => { plot.width = width; chart(plot); });
      return plot;
    });
    charts.replaceChildren(...plots.map(({ measure, paper, values }) =>
      h("figure", { "data-chart": measure.key }, h("figcaption", {}, h("span", { class: "cv-chart-name" }, measure.name), values), paper)));
    draw("lab");
  }

  function draw(cause) {
    const shown = runs(), { lab, step } = state, steps = lab.runs[0].steps;
    stepText.textContent = `${step} of ${steps.at(-1)}`;
    slider.setAttribute("aria-valuetext", `step ${step} of ${steps.at(-1)}`);
    const on = switchedOn.get(lab.key);
    for (const item of switches.querySelectorAll("[data-why]")) item.hidden = !on.has(item.dataset.why);
    key.replaceChildren(...shown.map(([role, run]) => h("span", { class: `cv-entry cv-${role}`, "data-run": role },
      h("i", { class: "cv-dash" }), role === "yours" ? `your run (${run.name})` : role === "healthy" ? `healthy: ${run.name}` : `with these switches: ${run.name}`)));
    for (const plot of plots) {
      plot.values.replaceChildren(...shown.map(([role, run]) => {
        const value = h("b", { class: `cv-${role}`, "data-measure": plot.measure.key, "data-role": role });
        show(value, reading(run, step, plot.measure.key), worded(reading(run, step, plot.measure.key), plot.measure));
        return value;
      }));
      chart(plot);
    }
    drawRows(shown);
    const first = lab.measures[0];
    const said = `Step ${step}, ${first.name}: ` + shown.map(([role, run]) =>
      `${{ healthy: "healthy", switched: "with these switches", yours: "your run" }[role]} ${worded(reading(run, step, first.key), first)}`).join(", ") +
      (shown.length === 1 ? ". Switch a mistake on to see its run beside this one." : ".");
    if (cause === "lab") summary.textContent = said; else speak(said);
  }

  function drawRows(shown) {
    const { lab, step } = state;
    const at = shown.map(([role, run]) => [role, run.shown[placeOf(run.steps, step)]]);
    rowsTitle.textContent = { words: "The hidden words, and what is answered at this step", chance: "How positive does the student find these sentences?",
      distance: "How far is the state of each token from the mean state?" }[lab.kind];
    text.replaceChildren(...lab.text.map((line) => h("p", {}, line.split(/(\[\d+\])/).map((part, index) => (index % 2 ? h("b", {}, part) : part)))));
    const names = { healthy: "healthy", switched: "switched", yours: "yours" };
    const largest = Math.max(1e-9, ...shown.flatMap(([, run]) => run.shown.flat()).filter(Number.isFinite));
    const cell = (role, value, truth) => {
      if (lab.kind === "distance") {
        return h("td", { "data-row-role": role }, h("span", { class: "cv-track" }, h("span", { class: `cv-fill cv-${role}`, style: `width:${(100 * value / largest).toFixed(1)}%` })),
          h("span", { class: "cv-number-text" }, value.toFixed(2)));
      }
      const answer = lab.kind === "words" ? value : `${value}\u00a0%`;
      const right = lab.kind === "words" ? value === truth : (value >= 50) === (truth === "positive");
      return h("td", { class: right ? "cv-right" : "cv-wrong", "data-row-role": role },
        h("span", { class: "cv-mark", role: "img", "aria-label": right ? "right" : "wrong" }, right ? "✓" : "✗"), h("span", { class: "cv-answer" }, answer));
    };
    const head = { words: ["", "hidden word"], chance: ["sentence", "label"], distance: ["token"] }[lab.kind];
    rows.replaceChildren(h("table", { class: `cv-table cv-${lab.kind}` },
      h("thead", {}, h("tr", {}, head.map((name) => (name ? h("th", { scope: "col" }, name) : h("td", {}))), at.map(([role]) => h("th", { scope: "col", class: `cv-${role}` }, names[role])))),
      h("tbody", {}, lab.rows.map(([label, truth], index) => h("tr", {},
        h("th", { scope: "row" }, lab.kind === "words" ? `[${label}]` : label), lab.kind === "distance" ? null : h("td", {}, truth),
        at.map(([role, values]) => cell(role, values[index], truth)))))));
  }

  function chart({ measure, paper, width }) {
    if (!width) return;
    const shown = runs(), height = 130, left = 42, right = 8, top = 8, bottom = 20;
    const lines = shown.map(([role, run]) => [role, measure.key === "loss" ? run.lossSteps : run.steps, measure.key === "loss" ? run.loss : run.measures[measure.key]]);
    const last = Math.max(...shown.map(([, run]) => run.end));
    // The axis covers all runs of the lab, so that it stands still while switches and steps change.
    const every = [...state.lab.runs, ...shown.map(([, run]) => run)].flatMap((run) => (measure.key === "loss" ? run.loss : run.measures[measure.key]));
    const scale = measure.log ? logScale(every) : linearScale(every);
    const x = (step) => left + (step / last) * (width - left - right);
    const y = (value) => top + (1 - scale.place(value)) * (height - top - bottom);
    paper.replaceChildren(s("svg", { width, height, role: "img",
      "aria-label": `${measure.name} over the training: ${shown.map(([role, run]) => `${role} ends at ${worded(reading(run, last, measure.key), measure)}`).join(", ")}.` },
    scale.ticks.map((tick) => s("g", {},
      s("line", { class: "cv-grid", x1: left, x2: width - right, y1: y(tick), y2: y(tick) }),
      s("text", { x: left - 6, y: y(tick) + 4, "text-anchor": "end" }, tickText(tick)))),
    [0, last].map((step) => s("text", { x: x(step), y: height - 4, "text-anchor": step ? "end" : "start" }, step ? `step ${step}` : "0")),
    s("line", { class: "cv-now", x1: x(state.step), x2: x(state.step), y1: top, y2: height - bottom }),
    lines.map(([role, steps, values]) => s("path", { class: `cv-curve cv-${role}`, "data-curve": role,
      d: values.map((value, index) => `${index ? "L" : "M"}${x(steps[index]).toFixed(1)},${y(value).toFixed(1)}`).join("") })),
    shown.map(([role, run]) => s("circle", { class: `cv-dot cv-${role}`, cx: x(state.step), cy: y(reading(run, state.step, measure.key)), r: 3.5 }))));
  }
}

function linearScale(values) {
  const highest = Math.max(...values, 1e-9), unit = 10 ** Math.floor(Math.log10(highest));
  const size = [0.25, 0.5, 1, 2.5, 5].map((factor) => factor * unit).find((one) => highest / one <= 4);
  const top = Math.ceil(highest / size) * size;
  return { place: (value) => value / top, ticks: Array.from({ length: Math.round(top / size) + 1 }, (_, index) => index * size) };
}

function logScale(values) {
  const floor = 1e-6, logs = values.map((value) => Math.log10(Math.max(value, floor)));
  const low = Math.min(...logs) - 0.05, high = Math.max(...logs) + 0.05;
  const whole = Array.from({ length: Math.floor(high) - Math.ceil(low) + 1 }, (_, index) => 10 ** (Math.ceil(low) + index));
  const within = (digits) => digits.flatMap((digit) => Array.from({ length: 14 }, (_, index) => digit * 10 ** (index - 7)))
    .filter((tick) => Math.log10(tick) >= low && Math.log10(tick) <= high).sort((a, b) => a - b);
  const coarse = within([1, 2, 5]), fine = coarse.length > 2 ? coarse : within([1, 2, 3, 4, 5, 6, 8]);
  const ticks = whole.length >= 3 ? whole.filter((_, index) => (whole.length - 1 - index) % Math.ceil(whole.length / 4) === 0) : fine.length > 5 ? fine.filter((_, index) => index % 2 === 0) : fine;
  return { place: (value) => (Math.log10(Math.max(value, floor)) - low) / (high - low), ticks };
}

const tickText = (tick) => (tick >= 1000 ? `${tick / 1000}k` : String(Number(tick.toPrecision(2))));

export default { render };
