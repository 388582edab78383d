import { calmly, field, h, onWidth, readable, s, show } from "./shared.js";

// ---- The arithmetic of bottleneck.py; tests/test_bottleneck_view.py compares the two.

const linear = (from, to) => from * to + to;
const sum = (values) => Object.values(values).reduce((all, value) => all + value, 0);

function bottleneckNumbers(shape, tokens, constants) {
  const { body, layers, feed_forwards: stack } = shape, inside = shape.bottleneck > 0;
  const inner = shape.bottleneck || body, wide = constants.wider * inner;
  const table = shape.words === "full" ? body : Math.floor(body / 4);
  const read = shape.words === "full" ? 0 : table * (shape.words === "trigrams" ? 3 : 1);
  const parameters = {
    words: shape.vocabulary * table,
    embeddings: (constants.positions + constants.types) * body + (read ? linear(read, body) : 0) + 2 * body,
    bottlenecks: inside ? layers * (2 * (linear(body, inner) + 2 * inner) + linear(inner, body) + 2 * body) : 0,
    attention: layers * (3 * linear(inner, inner) + linear(body, inner) + 2 * inner),
    feed_forward: layers * stack * (linear(inner, wide) + linear(wide, inner) + 2 * inner),
    pooler: linear(body, body),
  };
  const operations = {
    embeddings: 2 * read * body,
    bottlenecks: inside ? layers * 6 * body * inner : 0,
    attention: layers * (6 * inner * inner + 2 * body * inner + 4 * tokens * inner),
    feed_forward: layers * stack * 4 * inner * wide,
  };
  const blocks = parameters.bottlenecks + parameters.attention + parameters.feed_forward;
  return { parameters, operations, blocks, inner, wide, total: sum(parameters), block: blocks / layers,
    flops: sum(operations), balance: parameters.feed_forward / (blocks - parameters.feed_forward) };
}

// ---- The picture.

const whole = (value) => Math.round(value).toLocaleString("en-US");
const millions = (value, digits = 1) => `${(value / 1e6).toLocaleString("en-US", { minimumFractionDigits: digits, maximumFractionDigits: digits })} M`;
const times = (ratio) => `${readable(ratio, 2)} ×`;

function render({ model, el }) {
  const presets = model.get("presets"), limits = model.get("limits"), parts = model.get("parts");
  const tokens = model.get("tokens"), constants = model.get("constants"), kinds = Object.keys(parts);
  const numbersOf = (shape) => bottleneckNumbers(shape, tokens, constants);
  const shapeOf = ({ name: _, ...shape }) => shape;
  const state = { ...shapeOf(presets.find((preset) => preset.name === model.get("start"))) };
  let other = presets[0], sceneWidth = 0, barWidth = 0;

  const buttons = presets.map((preset) => h("button", {
    type: "button", "data-preset": preset.name,
    onclick: () => { Object.assign(state, shapeOf(preset)); update("preset"); },
  }, preset.name));

  const complaint = h("span", { class: "cv-complaint", role: "status" });
  const knob = (key, text, step) => {
    const [min, max] = limits[key];
    const input = h("input", {
      type: "number", "data-control": key, inputmode: "numeric", min, max, step,
      oninput: () => {
        const value = input.valueAsNumber, good = Number.isInteger(value) && value >= min && value <= max;
        input.setAttribute("aria-invalid", String(!good));
        complaint.textContent = good ? "" : `Please write a whole number from ${min} to ${max}.`;
        if (good) { state[key] = value; update(key); }
      },
      onchange: () => { if (input.getAttribute("aria-invalid") === "true") update("reset"); },
    });
    return { key, input, node: field(text, input, "cv-knob") };
  };
  const knobs = [knob("layers", "layers", 1), knob("body", "body width", 16),
    knob("bottleneck", "bottleneck (0: none)", 8), knob("feed_forwards", "feed-forwards", 1)];
  const choice = (key, text, entries, changed) => {
    const select = h("select", { "data-control": key, onchange: () => changed(select.value) },
      entries.map(([value, label]) => h("option", { value }, label)));
    return { select, node: field(text, select) };
  };
  const words = choice("words", "word table", Object.entries(model.get("word_tables")), (value) => { state.words = value; update("words"); });
  const vocabulary = choice("vocabulary", "vocabulary", model.get("vocabularies").map((count) => [String(count), whole(count)]),
    (value) => { state.vocabulary = Number(value); update("vocabulary"); });
  const compare = choice("other", "compare with", presets.map((preset, index) => [String(index), preset.name]),
    (value) => { other = presets[Number(value)]; update("other"); });

  // Tiles: one number each, with a sentence.
  const tile = (key, name) => {
    const value = h("span", { class: "cv-value", "data-quantity": key }), note = h("span", { class: "cv-note" });
    return { node: h("div", { class: "cv-tile" }, h("span", { class: "cv-name" }, name), value, note), value, note };
  };
  const tiles = { total: tile("total", "Parameters"), block: tile("block", "One block"),
    flops: tile("flops", "Operations per token"), balance: tile("balance", "Feed-forward : rest of the block") };
  tiles.balance.note.textContent = "parameters; about 2 in a BERT block";

  const rows = kinds.map((kind) => ({ kind, mine: h("td", { "data-part": kind }), share: h("td"), theirs: h("td") }));
  const otherName = h("th", { scope: "col" });
  const legend = h("table", { class: "cv-table cv-legend" },
    h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "part"), h("th", { scope: "col" }, "this model"), h("th", { scope: "col" }, "share"), otherName)),
    h("tbody", {}, rows.map((row) => h("tr", {}, h("th", { scope: "row" }, h("i", { class: `cv-key cv-part-${row.kind}` }), parts[row.kind]), row.mine, row.share, row.theirs))));
  const scene = h("div", { class: "cv-scene" }), bars = h("div", { class: "cv-bars" });
  const summary = h("p", { class: "cv-summary", "aria-live": "polite" });
  const speak = calmly((text) => { summary.textContent = text; });

  el.append(
    h("div", { class: "cv-title" }, model.get("title")),
    h("div", { class: "cv-row cv-presets", role: "group", "aria-label": "Examples" }, buttons),
    h("div", { class: "cv-row" }, knobs.map((one) => one.node), words.node, vocabulary.node, compare.node),
    complaint,
    h("div", { class: "cv-two" },
      h("div", {}, h("div", { class: "cv-caption" }, "One block, from below to above. Each box is as wide as its tensor; a slope is a linear layer. The dashed line carries the body past the block."), scene),
      h("div", {}, h("div", { class: "cv-caption" }, "Parameters of the whole model"), bars, h("div", { class: "cv-scroll", tabindex: "0", role: "group", "aria-label": "Parameters by part" }, legend))),
    h("div", { class: "cv-tiles" }, Object.values(tiles).map((one) => one.node)),
    summary,
  );
  onWidth(scene, (now) => { sceneWidth = now; drawScene(); });
  onWidth(bars, (now) => { barWidth = now; drawBars(); });
  update("start");

  function update(cause) {
    const mine = numbersOf(state), theirs = numbersOf(other);
    const same = (preset) => Object.entries(shapeOf(preset)).every(([key, value]) => state[key] === value);
    buttons.forEach((node, index) => node.setAttribute("aria-pressed", String(same(presets[index]))));
    for (const one of knobs) {
      if (cause === one.key) continue; // do not write into the field that is being written in
      one.input.value = state[one.key];
      one.input.setAttribute("aria-invalid", "false");
    }
    if (cause === "preset" || cause === "reset") complaint.textContent = "";
    words.select.value = state.words;
    vocabulary.select.value = String(state.vocabulary);
    const against = (now, then) => `${times(then / now)} smaller than ${other.name}`;
    show(tiles.total.value, mine.total, millions(mine.total));
    tiles.total.note.textContent = compared(mine.total, theirs.total);
    show(tiles.block.value, mine.block, whole(mine.block));
    tiles.block.note.textContent = `${state.layers} of them: ${millions(mine.blocks)}; ${compared(mine.blocks, theirs.blocks)}`;
    show(tiles.flops.value, mine.flops, millions(mine.flops));
    tiles.flops.note.textContent = `text of ${tokens} tokens; ${compared(mine.flops, theirs.flops)}`;
    show(tiles.balance.value, mine.balance, readable(mine.balance, 2));
    otherName.textContent = other.name;
    for (const row of rows) {
      show(row.mine, mine.parameters[row.kind], whole(mine.parameters[row.kind]));
      row.share.textContent = `${(100 * mine.parameters[row.kind] / mine.total).toFixed(1)} %`;
      row.theirs.textContent = whole(theirs.parameters[row.kind]);
    }
    drawScene();
    drawBars();
    const largest = kinds.reduce((a, b) => mine.parameters[a] >= mine.parameters[b] ? a : b);
    const text = `${whole(mine.total)} parameters, ${compared(mine.total, theirs.total)}. Largest part: ${parts[largest]}, ` +
      `${(100 * mine.parameters[largest] / mine.total).toFixed(0)} %.`;
    if (cause === "start") summary.textContent = text; else speak(text);

    function compared(now, then) {
      if (now === then) return `as ${other.name}`;
      return now < then ? against(now, then) : `${times(now / then)} ${other.name}`;
    }
  }

  // One block: boxes as wide as the tensors, slopes between them.
  function drawScene() {
    if (!sceneWidth) return;
    const mine = numbersOf(state), left = 118, room = sceneWidth - left - 22, centre = left + room / 2;
    const scale = room / Math.max(state.body, mine.wide), half = (width) => Math.max(width * scale, 3) / 2;
    const shapes = [], bar = 18, slope = 22;
    let y = 0;
    const put = (height, below, above, kind, label) => {
      shapes.push({ y, height, below, above, kind, label });
      y += height;
    };
    put(bar, state.body, state.body, "body", `body in, ${state.body}`);
    if (state.bottleneck) put(slope, state.body, mine.inner, "bottlenecks", "bottleneck");
    put(bar + 6, mine.inner, mine.inner, "attention", `attention, ${mine.inner}`);
    const each = state.feed_forwards > 5 ? slope * 0.6 : slope;
    for (let index = 0; index < state.feed_forwards; index += 1) {
      put(each, mine.inner, mine.wide, "feed_forward", index ? "" : `feed-forward, ${mine.wide}`);
      put(each, mine.wide, mine.inner, "feed_forward", index || state.feed_forwards === 1 ? "" : `${state.feed_forwards} of them`);
    }
    if (state.bottleneck) put(slope, mine.inner, state.body, "bottlenecks", "bottleneck");
    put(bar, state.body, state.body, "body", `body out, ${state.body}`);
    const height = y + 8, at = (depth) => height - 4 - depth; // the text enters below
    const points = (one) => [[-half(one.below), one.y], [half(one.below), one.y], [half(one.above), one.y + one.height], [-half(one.above), one.y + one.height]]
      .map(([dx, depth]) => `${(centre + dx).toFixed(1)},${at(depth).toFixed(1)}`).join(" ");
    const [first, last] = [shapes[0], shapes.at(-1)].map((one) => at(one.y + one.height / 2));
    const edge = centre + half(state.body), rail = centre + room / 2 + 12;
    const residual = state.bottleneck ? s("path", { class: "cv-rail", d: `M${edge},${first}H${rail}V${last}H${edge}` }) : null;
    scene.replaceChildren(s("svg", {
      width: sceneWidth, height, role: "img",
      "aria-label": `One block: body ${state.body}, ${state.bottleneck ? `bottleneck ${state.bottleneck}` : "no bottleneck"}, ` +
        `attention at width ${mine.inner}, ${state.feed_forwards} feed-forward ${state.feed_forwards === 1 ? "network" : "networks"} of width ${mine.wide}, body ${state.body}.`,
    },
      shapes.map((one) => s("polygon", { class: `cv-shape cv-part-${one.kind}`, points: points(one) })),
      residual,
      shapes.filter((one) => one.label).map((one) => s("text", {
        x: 0, y: at(one.y + one.height / 2) + 4, class: "cv-small",
      }, one.label))));
  }

  // Two stacked bars on one scale: this model and the other one.
  function drawBars() {
    if (!barWidth) return;
    const models = [["this model", numbersOf(state)], [other.name, numbersOf(other)]];
    const most = Math.max(...models.map(([, numbers]) => numbers.total)), tall = 26, step = 52;
    const stacks = models.map(([name, numbers], row) => {
      let x = 0;
      const top = row * step + 17;
      const pieces = kinds.map((kind) => {
        const width = numbers.parameters[kind] / most * (barWidth - 2);
        const piece = s("rect", { class: `cv-piece cv-part-${kind}`, x: 1 + x, y: top, width, height: tall });
        x += width;
        return piece;
      });
      return s("g", {}, s("text", { x: 1, y: top - 5, class: "cv-small" }, `${name}: ${millions(numbers.total)}`), pieces);
    });
    bars.replaceChildren(s("svg", {
      width: barWidth, height: 2 * step, role: "img",
      "aria-label": models.map(([name, numbers]) => `${name}: ${kinds.map((kind) => `${parts[kind]} ${whole(numbers.parameters[kind])}`).join(", ")}.`).join(" "),
    }, stacks));
  }
}

export default { render };
