import { calmly, field, h, onWidth, s, show } from "./shared.js";

const PROBABILITIES = { p_mask: "p_mask: hide the word", p_pos: "p_pos: replace the word", p_ngram: "p_ngram: keep only an n-gram" };
const MARKS = ["■", "⇄", "◆"];
const PAUSE = 1600;

// ---- The rule of bilstm_augmentation.py on stored draws; tests/test_augmentation_view.py compares the two.

function augmentationNumbers(words, mask, draw, p) {
  const kinds = draw.x.map((x) => (x < p.p_mask ? "masked" : x < p.p_mask + p.p_pos ? "replaced" : ""));
  const now = words.map((word, i) => ({ masked: mask, replaced: draw.candidates[i] })[kinds[i]] ?? word);
  let window = [0, words.length];
  if (draw.ngram < p.p_ngram && words.length > draw.length) {
    const start = Math.floor(draw.start * (words.length - draw.length + 1));
    window = [start, start + draw.length];
  }
  return { words: now, kinds: kinds.map((kind, i) => (kind === "masked" && words[i] === mask ? "" : kind)), window, text: now.slice(...window).join(" ") };
}

// ---- The picture.

const percent = (share) => `${(100 * share).toFixed(1)} %`;

function render({ model, el }) {
  const words = model.get("words"), draws = model.get("draws"), kinds = model.get("kinds");
  const count = (draws ?? model.get("copies")).length, original = words.join(" ");
  const state = { seed: model.get("seed"), p: { ...model.get("start") }, timer: 0 };

  function copyOf(seed) {
    if (draws) return augmentationNumbers(words, model.get("mask"), draws[seed], state.p);
    const copy = model.get("copies")[seed], now = copy.map(([word]) => word);
    return { words: now, kinds: copy.map(([, kind]) => kind), window: [0, words.length], text: now.join(" ") };
  }

  // Controls: which copy, and (where the rule runs here) the probabilities.
  const what = draws ? "Seed" : "Copy";
  const seed = h("input", {
    type: "number", "data-control": "seed", min: 0, max: count - 1, step: 1, inputmode: "numeric",
    oninput: () => {
      const good = Number.isInteger(seed.valueAsNumber) && seed.valueAsNumber >= 0 && seed.valueAsNumber < count;
      seed.setAttribute("aria-invalid", String(!good));
      complain(good ? "" : `Please write a whole number from 0 to ${count - 1}.`);
      if (good) { state.seed = seed.valueAsNumber; stop(); update("seed"); }
    },
    onchange: () => { if (seed.getAttribute("aria-invalid") === "true") update("reset"); },
  });
  const go = (step) => { state.seed = (state.seed + step + count) % count; update("step"); };
  const button = (key, text, action) => h("button", { type: "button", "data-control": key, onclick: action }, text);
  const previous = button("previous", "◀ Previous", () => { stop(); go(-1); });
  const next = button("next", "Next ▶", () => { stop(); go(1); });
  const play = button("play", "Play all", () => { if (state.timer) stop(); else start(); });
  const complaint = h("span", { class: "cv-complaint", role: "status" });
  const complain = (text) => { complaint.textContent = text; };

  const sliders = !draws ? [] : Object.entries(PROBABILITIES).map(([name, text]) => {
    const value = h("output", { class: "cv-p" });
    const slider = h("input", {
      type: "range", "data-control": name, min: 0, max: 1, step: 0.01, "aria-label": text,
      oninput: () => { choose(name, Math.round(100 * slider.valueAsNumber) / 100); update("slider"); },
    });
    return { name, slider, value, node: h("label", { class: "cv-probability" }, h("span", { class: "cv-name" }, text), h("span", { class: "cv-slide" }, slider, value)) };
  });

  // A word has one draw: p_mask and p_pos share the way from 0 to 1, so the other one gives way.
  function choose(name, value) {
    state.p[name] = value;
    const other = { p_mask: "p_pos", p_pos: "p_mask" }[name], room = Math.round(100 * (1 - value)) / 100;
    const full = other && state.p[other] > room;
    if (full) state.p[other] = room;
    complain(full ? `${other} gives way: p_mask + p_pos cannot pass 1.` : "");
  }

  const presets = (model.get("presets") ?? []).map((preset) => h("button", {
    type: "button", "data-preset": preset.name,
    onclick: () => { for (const name in PROBABILITIES) state.p[name] = preset[name]; complain(""); update("preset"); },
  }, preset.name));

  function start() {
    play.textContent = "Stop";
    summary.setAttribute("aria-live", "off");
    state.timer = setInterval(() => { if (el.isConnected) go(1); else stop(); }, PAUSE);
  }

  function stop() {
    clearInterval(state.timer);
    state.timer = 0;
    play.textContent = "Play all";
    summary.setAttribute("aria-live", "polite");
  }

  // One box per word: what stood there, what stands there now, and why.
  const boxes = words.map((word, index) => {
    const was = h("s", { class: "cv-was" }), now = h("b", { class: "cv-now" }), why = h("span", { class: "cv-why" });
    return { was, now, why, node: h("li", { class: "cv-box", "data-word": index }, was, now, why) };
  });
  const line = h("div", { class: "cv-line" });
  const result = h("p", { class: "cv-result" });
  const legend = h("div", { class: "cv-key" },
    kinds.map((kind, index) => h("span", { class: `cv-nowrap cv-kind-${index}` }, h("i", { class: "cv-swatch" }, MARKS[index]), ` ${kind.name}`)),
    draws && h("span", { class: "cv-nowrap cv-cut" }, h("i", { class: "cv-swatch" }, "✂"), " cut off: not in the n-gram"));
  const tile = (key, name) => {
    const value = h("span", { class: "cv-value", "data-quantity": key }), note = h("span", { class: "cv-note" });
    return { key, value, note, node: h("div", { class: "cv-tile" }, h("span", { class: "cv-name" }, name), value, note) };
  };
  const tiles = [...kinds.map((kind) => tile(kind.kind, draws ? `Words ${kind.kind}` : kind.name)),
    ...(draws ? [tile("ngram", "Cut to an n-gram")] : []), tile("different", "Different new sentences")];
  const summary = h("p", { class: "cv-summary", "aria-live": "polite" });
  const speak = calmly((text) => { summary.textContent = text; });
  let width = 0;

  el.append(
    h("div", { class: "cv-title" }, model.get("title")),
    presets.length ? h("div", { class: "cv-row cv-presets", role: "group", "aria-label": "Examples" }, presets) : "",
    sliders.length ? h("div", { class: "cv-probabilities" }, sliders.map((one) => one.node)) : "",
    h("div", { class: "cv-row" }, field(`${what}, 0 to ${count - 1}`, seed, "cv-seed"), previous, next, play),
    complaint,
    h("ol", { class: "cv-boxes", "aria-label": "Word by word" }, boxes.map((box) => box.node)),
    legend,
    draws ? line : "",
    result,
    h("div", { class: "cv-name cv-over" }, `Over all ${count} ${draws ? "seeds" : "copies"}:`),
    h("div", { class: "cv-tiles" }, tiles.map((one) => one.node)),
    summary,
  );
  if (draws) onWidth(line, (now) => { width = now; drawLine(copyOf(state.seed)); });
  update("start");

  function update(cause) {
    const copies = Array.from({ length: count }, (_, number) => copyOf(number));
    const copy = copies[state.seed], cut = (one) => one.window[1] - one.window[0] < words.length;
    if (cause !== "seed") {
      seed.value = state.seed;
      seed.setAttribute("aria-invalid", "false");
      if (cause === "reset" || cause === "step") complain("");
    }
    for (const { name, slider, value } of sliders) {
      if (slider.valueAsNumber !== state.p[name]) slider.value = state.p[name];
      value.textContent = state.p[name].toFixed(2);
    }
    presets.forEach((preset, index) => preset.setAttribute("aria-pressed",
      String(Object.keys(PROBABILITIES).every((name) => model.get("presets")[index][name] === state.p[name]))));

    boxes.forEach((box, index) => {
      const kind = copy.kinds[index], number = kinds.findIndex((one) => one.kind === kind);
      const inside = index >= copy.window[0] && index < copy.window[1];
      box.node.className = `cv-box ${number < 0 ? "" : `cv-kind-${number}`} ${inside ? "" : "cv-cut"}`;
      box.node.setAttribute("data-kind", kind);
      box.node.setAttribute("data-inside", String(inside));
      box.was.textContent = kind ? words[index] : "";
      box.now.textContent = copy.words[index];
      const marks = [number < 0 ? "" : `${MARKS[number]} ${draws ? kind : ""}`, inside ? "" : "✂"].filter(Boolean).join(" ");
      box.why.textContent = [draws ? `X ${draws[state.seed].x[index].toFixed(3)}` : "", marks].filter(Boolean).join(" ");
    });
    if (draws) drawLine(copy);

    const earlier = copies.findIndex((one) => one.text === copy.text);
    const verdict = copy.text === original ? "Nothing has changed: this copy is dropped."
      : earlier < state.seed ? `The same as ${what.toLowerCase()} ${earlier}: this copy is dropped.` : "";
    result.replaceChildren(h("span", { class: "cv-name" }, "New sentence: "), h("b", { "data-new": "" }, copy.text), verdict && h("span", { class: "cv-verdict" }, ` ${verdict}`));

    const all = count * words.length;
    for (const one of tiles) {
      if (one.key === "different") {
        const texts = new Set(copies.map((each) => each.text));
        texts.delete(original);
        show(one.value, texts.size, String(texts.size));
        one.note.textContent = `of ${count}; duplicates are dropped`;
      } else if (one.key === "ngram") {
        const share = copies.filter(cut).length / count;
        show(one.value, share, percent(share));
        one.note.textContent = `asked for: ${percent(state.p.p_ngram)} (a short sentence stays whole)`;
      } else {
        const share = copies.reduce((sum, each) => sum + each.kinds.filter((kind) => kind === one.key).length, 0) / all;
        show(one.value, share, percent(share));
        one.note.textContent = draws ? `asked for: ${percent(one.key === "masked" ? state.p.p_mask : state.p.p_pos)}` : `of ${all} words`;
      }
    }
    el.setAttribute("data-seed", state.seed);
    const counted = kinds.map((kind) => `${copy.kinds.filter((one) => one === kind.kind).length} ${draws ? kind.kind : kind.name}`).join(", ");
    const gram = cut(copy) ? ` An n-gram of ${copy.window[1] - copy.window[0]} is kept.` : "";
    const sentence = `${what} ${state.seed}, ${words.length} words: ${counted}.${gram} ${verdict}`;
    if (cause === "start") summary.textContent = sentence; else speak(sentence);
  }

  // The way from 0 to 1 with its three parts; every word stands at its draw X.
  function drawLine(copy) {
    if (!width) return;
    const left = 12, right = 12, row = 15, x = (value) => left + value * (width - left - right);
    const free = [];
    const placed = draws[state.seed].x.map((value, index) => ({ value, index })).sort((a, b) => a.value - b.value).map(({ value, index }) => {
      const half = Math.min(3.6 * copyWord(index).length + 4, width / 2 - 2);
      const middle = Math.max(half, Math.min(x(value), width - half));
      let level = free.findIndex((end) => end <= middle - half);
      if (level < 0) level = free.push(0) - 1;
      free[level] = middle + half;
      return { value, index, middle, level };
    });
    const base = free.length * row + 12, { p_mask: mask, p_pos: pos } = state.p;
    const part = (from, to, name, kind) => to - from < 1e-9 ? [] : [
      s("rect", { class: kind, x: x(from), y: base, width: x(to) - x(from), height: 20 }),
      x(to) - x(from) < 7 * name.length ? null : s("text", { x: (x(from) + x(to)) / 2, y: base + 14, "text-anchor": "middle" }, name)];
    line.replaceChildren(s("svg", {
      width, height: base + 40, role: "img",
      "aria-label": `Every word at its draw X. Below ${mask.toFixed(2)} it is masked, below ${(mask + pos).toFixed(2)} replaced, otherwise kept.`,
    },
      placed.map(({ value, level }) => s("line", { class: "cv-stem", x1: x(value), x2: x(value), y1: (level + 1) * row, y2: base })),
      part(0, mask, "mask", "cv-part cv-kind-0"), part(mask, mask + pos, "replace", "cv-part cv-kind-1"), part(mask + pos, 1, "keep", "cv-part"),
      placed.map(({ index, middle, level }) => s("text", { class: copy.kinds[index] ? "cv-strong" : "", x: middle, y: (level + 1) * row - 3, "text-anchor": "middle" }, copyWord(index))),
      [0, 0.25, 0.5, 0.75, 1].map((tick) => s("text", { class: "cv-faint", x: x(tick), y: base + 35, "text-anchor": tick === 0 ? "start" : tick === 1 ? "end" : "middle" }, tick === 0 ? "X = 0" : String(tick)))));
  }

  function copyWord(index) {
    return words[index].length > 14 ? `${words[index].slice(0, 13)}…` : words[index];
  }
}

export default { render };
