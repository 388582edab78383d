import { calmly, field, h, onWidth, s, show } from "./shared.js";

const DIGITS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
const RAMP = [[0, 34, 78], [53, 69, 108], [102, 105, 112], [148, 142, 119], [200, 184, 102], [254, 232, 56]]; // cividis

/** Scores of all heads, from text; the inverse of `pack` in relations.py. A symmetric table holds its upper half. */
function unpack({ step, text }, count, symmetric) {
  const perHead = symmetric ? (count * (count + 1)) / 2 : count * count, heads = text.length / 3 / perHead;
  return Array.from({ length: heads }, (_, head) => {
    const table = new Float64Array(count * count);
    let at = 3 * head * perHead;
    for (let row = 0; row < count; row += 1) {
      for (let column = symmetric ? row : 0; column < count; column += 1, at += 3) {
        const unit = 4096 * DIGITS.indexOf(text[at]) + 64 * DIGITS.indexOf(text[at + 1]) + DIGITS.indexOf(text[at + 2]);
        table[row * count + column] = (unit - 131071) * step;
        if (symmetric) table[column * count + row] = table[row * count + column];
      }
    }
    return table;
  });
}

/** Mirrors `relation_numbers` in relations.py, for one head: log-softmax over the kept keys on both sides, then KL. */
function relation(teacher, student, kept, factors) {
  const count = kept.length, indices = kept.flatMap((one, index) => (one ? [index] : []));
  const tables = [new Float64Array(count * count), new Float64Array(count * count)], rowKl = new Float64Array(count);
  for (const row of indices) {
    const logs = [teacher, student].map((scores, side) => {
      const line = indices.map((column) => scores[row * count + column] * factors[side]);
      const top = Math.max(...line), logSum = Math.log(line.reduce((sum, value) => sum + Math.exp(value - top), 0));
      return line.map((value) => value - top - logSum);
    });
    indices.forEach((column, at) => {
      tables.forEach((table, side) => { table[row * count + column] = Math.exp(logs[side][at]); });
      rowKl[row] += Math.exp(logs[0][at]) * (logs[0][at] - logs[1][at]);
    });
  }
  return { tables, rowKl, kl: indices.reduce((sum, row) => sum + rowKl[row], 0) / indices.length };
}

/** Most relations are weak: the square root spreads the small values over the colours. */
function colour(probability) {
  const place = Math.sqrt(Math.min(probability, 1)) * (RAMP.length - 1), index = Math.min(Math.floor(place), RAMP.length - 2);
  return `rgb(${RAMP[index].map((from, channel) => Math.round(from + (RAMP[index + 1][channel] - from) * (place - index))).join(" ")})`;
}

function render({ model, el }) {
  const tokens = model.get("tokens"), titles = model.get("titles"), real = model.get("mask"), headCount = model.get("heads");
  const names = model.get("kinds"), versions = model.get("versions"), scales = model.get("scales"), factors = model.get("factors");
  const count = tokens.length, padded = real.includes(0);
  const scores = Object.fromEntries(Object.entries(model.get("packed")).map(([kind, sides]) => [kind, sides.map((side) => unpack(side, count, kind !== "qk"))]));
  const start = { version: 0, head: model.get("head"), scale: 0, masked: true, query: Math.min(1, real.lastIndexOf(1)) };
  const state = { ...start };
  let found = {}; // kind -> one relation per head, for the present scale and mask

  const kept = () => real.map((one) => one === 1 || !state.masked);
  const shown = () => versions[state.version][1];
  const total = (head) => shown().reduce((sum, kind) => sum + found[kind][head].kl, 0);

  // Controls.
  const choose = (name, options, action) => h("select", { "data-control": name, onchange: (event) => { action(event.target.selectedIndex); update(); } },
    options.map((text) => h("option", {}, text)));
  const button = (text, name, action) => h("button", { type: "button", "data-control": name, onclick: () => { action(); update(); } }, text);
  const versionButtons = versions.map(([name], index) => button(name, `version-${index}`, () => { state.version = index; }));
  const headMenu = choose("head", Array.from({ length: headCount }, (_, head) => `head ${head}`), (index) => { state.head = index; });
  const scaleMenu = choose("scale", scales, (index) => { state.scale = index; });
  const maskBox = h("input", { type: "checkbox", "data-control": "mask", onchange: (event) => { state.masked = event.target.checked; update(); } });
  const heads = () => Array.from({ length: headCount }, (_, head) => head);
  const best = (sign) => { state.head = heads().reduce((one, other) => (sign * total(other) < sign * total(one) ? other : one)); };
  const presets = [
    button("As in the paper", "paper", () => { Object.assign(state, start, { version: state.version }); }),
    button("Nearest head", "nearest", () => best(1)), button("Farthest head", "farthest", () => best(-1)),
  ];

  const words = tokens.map((token, index) => h("button", {
    type: "button", role: "radio", class: `cv-word${real[index] ? "" : " cv-padding"}`, "data-query": index, "aria-label": `${token}, token ${index + 1}`,
    onclick: () => pick(index), onmouseenter: () => pick(index),
    onkeydown: (event) => {
      const places = kept().flatMap((one, place) => (one ? [place] : [])), here = places.indexOf(index);
      const to = { ArrowRight: here + 1, ArrowDown: here + 1, ArrowLeft: here - 1, ArrowUp: here - 1, Home: 0, End: places.length - 1 }[event.key];
      if (to === undefined) return;
      event.preventDefault();
      const next = places[(to + places.length) % places.length];
      pick(next);
      words[next].focus();
    },
  }, token));

  // One section for each kind of relation: KL per head, and the two maps.
  const sections = Object.fromEntries(Object.keys(names).map((kind) => {
    const strip = h("div", { class: "cv-strip", "aria-hidden": "true" });
    const value = h("b", { "data-kl": kind });
    const maps = titles.map((title, side) => ({ side, kind, cells: [], box: h("div", { class: "cv-map" }), title: h("div", { class: `cv-map-title cv-side-${side}` }, h("b", {}, title)) }));
    const node = h("section", { class: "cv-kind", "data-kind": kind },
      h("div", { class: "cv-kind-head" }, h("div", {}, h("b", {}, names[kind][0]), ` softmax(${names[kind][1]} / √d), KL of this head `, value, " nats"),
        h("div", { class: "cv-strip-box" }, h("span", { class: "cv-name" }, "KL per head"), strip)),
      h("div", { class: "cv-maps" }, maps.map((map) => h("div", { class: "cv-side" }, map.title, map.box))));
    return [kind, { node, strip, value, maps }];
  }));

  const kinds = h("div");
  const numbersHead = h("thead"), numbersBody = h("tbody"), numbersTitle = h("caption");
  const summary = h("p", { class: "cv-summary", "aria-live": "polite" });
  const speak = calmly((text) => { summary.textContent = text; });
  const ramp = `linear-gradient(to right, ${Array.from({ length: 21 }, (_, index) => colour(index / 20)).join(", ")})`;
  el.append(
    h("div", { class: "cv-title" }, model.get("title")),
    h("div", { class: "cv-row", role: "group", "aria-label": "Which relations" }, versionButtons),
    h("div", { class: "cv-row cv-controls" }, field("Head of both", headMenu), field("Scores are divided by", scaleMenu),
      padded ? h("label", { class: "cv-check" }, maskBox, " mask the padding") : null),
    h("div", { class: "cv-row", role: "group", "aria-label": "Presets" }, presets),
    h("div", { class: "cv-name cv-ask" }, "Choose a token: which tokens does it relate to?"),
    h("div", { class: "cv-words", role: "radiogroup", "aria-label": "Token that asks" }, words),
    kinds,
    h("div", { class: "cv-legend", "aria-hidden": "true" }, h("span", {}, "0"), h("span", { class: "cv-ramp", style: `background:${ramp}` }), h("span", {}, "1"),
      h("span", { class: "cv-name" }, "rows relate to columns; every row sums to 1")),
    h("table", { class: "cv-row-numbers" }, numbersTitle, numbersHead, numbersBody),
    summary,
  );
  update(true);
  for (const { maps } of Object.values(sections)) for (const map of maps) onWidth(map.box, (width) => draw(map, width));

  function pick(index) {
    if (index === state.query || !kept()[index]) return;
    state.query = index;
    followQuery();
  }

  function draw(map, width) {
    const font = Math.max(8, Math.min(12, ((width - 60) / count) * 0.82)), cut = (token) => (token.length > 9 ? `${token.slice(0, 8)}…` : token);
    const margin = Math.ceil(Math.min(Math.max(...tokens.map((token) => token.length)), 9) * font * 0.6 + 6);
    const cell = Math.min((width - margin - 2) / count, 22), gap = cell > 9 ? 1 : 0.4, size = margin + cell * count + 2;
    const svg = s("svg", { width: size, height: size, "aria-hidden": "true" });
    map.cells = [];
    map.names = tokens.map((token, row) => {
      const at = margin + row * cell, middle = at + cell / 2 + font * 0.35;
      svg.append(s("text", { transform: `translate(${middle} ${margin - 5}) rotate(-90)`, style: `font-size:${font}px` }, cut(token)));
      tokens.forEach((_, column) => map.cells.push(svg.appendChild(s("rect", { x: margin + column * cell, y: at, width: cell - gap, height: cell - gap, onmouseenter: () => pick(row), onclick: () => pick(row) }))));
      return svg.appendChild(s("text", { x: margin - 5, y: middle, "text-anchor": "end", style: `font-size:${font}px` }, cut(token)));
    });
    map.frame = svg.appendChild(s("rect", { class: "cv-frame", x: margin - 1.5, width: cell * count + 2, height: cell + 2 }));
    map.place = () => {
      map.frame.setAttribute("y", margin + state.query * cell - 1.5);
      map.names.forEach((name, index) => name.setAttribute("font-weight", index === state.query ? 700 : 400));
    };
    map.box.replaceChildren(svg);
    paint(map);
  }

  function paint(map) {
    if (!map.cells.length || !found[map.kind]) return;
    const table = found[map.kind][state.head].tables[map.side], in_ = kept();
    map.cells.forEach((cell, index) => {
      const takesPart = in_[Math.floor(index / count)] && in_[index % count];
      cell.setAttribute("fill", takesPart ? colour(table[index]) : "none");
      cell.setAttribute("class", takesPart ? "" : "cv-out");
    });
    map.place();
  }

  function update(first = false) {
    const pair = factors.map((one) => one[state.scale]), in_ = kept();
    if (!in_[state.query]) state.query = start.query;
    found = Object.fromEntries(shown().map((kind) => [kind, heads().map((head) => relation(scores[kind][0][head], scores[kind][1][head], in_, pair))]));
    versionButtons.forEach((one, index) => one.setAttribute("aria-pressed", String(index === state.version)));
    headMenu.selectedIndex = state.head;
    scaleMenu.selectedIndex = state.scale;
    maskBox.checked = state.masked;
    if (first || kinds.childElementCount !== shown().length) kinds.replaceChildren(...shown().map((kind) => sections[kind].node));
    for (const kind of shown()) {
      const section = sections[kind];
      show(section.value, found[kind][state.head].kl, found[kind][state.head].kl.toFixed(3));
      const top = Math.max(...found[kind].map((one) => one.kl), 1e-9);
      section.strip.replaceChildren(...found[kind].map((one, head) => h("span", {
        class: head === state.head ? "cv-chosen" : "", title: `head ${head}: ${one.kl.toFixed(3)}`, "data-head-kl": kind, "data-value": one.kl,
        onclick: () => { state.head = head; update(); },
      }, h("i", { style: `height:${(6 + 94 * (one.kl / top)).toFixed(1)}%` }), h("small", {}, String(head)))));
      section.maps.forEach(paint);
    }
    numbersHead.replaceChildren(
      h("tr", {}, h("td"), shown().map((kind) => h("th", { scope: "colgroup", colspan: 2 }, names[kind][0]))),
      h("tr", {}, h("th", { scope: "col" }, "token"), shown().flatMap(() => titles.map((title, side) => h("th", { scope: "col", class: `cv-side-${side}` },
        h("span", { class: "cv-long" }, title), h("span", { class: "cv-short" }, title.slice(0, 1)))))));
    followQuery(first);
  }

  /** The row of the chosen token, as numbers. */
  function followQuery(first = false) {
    const in_ = kept();
    words.forEach((word, index) => {
      word.setAttribute("aria-checked", String(index === state.query));
      word.setAttribute("tabindex", index === state.query ? "0" : "-1");
      word.disabled = !in_[index];
    });
    for (const kind of shown()) for (const map of sections[kind].maps) if (map.place) map.place();
    const from = state.query * count;
    numbersTitle.replaceChildren("From ", h("b", {}, `“${tokens[state.query]}”`), ` to each token, head ${state.head}`);
    numbersBody.replaceChildren(...tokens.flatMap((token, key) => (in_[key] ? [h("tr", {}, h("th", { scope: "row" }, token),
      shown().flatMap((kind) => titles.map((_, side) => {
        const value = found[kind][state.head].tables[side][from + key];
        const cell = h("td", { class: `cv-side-${side}`, "data-relation": kind, "data-side": side, "data-key": key, style: `--share:${(100 * value).toFixed(1)}%` });
        show(cell, value, value.toFixed(3));
        return cell;
      })))] : [])), h("tr", {}, h("th", { scope: "row" }, "KL"), shown().map((kind) => {
      const cell = h("td", { colspan: 2, class: "cv-row-kl", "data-row-kl": kind }), value = found[kind][state.head].rowKl[state.query];
      show(cell, value, value.toFixed(3));
      return cell;
    })));
    const strongest = shown().map((kind) => {
      const row = found[kind][state.head].tables[0].subarray(from, from + count), at = row.indexOf(Math.max(...row));
      return `${names[kind][0]} “${tokens[at]}” (${row[at].toFixed(3)})`;
    });
    const sentence = `“${tokens[state.query]}” in the ${titles[0]}, strongest: ${strongest.join(", ")}. KL of this head, all shown relations: ${total(state.head).toFixed(3)} nats.`;
    if (first) summary.textContent = sentence; else speak(sentence);
  }
}

export default { render };
