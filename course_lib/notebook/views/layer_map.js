import { calmly, field, h, onWidth, s } from "./shared.js";

// ---- The rules of layer_maps.py and the words of layer_map.py; tests/test_layer_map_view.py compares the two.

const range = (from, to) => Array.from({ length: Math.max(to - from + 1, 0) }, (_, index) => from + index);
const nearest = (numerator, denominator) => -Math.floor((denominator - 2 * numerator) / (2 * denominator));

function depthProblem(student, teacher, smallest = 1) {
  if (student < smallest) {
    return `A student of ${student} layer(s) is too shallow: it needs ${smallest}${smallest > 1 ? ", because the last layer is left out" : ""}.`;
  }
  if (student > teacher) {
    return `The student (${student} layers) is deeper than its teacher (${teacher} layers); write the pairs yourself and pass them to check().`;
  }
  return null;
}

function unevenProblem(student, teacher) {
  if (teacher % student === 0) return null;
  const divisors = range(1, teacher).filter((depth) => teacher % depth === 0);
  return `${student} student layers do not divide ${teacher} teacher layers evenly. Take a student of [${divisors.join(", ")}] layers, ` +
    "pass when_uneven='round', or write the pairs yourself and pass them to check().";
}

/** Each rule: how shallow a student may be, whether the depths must divide, and the pairs. */
const RULES = {
  skip: { smallest: 2, even: true, pairs: (student, teacher) => range(1, student - 1).map((i) => [i, i * teacher / student]) },
  last: { smallest: 2, pairs: (student, teacher) => range(1, student - 1).map((i) => [i, teacher - student + i]) },
  uniform: { even: true, pairs: (student, teacher) => range(0, student).map((i) => [i, i * teacher / student]) },
  top: { pairs: (student, teacher) => range(0, student).map((i) => [i, i && i + teacher - student]) },
  bottom: { pairs: (student) => range(0, student).map((i) => [i, i]) },
  distilbert: { even: true, pairs: (student, teacher) => range(1, student).map((i) => [i, (i - 1) * teacher / student + 1]) },
  distilbert_code: {
    pairs: (student, teacher) => range(0, student - 1).map((i) => [i + 1, nearest(i * (teacher - 1), Math.max(student - 1, 1)) + 1]),
  },
  theseus: { even: true, pairs: (student, teacher) => range(1, teacher).map((t) => [Math.floor((t - 1) / (teacher / student)) + 1, t]) },
};

function presetPairs(preset, student, teacher) {
  const rule = RULES[preset];
  const problem = depthProblem(student, teacher, rule.smallest) ?? (rule.even ? unevenProblem(student, teacher) : null);
  return problem ? { pairs: [], problem } : { pairs: rule.pairs(student, teacher), problem: null };
}

function checkProblem(pairs, depths) {
  if (!pairs.length) return "The layer map is empty: no student layer would learn anything.";
  for (const pair of pairs) {
    for (const [side, who] of ["student", "teacher"].entries()) {
      if (pair[side] < 0 || pair[side] > depths[side]) {
        return `Layer map (${pair.join(", ")}): there is no ${who} layer ${pair[side]}. The student has ${depths[0]} layers and ` +
          `the teacher ${depths[1]}; valid ${who} layers are 0..${depths[side]} (0 = embedding output). ` +
          "A list that counts blocks from 0 goes through from_zero_based_blocks first.";
      }
    }
  }
  return null;
}

const theirs = (pairs, student) => pairs.filter((pair) => pair[0] === student).map((pair) => pair[1]);
const named = (who, layer) => (layer ? `${who} layer ${layer}` : `${who} embeddings`);
const listed = (layers) => (layers.length > 1 ? `${layers.slice(0, -1).join(", ")} and ${layers.at(-1)}` : String(layers[0]));

function problemOf(pairs, depths, kinds) {
  const problem = checkProblem(pairs, depths);
  if (problem) return problem;
  if (!kinds.length) return "No kind of term is chosen: the lines mean nothing.";
  const zero = kinds.includes("cls") && pairs.find((pair) => pair.includes(0));
  if (zero) {
    return `Pair (${zero.join(", ")}) compares [CLS] at layer 0, the embeddings. There [CLS] is the same vector for every sentence: it teaches nothing.`;
  }
  const mixed = kinds.includes("copy") && pairs.find((pair) => pair.includes(0) && pair[0] !== pair[1]);
  if (mixed) return `Pair (${mixed.join(", ")}): embeddings can only be copied from embeddings, a block from a block.`;
  const many = kinds.includes("copy") && pairs.find((pair) => theirs(pairs, pair[0]).length > 1);
  if (many) {
    return `Student layer ${many[0]} cannot start as a copy of ${theirs(pairs, many[0]).length} teacher layers: the last copy would overwrite the others.`;
  }
  if (kinds.includes("replace") && !covers(pairs, depths)) {
    return `Replacing needs groups: the groups of student layers 1 to ${depths[0]}, in order, must be the teacher layers 1 to ${depths[1]}, each of them once.`;
  }
  if (kinds.join() === "attention" && pairs.every((pair) => pair.includes(0))) {
    return "Attention exists only in blocks, and no pair joins two blocks: no term is left.";
  }
  return null;
}

function covers(pairs, depths) {
  const groups = range(1, depths[0]).map((student) => theirs(pairs, student));
  return groups.every((group) => group.length) && pairs.every((pair) => pair[0]) &&
    groups.flat().join() === range(1, depths[1]).join();
}

const WRITE = {
  hidden: (a, b) => `MSE(${named("student", a)}, ${named("teacher", b)})`,
  attention: (a, b) => `MSE(attention of student layer ${a}, attention of teacher layer ${b})`,
  cls: (a, b) => `‖[CLS] of student layer ${a} − [CLS] of teacher layer ${b}‖²`,
  copy: (a, b) => `${named("student", a)} start${a ? "s" : ""} as a copy of ${named("teacher", b)}`,
};

function rowsOf(kind, pairs) {
  if (kind === "replace") {
    return [...new Set(pairs.map((pair) => pair[0]))].map((student) => {
      const group = theirs(pairs, student);
      return [`${student} ← ${group.join(", ")}`, `student layer ${student} in the place of teacher layer${group.length > 1 ? "s" : ""} ${listed(group)}`];
    });
  }
  return pairs.filter((pair) => kind !== "attention" || !pair.includes(0)).map(([a, b]) => [`${a} ← ${b}`, WRITE[kind](a, b)]);
}

function notesOf(pairs, depths, kinds) {
  const notes = [];
  if (kinds.includes("attention") && pairs.some((pair) => pair.includes(0))) {
    notes.push("Attention exists only in blocks: a line at layer 0 makes no attention term.");
  }
  if (kinds.includes("cls") && pairs.some((pair) => pair[1] === depths[1])) {
    notes.push("The teacher’s last layer is in the map. PKD leaves it out: the teacher’s answers already speak for it.");
  }
  if (kinds.includes("copy")) notes.push("Weights are copied once, before training: that is no loss term.");
  if (kinds.includes("replace")) notes.push("Replaced blocks learn from the task’s own loss: the lines are no loss terms.");
  if (pairs.some((a) => pairs.some((b) => a[0] < b[0] && a[1] > b[1]))) {
    notes.push("Lines cross: a later student layer learns from an earlier teacher layer.");
  }
  for (const [side, who] of ["Student", "Teacher"].entries()) {
    const free = range(1, depths[side]).filter((layer) => !pairs.some((pair) => pair[side] === layer));
    if (free.length) notes.push(`${who} layer${free.length > 1 ? "s" : ""} without a line: ${listed(free)}.`);
  }
  return notes;
}

// ---- The picture.

const TOP = 26, GAP = 132, OFFSET = 5;  // pixels: centre of the teacher's row, between the rows, between parallel lines

function render({ model, el }) {
  const kinds = model.get("kinds"), losses = model.get("losses"), presets = model.get("presets"), deepest = model.get("deepest");
  const state = { depths: [...model.get("depths")], pairs: model.get("pairs").map((pair) => [...pair]), preset: model.get("preset"),
    terms: new Set(model.get("terms")), chosen: 1, problem: null, width: 0 };
  if (state.preset) state.problem = presetPairs(state.preset, ...state.depths).problem;

  // Controls.
  const presetButtons = presets.map(([key, label, terms]) => h("button", {
    type: "button", "data-preset": key,
    onclick: () => { state.terms = new Set(terms); usePreset(key); update(); },
  }, label));
  const depthMenus = ["Student", "Teacher"].map((who, side) => h("select", {
    "data-control": `${who.toLowerCase()}-layers`,
    onchange: (event) => {
      state.depths[side] = Number(event.target.value);
      state.chosen = Math.min(state.chosen, state.depths[0]);
      if (state.preset) usePreset(state.preset);
      update();
    },
  }, range(1, deepest).map((depth) => h("option", { value: depth }, String(depth)))));
  const kindButtons = kinds.map(([key, label]) => h("button", {
    type: "button", "data-kind": key,
    onclick: () => { if (!state.terms.delete(key)) state.terms.add(key); update(); },
  }, s("svg", { width: 30, height: 8, "aria-hidden": "true" }, s("line", { class: `cv-edge-line cv-kind-${key}`, x1: 2, x2: 28, y1: 4, y2: 4 })), label));
  const menu = h("select", {
    "data-control": "learns-from",
    onchange: (event) => { move(event.target.value === "none" ? null : Number(event.target.value)); },
  });
  const menuField = field("", menu);

  const names = ["Teacher", "Student"].map(() => h("div", { class: "cv-row-name" }));
  const picture = h("div", { class: "cv-graph" });
  const verdict = h("p", { class: "cv-verdict" });
  const table = h("table", { class: "cv-table cv-terms" });
  const notes = h("ul", { class: "cv-notes" });
  const spoken = h("p", { class: "cv-spoken", "aria-live": "polite" });
  const speak = calmly((text) => { spoken.textContent = text; });

  el.append(
    h("div", { class: "cv-title" }, model.get("title")),
    h("div", { class: "cv-row cv-presets", role: "group", "aria-label": "Published maps" }, presetButtons),
    h("div", { class: "cv-row cv-settings" }, field("Student layers", depthMenus[0]), field("Teacher layers", depthMenus[1]), menuField),
    h("div", { class: "cv-meaning", role: "group", "aria-label": "A line means" }, h("span", { class: "cv-name" }, "A line means"), kindButtons),
    names[0], picture, names[1],
    h("p", { class: "cv-help" }, "Choose a student layer, then click a teacher layer; a second click takes the line away, Shift keeps the lines that are there. ",
      "Keys: ← and → move the line, Delete takes it away, ↑ and ↓ choose the student layer."),
    verdict, table, notes, spoken,
  );
  onWidth(picture, (width) => { state.width = width; draw(); });
  update(true);

  function usePreset(key) {
    state.preset = key;
    Object.assign(state, presetPairs(key, ...state.depths));
  }

  /** The chosen student layer learns from this teacher layer alone (null: from nobody). */
  function move(teacher) {
    change(state.pairs.filter((pair) => pair[0] !== state.chosen), teacher);
  }

  function change(kept, teacher) {
    state.pairs = (teacher === null ? kept : [...kept, [state.chosen, teacher]]).sort((a, b) => a[0] - b[0] || a[1] - b[1]);
    state.preset = null;
    state.problem = null;
    update();
  }

  function clickTeacher(layer, keep) {
    const own = theirs(state.pairs, state.chosen);
    if (own.includes(layer)) change(state.pairs.filter((pair) => pair[0] !== state.chosen || pair[1] !== layer), null);
    else if (keep) change(state.pairs, layer);
    else move(layer);
  }

  function key(event) {
    const own = theirs(state.pairs, state.chosen), last = state.depths[1];
    const right = event.key === "ArrowRight";
    if (right || event.key === "ArrowLeft") {
      const from = own.length ? own[right ? own.length - 1 : 0] : (right ? -1 : last + 1);
      move(Math.min(Math.max(from + (right ? 1 : -1), 0), last));
    } else if (event.key === "ArrowUp" || event.key === "ArrowDown") {
      const count = state.depths[0] + 1;
      state.chosen = (state.chosen + (event.key === "ArrowUp" ? 1 : count - 1)) % count;
      update();
    } else if (event.key === "Delete" || event.key === "Backspace") {
      move(null);
    } else if (event.key === "Home" || event.key === "End") {
      move(event.key === "Home" ? 0 : last);
    } else {
      return;
    }
    event.preventDefault();
    picture.querySelector(`[data-student="${state.chosen}"]`).focus();
  }

  function update(first = false) {
    const chosenKinds = kinds.map(([kind]) => kind).filter((kind) => state.terms.has(kind));
    const problem = state.problem ?? problemOf(state.pairs, state.depths, chosenKinds);
    const rows = problem ? [] : chosenKinds.flatMap((kind) => rowsOf(kind, state.pairs).map((row) => [kind, ...row]));
    const remarks = problem ? [] : notesOf(state.pairs, state.depths, chosenKinds);

    presetButtons.forEach((button) => button.setAttribute("aria-pressed", String(button.dataset.preset === state.preset)));
    kindButtons.forEach((button) => button.setAttribute("aria-pressed", String(state.terms.has(button.dataset.kind))));
    depthMenus.forEach((select, side) => { select.value = state.depths[side]; });
    fillMenu();

    const count = rows.filter(([kind]) => losses.includes(kind)).length;
    const lines = `${state.pairs.length} line${state.pairs.length === 1 ? "" : "s"}`;
    const said = problem ?? `${lines}: ${count || "no"} loss term${count === 1 ? "" : "s"}.`;
    verdict.replaceChildren(problem ? h("b", {}, "Impossible. ") : "", problem ?? said);
    verdict.classList.toggle("cv-impossible", Boolean(problem));
    verdict.toggleAttribute("data-problem", Boolean(problem));
    table.hidden = !rows.length;
    table.replaceChildren(h("caption", {}, "What the lines make"),
      h("thead", {}, h("tr", {}, ["student ← teacher", "kind", "term"].map((text) => h("th", { scope: "col" }, text)))),
      h("tbody", {}, rows.map(([kind, line, text]) => h("tr", { "data-term": kind }, h("th", { scope: "row" }, line),
        h("td", {}, Object.fromEntries(kinds)[kind]), h("td", {}, text)))));
    notes.replaceChildren(...remarks.map((text) => h("li", {}, text)));
    el.setAttribute("data-pairs", JSON.stringify(state.pairs));
    const own = theirs(state.pairs, state.chosen);
    if (!first) speak(`${named("Student", state.chosen)}: ${own.length ? `learns from ${own.map((layer) => named("teacher", layer)).join(", ")}` : "no line"}. ${problem ? `Impossible. ${problem}` : said}`);
    draw();
  }

  function fillMenu() {
    const own = theirs(state.pairs, state.chosen);
    menuField.firstChild.textContent = `${named("Student", state.chosen)} learn${state.chosen ? "s" : ""} from`;
    const options = [["none", "nobody"], ...range(0, state.depths[1]).map((layer) => [String(layer), named("teacher", layer)])];
    const several = own.length > 1 || own.some((layer) => layer > state.depths[1]);
    if (several) options.unshift(["several", own.map((layer) => `layer ${layer}`).join(", ")]);
    menu.replaceChildren(...options.map(([value, text]) => h("option", { value, disabled: value === "several" }, text)));
    menu.value = several ? "several" : String(own[0] ?? "none");
  }

  function draw() {
    if (!state.width) return;
    const size = Math.min(34, Math.floor((state.width - 8) / (Math.max(...state.depths) + 1)) - 3);
    const x = (layer, side) => size / 2 + 4 + (layer / state.depths[side]) * (state.width - size - 8);
    const bottom = TOP + GAP;
    const shown = kinds.map(([kind]) => kind).filter((kind) => state.terms.has(kind));
    const drawn = state.pairs.filter((pair) => pair.every((layer, side) => layer >= 0 && layer <= state.depths[side]));
    const lines = drawn.flatMap(([a, b]) => shown.map((kind, index) => {
      const shift = (index - (shown.length - 1) / 2) * OFFSET;
      return s("line", { class: `cv-edge-line cv-kind-${kind} ${a === state.chosen ? "cv-of-chosen" : ""}`, "data-edge": `${a}-${b}-${kind}`,
        x1: x(a, 0) + shift, x2: x(b, 1) + shift, y1: bottom - size / 2, y2: TOP + size / 2 });
    }));
    const place = (layer, side) => `left:${x(layer, side).toFixed(1)}px;top:${side ? TOP : bottom}px;width:${size}px;height:${size}px`;
    const student = (layer) => {
      const own = theirs(state.pairs, layer);
      return h("button", {
        type: "button", class: "cv-node cv-student", style: place(layer, 0), "data-student": layer, tabindex: layer === state.chosen ? 0 : -1,
        "aria-pressed": String(layer === state.chosen),
        "aria-label": `${named("Student", layer)}: ${own.length ? `learns from ${own.map((one) => named("teacher", one)).join(", ")}` : "no line"}`,
        onclick: () => { state.chosen = layer; update(); picture.querySelector(`[data-student="${layer}"]`).focus(); },
        onkeydown: key,
      }, String(layer));
    };
    const teacher = (layer) => h("button", {
      type: "button", class: "cv-node cv-teacher", style: place(layer, 1), "data-teacher": layer, tabindex: -1,
      "aria-label": `${named("Teacher", layer)}: ${named("student", state.chosen)} learn${state.chosen ? "s" : ""} from here`,
      "aria-pressed": String(theirs(state.pairs, state.chosen).includes(layer)),
      onclick: (event) => { clickTeacher(layer, event.shiftKey); picture.querySelector(`[data-teacher="${layer}"]`).focus(); },
    }, String(layer));
    names[0].textContent = `Teacher, ${state.depths[1]} layer${state.depths[1] === 1 ? "" : "s"} (0 = embeddings)`;
    names[1].textContent = `Student, ${state.depths[0]} layer${state.depths[0] === 1 ? "" : "s"} (0 = embeddings)`;
    picture.style.height = `${bottom + size / 2 + 6}px`;
    picture.replaceChildren(
      s("svg", { width: state.width, height: bottom + size / 2 + 6, "aria-hidden": "true" }, lines),
      ...range(0, state.depths[1]).map(teacher), ...range(0, state.depths[0]).map(student));
  }
}

export default { render };
