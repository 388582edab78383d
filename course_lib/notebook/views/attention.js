import { calmly, field, h, onWidth, s, show } from "./shared.js";

const DIGITS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
const CIVIDIS = ["#00224e", "#083370", "#35456c", "#4f576c", "#666970", "#7d7c78", "#948e77", "#aea371", "#c8b866", "#e5cf52", "#fee838"];

/** Three digits per number, written as two or three characters; the inverse of `pack` in attention.py. */
function unpack(text, characters = 2) {
  const thousandths = new Float64Array(text.length / characters);
  for (let i = 0; i < text.length; i += 1) {
    const at = Math.floor(i / characters);
    thousandths[at] = 64 * thousandths[at] + DIGITS.indexOf(text[i]);
  }
  return thousandths.map((value) => value / 1000);
}

/** Attention is mostly small: the square root spreads the small values over the colours. */
function colour(probability) {
  const place = Math.sqrt(probability) * (CIVIDIS.length - 1), index = Math.min(Math.floor(place), CIVIDIS.length - 2);
  const [from, to] = [CIVIDIS[index], CIVIDIS[index + 1]].map((hex) => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16)));
  return `rgb(${from.map((value, channel) => Math.round(value + (to[channel] - value) * (place - index))).join(" ")})`;
}

/** One view, or several behind a row of buttons; layer, heads and token stay chosen from one to the next. */
function render({ model, el }) {
  const examples = model.get("examples"), kept = {};
  if (!examples) return drawOne({ model, el, kept });
  const one = h("div", { class: "cv-example" });
  const buttons = examples.map((example, index) => h("button", { type: "button", "data-example": index, onclick: () => choose(index) }, example.name));
  const choose = (chosen) => {
    buttons.forEach((button, index) => button.setAttribute("aria-pressed", String(index === chosen)));
    one.replaceChildren();
    drawOne({ model: { get: (key) => examples[chosen][key] }, el: one, kept });
  };
  el.append(h("div", { class: "cv-title" }, model.get("title")), h("div", { class: "cv-row", role: "group", "aria-label": "Examples" }, buttons), one);
  choose(0);
}

function drawOne({ model, el, kept }) {
  const tokens = model.get("tokens"), titles = model.get("titles"), pairs = model.get("pairs");
  const heads = model.get("heads"), entropy = model.get("entropy"), packed = model.get("packed");
  const distances = model.get("kl_matrix")?.map((text) => unpack(text, 3)), nearest = model.get("nearest"), count = tokens.length;
  const [startPair, startHead] = model.get("start");
  // What the student's head does: "same" number as the teacher's, "nearest" to it, or a number of its own.
  const ways = [...(heads[0] === heads[1] ? [["same", "same number"]] : []), ["nearest", "nearest to it"], ...Array.from({ length: heads[1] ?? 0 }, (_, number) => [number, `head ${number}`])];
  const state = {
    pair: Math.min(kept.pair ?? startPair, pairs.length - 1), heads: [Math.min(kept.head ?? startHead, heads[0] - 1), 0],
    way: ways.some(([way]) => way === kept.way) ? kept.way : ways[0][0], query: Math.min(kept.query ?? 0, count - 1),
  };
  const unpacked = new Map();

  const distance = (teacherHead, studentHead) => distances[state.pair][teacherHead * heads[1] + studentHead];
  /** The student head that stands beside this teacher head now. */
  const partner = (head) => ({ same: head, nearest: nearest?.[state.pair][head] })[state.way] ?? state.way;

  function probabilities(side) {
    const key = `${side}/${state.pair}`;
    if (!unpacked.has(key)) unpacked.set(key, unpack(packed[side][state.pair]));
    const from = state.heads[side] * count * count;
    return unpacked.get(key).subarray(from, from + count * count);
  }

  // Controls: layer, the teacher's head, the student's head that stands beside it, and the sentence itself.
  const choose = (name, options, chosen, action) => h("select", {
    "data-control": name, onchange: (event) => { action(event.target.selectedIndex); update("choice"); },
  }, options.map((text, index) => h("option", { selected: index === chosen }, text)));
  const layerName = (pair) => pair.map((layer, side) => (titles.length > 1 ? `${titles[side]} ${layer}` : `${layer}`)).join(" → ");
  const layer = choose("layer", pairs.map(layerName), state.pair, (index) => { state.pair = index; });
  const two = titles.length > 1;
  const head = choose("head", Array.from({ length: heads[0] }, (_, number) => `head ${number}`), state.heads[0], (index) => { state.heads[0] = index; });
  const beside = choose("student-head", ways.map(([, text]) => text), ways.findIndex(([way]) => way === state.way), (index) => { state.way = ways[index][0]; });
  const strip = h("div", { class: "cv-strip", "aria-hidden": "true" });
  const stripName = h("span", { class: "cv-name" });

  const words = tokens.map((token, index) => h("button", {
    type: "button", role: "radio", class: "cv-word", "data-query": index, "aria-label": `${token}, token ${index + 1}`,
    onclick: () => pick(index), onmouseenter: () => pick(index),
    onkeydown: (event) => {
      const to = { ArrowRight: index + 1, ArrowDown: index + 1, ArrowLeft: index - 1, ArrowUp: index - 1, Home: 0, End: count - 1 }[event.key];
      if (to === undefined) return;
      event.preventDefault();
      const next = (to + count) % count;
      pick(next);
      words[next].focus();
    },
  }, token));

  const maps = titles.map((title, side) => {
    const caption = h("div", { class: "cv-map-title" });
    const box = h("div", { class: "cv-map" });
    return { title, side, caption, box, node: h("div", { class: `cv-side cv-side-${side}` }, caption, box), cells: [] };
  });

  // The chosen row in numbers.
  const looks = tokens.map((token, index) => {
    const lines = titles.map((title, side) => {
      const bar = h("span", { class: "cv-bar" });
      const value = h("span", { class: "cv-number-text", "data-attention": side, "data-key": index });
      return { bar, value, node: h("span", { class: `cv-look-line cv-side-${side}` }, h("span", { class: "cv-look-track" }, bar), value) };
    });
    const node = h("div", { class: "cv-look" }, h("span", { class: "cv-look-word" }, token), h("span", { class: "cv-look-lines" }, lines.map((line) => line.node)));
    return { node, lines };
  });
  const looksTitle = h("div", { class: "cv-looks-title" });
  const summary = h("p", { class: "cv-summary", "aria-live": "polite" });
  const speak = calmly((text) => { summary.textContent = text; });

  const gradient = `linear-gradient(to right, ${Array.from({ length: 21 }, (_, index) => colour(index / 20)).join(", ")})`;
  el.append(
    ...(model.get("title") ? [h("div", { class: "cv-title" }, model.get("title"))] : []),
    h("div", { class: "cv-row" }, field(two ? "Layers" : "Layer", layer),
      field(two ? `Head of the ${titles[0]}` : "Head", head), two ? field(`Head of the ${titles[1]}`, beside) : null,
      h("div", { class: "cv-field cv-strip-box" }, stripName, strip)),
    h("div", { class: "cv-name cv-ask" }, "Choose a token: which tokens does it look at?"),
    h("div", { class: "cv-words", role: "radiogroup", "aria-label": "Token that looks" }, words),
    h("div", { class: "cv-maps" }, maps.map((map) => map.node)),
    h("div", { class: "cv-legend", "aria-hidden": "true" }, h("span", {}, "0"), h("span", { class: "cv-ramp", style: `background:${gradient}` }), h("span", {}, "1"),
      h("span", { class: "cv-name" }, "rows look at columns; every row sums to 1")),
    looksTitle,
    h("div", { class: "cv-looks" }, looks.map((look) => look.node)),
    summary,
  );
  for (const map of maps) onWidth(map.box, (width) => drawMap(map, width));
  update("start");

  function pick(index) {
    if (index === state.query) return;
    state.query = index;
    update("query");
  }

  function drawMap(map, width) {
    const longest = Math.min(Math.max(...tokens.map((token) => token.length)), 11);
    const font = Math.max(8.5, Math.min(12, ((width - 60) / count) * 0.82));
    const margin = Math.ceil(longest * font * 0.6 + 6);
    const cell = Math.min((width - margin - 2) / count, 27);
    const cut = (token) => (token.length > 11 ? `${token.slice(0, 10)}…` : token);
    const svg = s("svg", { width: margin + cell * count + 2, height: margin + cell * count + 2, "aria-hidden": "true" });
    map.cells = [];
    map.rowNames = [];
    map.columnNames = [];
    for (let row = 0; row < count; row += 1) {
      const y = margin + row * cell;
      map.rowNames.push(svg.appendChild(s("text", { x: margin - 5, y: y + cell / 2 + font * 0.35, "text-anchor": "end", style: `font-size:${font}px` }, cut(tokens[row]))));
      map.columnNames.push(svg.appendChild(s("text", { transform: `translate(${margin + row * cell + cell / 2 + font * 0.35} ${margin - 5}) rotate(-90)`, style: `font-size:${font}px` }, cut(tokens[row]))));
      for (let column = 0; column < count; column += 1) {
        map.cells.push(svg.appendChild(s("rect", { x: margin + column * cell, y, width: cell - (cell > 9 ? 1 : 0.4), height: cell - (cell > 9 ? 1 : 0.4), onmouseenter: () => pick(row), onclick: () => pick(row) })));
      }
    }
    map.frame = svg.appendChild(s("rect", { class: "cv-frame", x: margin - 1.5, width: cell * count + 2, height: cell + 2 }));
    map.place = (row) => map.frame.setAttribute("y", margin + row * cell - 1.5);
    map.box.replaceChildren(svg);
    paint(map);
  }

  function paint(map) {
    if (!map.cells.length) return;
    const values = probabilities(map.side);
    map.cells.forEach((cell, index) => cell.setAttribute("fill", colour(values[index])));
    map.place(state.query);
    map.rowNames.forEach((name, index) => name.setAttribute("font-weight", index === state.query ? 700 : 400));
  }

  function drawStrip() {
    const values = two ? Array.from({ length: heads[0] }, (_, number) => distance(number, partner(number))) : entropy[0][state.pair];
    const top = Math.max(...values, 1e-9), mean = values.reduce((sum, value) => sum + value, 0) / values.length;
    const to = { same: "per head", nearest: `to the nearest head of the ${titles[1]}` }[state.way] ?? `to head ${state.way} of the ${titles[1]}`;
    stripName.textContent = two ? `KL ${to}: mean ${mean.toFixed(2)} nats` : "Entropy per head";
    strip.replaceChildren(...values.map((value, number) => h("span", {
      class: number === state.heads[0] ? "cv-chosen" : "", title: `head ${number}: ${value.toFixed(3)}`, "data-head-value": value,
      onclick: () => { state.heads[0] = number; update("strip"); },
    }, h("i", { style: `height:${(6 + 94 * (value / top)).toFixed(1)}%` }), h("small", {}, String(number)))));
  }

  function update(cause) {
    if (two) state.heads[1] = partner(state.heads[0]);
    Object.assign(kept, { pair: state.pair, head: state.heads[0], way: state.way, query: state.query });
    const values = titles.map((_, side) => probabilities(side));
    if (cause !== "query") {
      layer.selectedIndex = state.pair;
      head.selectedIndex = state.heads[0];
      drawStrip();
      maps.forEach((map) => {
        const at = `layer ${pairs[state.pair][map.side]}, head ${state.heads[map.side]}`;
        const nats = entropy[map.side][state.pair][state.heads[map.side]];
        map.caption.replaceChildren(h("b", {}, map.title), ` ${at} · entropy ${nats.toFixed(2)} nats`);
      });
    }
    maps.forEach(paint);
    words.forEach((word, index) => {
      word.setAttribute("aria-checked", String(index === state.query));
      word.setAttribute("tabindex", index === state.query ? "0" : "-1");
    });
    looks.forEach((look, index) => look.lines.forEach((line, side) => {
      const value = values[side][state.query * count + index];
      line.bar.style.width = `${(100 * value).toFixed(1)}%`;
      show(line.value, value, value.toFixed(3));
    }));
    looksTitle.replaceChildren("From ", h("b", {}, `“${tokens[state.query]}”`), " to each token",
      h("span", { class: "cv-key" }, titles.length < 2 ? [] : titles.map((title, side) => h("span", { class: `cv-nowrap cv-side-${side}` }, h("i", { class: "cv-swatch" }), ` ${title}`))));

    const best = titles.map((title, side) => {
      const row = values[side].subarray(state.query * count, (state.query + 1) * count);
      const at = row.indexOf(Math.max(...row));
      return `at “${tokens[at]}”${titles.length > 1 ? ` in the ${title}` : ""} (${row[at].toFixed(3)})`;
    });
    const what = state.heads[0] === state.heads[1] ? "this head" : `heads ${state.heads.join(" and ")}`;
    const apart = two ? ` KL of ${what}: ${distance(...state.heads).toFixed(3)} nats.` : "";
    const sentence = `“${tokens[state.query]}” looks most ${best.join(" and ")}.${apart}`;
    el.setAttribute("data-state", `${state.pair}/${state.heads.slice(0, titles.length).join("/")}/${state.query}`);
    if (cause === "start") summary.textContent = sentence; else speak(sentence);
  }
}

export default { render };
